"""C9: does a better forward surrogate give a better inverse?"""

import numpy as np
import torch
from torch import Tensor

from aimback.core.problem import Linearised
from aimback.data.dataset import simulate_dataset
from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim, Estimate, estimate
from aimback.diagnose.comparison import measure_miss
from aimback.diagnose.derivatives import compare_gradients, compute_jacobians
from aimback.diagnose.statistics import correlate_ranks, figure, median, sureness

_HELD_OUT = 0.1  # of the greatest data set; never learned from, by any network
_MEASURED = ("forward_error", "cosine", "cosine_random", "miss")


def examine(case: Case) -> tuple[Claim, Pictures]:
    """Networks of nested data sets, several seeds each: does the miss of their answers follow their forward error?

    All are held against the same validation rows, and descend to all targets from the same starts. What else might
    tell the miss is the direction of the network's gradient, at its answers and at the validation rows.
    """
    assert case.train is not None
    task, settings = case.task, case.settings
    sizes = sorted(set(settings.examples))
    stream = case.generator("fidelity: examples")
    dataset = simulate_dataset(task, sizes[-1], _HELD_OUT, stream, case.device, jacobians=case.jacobians)
    seeds = torch.randint(2**62, (1 + settings.replicas,), generator=case.generator("fidelity: seeds")).tolist()
    held_out = slice(dataset.n_training, None)
    unit, given = task.box.to_unit(dataset.controls[held_out]), dataset.conditions[held_out]
    outcomes, slopes = compute_jacobians(case, task, unit, given)
    spread = (outcomes - outcomes.mean(0)).square().sum().sqrt()

    def look(network: Linearised) -> list[Tensor]:
        told, learned = compute_jacobians(case, network, unit, given)
        solution = case.solve(network, case.targets, case.solver, "fidelity: starts", case.starts)
        best = solution.best()[:, None, None]
        answers = solution.controls.take_along_dim(best, 1).to("cpu", torch.float64)
        places = task.box.to_unit(answers[:, 0])
        there = (compute_jacobians(case, forward, places, case.targets.conditions)[1] for forward in (network, task))
        return [
            (told - outcomes).square().sum().sqrt() / spread,
            compare_gradients(*there).nanmedian(),
            compare_gradients(learned, slopes).nanmedian(),
            measure_miss(case, case.targets, answers).median(),
        ]

    # A share of the rows that are there: some may have had no finite outcome.
    parts = [dataset.first(dataset.n_training * size // sizes[-1]) for size in sizes]
    measured = torch.stack([torch.stack(look(network)) for part in parts for network in case.train(part, seeds)])
    number, of_cosine, of_random, ahead = _correlate(case, measured)
    by_size = measured.unflatten(0, (len(sizes), len(seeds)))
    because = (
        f"{_tell(case, sizes[0], by_size[0])}; {_tell(case, sizes[-1], by_size[-1])}. Over {len(measured)} networks "
        f"the rank correlation with the miss is {figure(number.value)} for the forward error ({sureness(number)}) and "
        f"{figure(of_cosine.value)} for the angle of the gradient at the answers: {_choose(ahead)}."
    )
    details = {
        "cosine_correlation": of_cosine.value,
        "cosine_random_correlation": of_random.value,
        "cosine_ahead": ahead.value,
        "cosine_ahead_low": ahead.low,
        "cosine_ahead_high": ahead.high,
    }
    for size, rows in zip(sizes, by_size, strict=True):
        details |= {f"{name}_{size}": median(column) for name, column in zip(_MEASURED, rows.T, strict=True)}
    claim = Claim(
        key="C9",
        says="A better forward surrogate gives a better inverse.",
        question="Does a better forward surrogate give a better inverse?",
        unit="rank correlation",
        bound=0.0,
        measure="Spearman's rank correlation, over networks of several data sets and seeds, of the forward error (root "
        "mean square over validation rows, relative to the spread of the outcomes) with the median over all targets of "
        "the true miss of the answer that the network believes best",
        number=number,
        rule="supported where the correlation and its interval over networks lie above 0; refuted where none of them "
        "does. Forward error or gradient tells the miss better where the interval of the difference of their "
        "correlations leaves out 0",
        because=because,
        details=details,
    )
    error, cosine, _, miss = measured.numpy().T
    examples = np.repeat(np.array(sizes, dtype=np.float64), len(seeds))
    return claim, {"examples": examples, "forward_error": error, "cosine": cosine, "miss": miss}


def _correlate(case: Case, measured: Tensor) -> tuple[Estimate, ...]:
    """Of the miss with the forward error; with how far the gradient turns away at the answers, and at the validation
    rows; and by how much the second is above the first. Networks are drawn, `(networks, 4)`."""

    def follow(sample: Tensor, column: int) -> Tensor:
        # A cosine falls as a network gets worse.
        sign = -1 if _MEASURED[column].startswith("cosine") else 1
        return correlate_ranks(torch.stack([sign * sample[..., column], sample[..., 3]], dim=-1))

    statistics = [
        lambda sample: follow(sample, 0),
        lambda sample: follow(sample, 1),
        lambda sample: follow(sample, 2),
        lambda sample: follow(sample, 1) - follow(sample, 0),
    ]
    resamples = case.settings.resamples
    return tuple(estimate([measured], one, case.generator("fidelity: bootstrap"), resamples) for one in statistics)


def _choose(ahead: Estimate) -> str:
    """Which of the two tells the miss better."""
    if ahead.low is not None and ahead.low > 0:
        return "the gradient tells the miss better"
    if ahead.high is not None and ahead.high < 0:
        return "the forward error tells the miss better"
    return "neither tells the miss better than the other"


def _tell(case: Case, size: int, rows: Tensor) -> str:
    error, _, _, miss = (median(column) for column in rows.T)
    off = "unknown" if error is None else f"{100 * error:.2g} %"
    return f"{size:,} examples: forward error {off}, median miss {figure(miss)} {case.task.miss_unit}".rstrip()
