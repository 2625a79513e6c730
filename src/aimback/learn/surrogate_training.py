"""Training surrogates: the mean squared error on data sets of simulated examples."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau

from aimback.core.errors import UserError
from aimback.core.randomness import derive_seed
from aimback.data.dataset import Dataset
from aimback.data.identity import identify
from aimback.learn.callbacks import Epoch, Live, average_rows
from aimback.learn.examples import VALIDATION_BATCH, Examples
from aimback.learn.learner import Learner
from aimback.learn.perceptron import LEAST_BATCH, differentiate, with_batch_norm, without_batch_norm
from aimback.learn.second_order import DampedLeastSquares
from aimback.learn.surrogate import Surrogate
from aimback.learn.trainer import fit, name_training
from aimback.settings.learning import NetworkSettings, TrainingSettings, check_together
from aimback.tasks.base import Task

Trained = tuple[Surrogate, list[Epoch]]
_Member = tuple[Surrogate, Dataset, int]  # and what it learns from, and the seed of the order


def train_surrogates(
    datasets: Sequence[Dataset],
    task: Task,
    network: NetworkSettings,
    training: TrainingSettings,
    seeds: Sequence[int],
    accelerator: str,
    work_dir: Path,
    live: Live | None = None,
    begin: Surrogate | None = None,
) -> list[Trained]:
    """Train a network on each of some data sets; resumes by itself where an equal training was killed.

    Where it is to be an ensemble each of its members learns from the whole data set, in an order of its own.
    They learn side by side where they walk in step, otherwise one after the other. Each comes out with the same bits
    either way, so what else is trained makes no difference to it.

    Args:
        seeds: of each network's weights and of the order of its examples; further members have seeds derived from it.
        accelerator: "cpu" or "cuda".
        work_dir: where checkpoints lie until it is removed, in a folder named after everything the
            result depends on, so that a checkpoint of another training is never taken up.
        live: called once an epoch with the step and the values worth watching, of what is made of the first data set;
            never where that is an ensemble whose members are trained one after the other.
        begin: whose weights each begins with, and whose standardisation it keeps; None draws new weights.

    Returns:
        For each data set the network with the least validation loss, on the CPU and frozen, and one row an epoch; of
        an ensemble each member has its own least loss, and the rows are means over all: one that has stopped before the
        others counts with its last row.

    Raises:
        TrainingDiverged: the loss became infinite or NaN; the last good checkpoint is kept.
        UserError: batch normalisation of batches of a single example or with levenberg_marquardt, or too many weights
            for that.
        SystemExit: 143, asked to terminate; KeyboardInterrupt: Ctrl-C. Both leave a checkpoint behind.
    """
    check_together(network, training)
    count, members = network.members if begin is None else len(begin.members), list[_Member]()
    for dataset, seed in zip(datasets, seeds, strict=True):
        own = [seed, *(derive_seed(seed, f"member {number}", "training") for number in range(1, count))]
        if begin is None:
            streams = [torch.Generator().manual_seed(one) for one in own]
            singles = [Surrogate.for_dataset(dataset, task, network, stream) for stream in streams]
        else:
            singles = begin.split()
        members += zip(singles, [dataset] * count, own, strict=True)
    # The steps of an epoch are one network's own too.
    in_step = len({(dataset.n_training, dataset.n_validation) for dataset in datasets}) == 1
    groups = [members] if in_step and not training.goes_by_the_loss else [[member] for member in members]
    trained = []
    for place, group in enumerate(groups):
        told = live if place == 0 and len(group) >= count else None
        trained += _train_side_by_side(group, task, network, training, accelerator, work_dir, told, count)
    ensembles = [trained[first : first + count] for first in range(0, len(trained), count)]
    return [_join(ensemble) for ensemble in ensembles]


def train_surrogate(
    dataset: Dataset,
    task: Task,
    network: NetworkSettings,
    training: TrainingSettings,
    seed: int,
    accelerator: str,
    work_dir: Path,
    live: Live | None = None,
    begin: Surrogate | None = None,
) -> Trained:
    """Train a network on a data set, see `train_surrogates`."""
    (trained,) = train_surrogates([dataset], task, network, training, [seed], accelerator, work_dir, live, begin)
    return trained


def _train_side_by_side(
    members: Sequence[_Member],
    task: Task,
    network: NetworkSettings,
    training: TrainingSettings,
    accelerator: str,
    work_dir: Path,
    live: Live | None,
    watched: int,
) -> list[Trained]:
    weights = [weight.cpu() for surrogate, _, _ in members for weight in surrogate.state_dict().values()]
    surrogates = [surrogate for surrogate, _, _ in members]
    normalised = network.normalisation == "batch"
    for surrogate in surrogates:
        surrogate.to("cpu", getattr(torch, training.dtype)).requires_grad_(True)
        if normalised:
            surrogate.layers = with_batch_norm(surrogate.layers)
    examples = _collect_examples(members, training, LEAST_BATCH if normalised else 1, accelerator)
    second_order = training.optimizer == "levenberg_marquardt"
    learner = (SecondOrderLearner if second_order else SurrogateLearner)(
        surrogates,
        training,
        training.max_epochs * examples.steps_an_epoch,
        examples.steps_an_epoch,
        [_weigh_jacobians(surrogate, dataset, training.jacobian_weight) for surrogate, dataset, _ in members],
    )
    parts = (part for _, dataset, _ in members for part in dataset.parts)
    about = [(dataset.n_validation, seed) for _, dataset, seed in members]
    settings = [network.model_dump(), training.model_dump()]
    name = name_training(itertools.chain(parts, weights), [identify(task), about, settings, accelerator])
    histories = fit(learner, examples, training, accelerator, work_dir / name, live, watched)
    for surrogate in surrogates:
        if normalised:
            surrogate.layers = without_batch_norm(surrogate.layers)
        surrogate.cpu().eval().requires_grad_(False)
    return list(zip(surrogates, histories, strict=True))


def _join(ensemble: Sequence[Trained]) -> Trained:
    surrogates, histories = zip(*ensemble, strict=True)
    epochs = max(map(len, histories))
    rows = zip(*(history + history[-1:] * (epochs - len(history)) for history in histories), strict=True)
    return Surrogate.join(surrogates), [average_rows(row) for row in rows]


def validation_mse(surrogate: Surrogate, dataset: Dataset) -> float:
    """The mean squared error over the validation examples in the square of the outcome's raw unit.

    1 / (n n_outcomes) times the sum over the n validation rows and over the outcome's dimensions of
    (surrogate - simulator)^2: the unit and the averaging of the published test errors and of r_T. The
    network computes in its own dtype, the difference and the sum are float64.
    """
    dtype = surrogate.outcome_mean.dtype
    part = slice(dataset.n_training, None)
    with torch.no_grad():
        outcomes = surrogate(dataset.controls[part].to(dtype), dataset.conditions[part].to(dtype))
    squares = (outcomes.double() - dataset.outcomes[part]).square()
    total = torch.stack([some.sum() for some in squares.split(VALIDATION_BATCH)]).sum()
    return float(total.item() / squares.numel())


class SurrogateLearner(Learner):
    """The mean squared error of standardised outcomes, and `TrainingSettings.jacobian_weight` times that of Jacobians.

    With batch normalisation the training loss is that of batches normalised by themselves, the validation
    loss that of the network as it comes out of the training.
    """

    settings: TrainingSettings

    def __init__(
        self,
        surrogates: Sequence[Surrogate],
        settings: TrainingSettings,
        total_steps: int,
        steps_an_epoch: int,
        jacobian_weights: Sequence[float],
    ) -> None:
        super().__init__(surrogates, settings, total_steps, "training")
        self.surrogates = list(surrogates)
        self.steps_an_epoch = steps_an_epoch
        self.jacobian_weights = jacobian_weights

    def training_step(self, batches: Sequence[Sequence[Tensor]]) -> Tensor | None:
        batches = self.take_shares(batches)
        return self.note_loss(self._losses(batches), len(batches[0][0]))

    def validation_step(self, batches: Sequence[Sequence[Tensor]]) -> None:
        batches = self.take_shares(batches)
        inputs, outcomes, *_ = batches[0]
        self.note_validation(self._losses(batches, "sum") / outcomes.shape[1], len(inputs))

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.settings.optimizer)
        if self.settings.schedule == "plateau":
            # By the training loss, as Ren, Padilla and Malof (2020) do.
            factor, patience = self.settings.plateau_factor, self.settings.plateau_patience
            plateau = ReduceLROnPlateau(optimizer, factor=factor, patience=patience, threshold=1e-4)
            # Not by the epoch, whose schedulers Lightning moves after its checkpoint is written.
            config = {"scheduler": plateau, "monitor": "train_loss", "frequency": self.steps_an_epoch}
        else:
            config = {"scheduler": self.make_schedule(optimizer)}
        return {"optimizer": optimizer, "lr_scheduler": config | {"interval": "step"}}

    def _losses(self, batches: Sequence[Sequence[Tensor]], reduction: str = "mean") -> Tensor:
        return torch.stack(
            [
                _lose(surrogate.layers, weight, reduction, *batch)
                for surrogate, weight, batch in zip(self.surrogates, self.jacobian_weights, batches, strict=True)
            ]
        )


def _lose(
    layers: nn.Sequential,
    weight: float,
    reduction: str,
    inputs: Tensor,
    outcomes: Tensor,
    jacobians: Tensor | None = None,
) -> Tensor:
    if jacobians is None:
        return F.mse_loss(layers(inputs), outcomes, reduction=reduction)
    controls = jacobians.shape[-1]
    outcome, jacobian = differentiate(layers, inputs, controls)
    errors = [F.mse_loss(*pair, reduction=reduction) for pair in ((outcome, outcomes), (jacobian, jacobians))]
    # The mean over controls is meant, in a sum too.
    return errors[0] + (weight / controls if reduction == "sum" else weight) * errors[1]


def _weigh_jacobians(surrogate: Surrogate, dataset: Dataset, weight: float) -> float:
    """What the mean squared error of standardised Jacobians is multiplied by; 0 where none are learned from.

    Raises:
        UserError: there are no Jacobians to learn from.
    """
    if weight == 0:
        return 0.0
    if dataset.jacobians is None:
        raise UserError("training.jacobian_weight: these examples were simulated without their Jacobians")
    squares = surrogate.standardise_jacobians(dataset.jacobians[: dataset.n_training]).square()
    # Row by row first: so the number of threads has no say in the bits.
    return weight / (squares.mean(0).mean().item() or 1.0)


class SecondOrderLearner(SurrogateLearner):
    """The same for one network and an optimizer that needs the examples: it takes its steps by hand."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.automatic_optimization = False

    def training_step(self, batches: Sequence[Sequence[Tensor]]) -> None:
        ((inputs, outcomes),) = batches
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        error: Tensor = optimizer.step(inputs=inputs, outcomes=outcomes)
        self.note_loss(error[None], len(inputs))

    def on_train_epoch_end(self) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, DampedLeastSquares)
        self.learning_rate = optimizer.learning_rate
        self.trainer.should_stop |= optimizer.stalled

    def configure_optimizers(self) -> DampedLeastSquares:
        (surrogate,) = self.surrogates
        return DampedLeastSquares(surrogate.layers, self.settings.learning_rate, self.settings.weight_decay)


def _collect_examples(
    members: Sequence[_Member],
    training: TrainingSettings,
    least_batch: int,
    device: str,
) -> Examples:
    """Data sets as standardised inputs, outcomes and, where they are learned from, Jacobians.

    Raises:
        UserError: no batch is as large as the least that an optimizer step can do with.
    """
    n_training, n_validation = members[0][1].n_training, members[0][1].n_validation
    batch_size = n_training if training.optimizer == "levenberg_marquardt" else training.batch_size
    if min(batch_size, n_training) < least_batch:
        raise UserError(
            f"surrogate.normalisation: batch needs batches of at least {least_batch} examples, got "
            f"training.batch_size {batch_size} and {n_training} training examples"
        )
    sets = []
    for surrogate, dataset, _ in members:
        # Once, and in the data's float64, not once a step.
        inputs = surrogate.standardise_inputs(dataset.controls, dataset.conditions)
        parts = [inputs, surrogate.standardise_outcomes(dataset.outcomes)]
        if training.learns_jacobians and dataset.jacobians is not None:
            parts.append(surrogate.standardise_jacobians(dataset.jacobians))
        sets.append([part.to(surrogate.input_scale.dtype) for part in parts])
    seeds = [seed for _, _, seed in members]
    return Examples(sets, seeds, n_validation, batch_size, least_batch=least_batch, device=device)
