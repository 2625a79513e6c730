"""What a network errs by on measurements that it has not seen: k-fold cross-validation, and the error that it bounds.

The bound is a conformal one (Vovk, Gammerman, Shafer 2005): of n errors that were held out, a new one from the same
distribution is at most the ceil(0.9 (n + 1))-th smallest with a probability of at least 90 %, whatever the network is.
The network itself has learned from more rows than those of the folds, which makes the bound a careful one. An answer
is no draw from the same distribution: where it lies outside of the data, the bound does not hold.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from aimback.data.dataset import Dataset
from aimback.learn.calibration import bound_error
from aimback.learn.surrogate_training import train_surrogates
from aimback.settings.learning import NetworkSettings, TrainingSettings
from aimback.tasks.base import Task

FOLDS = 5


def cross_validate(
    dataset: Dataset,
    task: Task,
    network: NetworkSettings,
    training: TrainingSettings,
    generator: torch.Generator,
    accelerator: str,
    work_dir: Path,
) -> Tensor:
    """Train a network for each fold on the rows of the others, and let it tell the outcomes of the fold.

    Rows with the same controls and conditions are in one fold, for a network has seen the one that has seen the other.
    Within the rows of the others some are for validation, in the share that `dataset` has of them: the fold itself has
    no say in which weights are the best.

    Args:
        generator: a CPU generator; folds and seeds are a function of it alone.
        accelerator, work_dir: as of `train_surrogates`.

    Returns:
        What is told less what was measured, `(len(dataset), n_outcomes)`, in the units of the outcomes.
    """
    inputs = torch.cat([dataset.controls, dataset.conditions], dim=1)
    _, place = torch.unique(inputs, dim=0, return_inverse=True)
    places = int(place.max()) + 1
    fold = (torch.randperm(places, generator=generator) % FOLDS)[place]
    others = [(fold != number).nonzero()[:, 0] for number in range(FOLDS)]
    # As many for each, so that they learn side by side; the order of the rows is a random one.
    count = min(map(len, others))
    n_validation = min(max(round(count * dataset.n_validation / len(dataset)), 1), count - 1)
    datasets = [
        Dataset.from_parts([part[rows] for part in dataset.parts], n_validation)
        for rows in (other[:count] for other in others)
    ]
    seeds = torch.randint(2**62, (FOLDS,), generator=generator).tolist()
    errors = torch.empty_like(dataset.outcomes)
    trained = train_surrogates(datasets, task, network, training, seeds, accelerator, work_dir)
    for number, (surrogate, _) in enumerate(trained):
        rows, dtype = fold == number, surrogate.outcome_mean.dtype
        with torch.no_grad():
            told = surrogate(dataset.controls[rows].to(dtype), dataset.conditions[rows].to(dtype))
        errors[rows] = told.double() - dataset.outcomes[rows]
    return errors


def summarise_errors(task: Task, errors: Tensor) -> Mapping[str, float]:
    """The root mean square and the 90 % bound of held-out errors `(n, n_outcomes)`, by the names of metrics.json.

    Of each outcome, in its unit and in its tolerances; and of the miss that they make together, in its unit.
    """
    miss = task.distance.measure(errors)[:, None]
    table = torch.cat([errors, errors / torch.tensor(task.tolerances, dtype=torch.float64), miss], dim=1)
    names = [f"error_{name}{of}" for of in ("", "_tolerances") for name in task.outcomes.names] + ["miss"]
    squares, bounds = table.square().mean(0).sqrt().tolist(), bound_error(table).tolist()
    summary = {f"held_out_{name}_rms": value for name, value in zip(names, squares, strict=True)}
    return summary | {f"held_out_{name}_p90": value for name, value in zip(names, bounds, strict=True)}
