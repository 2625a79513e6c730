"""Numbers over seeds: means with their spread, what is repaid when, and the law between network and r_1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aimback.contest.records import Contest, Curve, Entry
from aimback.report.costs import break_even_targets

# Among the methods these two are what all others are held against.
ADJOINT = "neural_adjoint"
DIRECT = "direct"


@dataclass(frozen=True)
class Spread:
    """One figure over seeds.

    Attributes:
        mean, least, greatest: over the seeds that have a finite value; None where no seed has.
        deviation: standard deviation with n - 1; None for fewer than two values.
        seeds: how many have a value.
        missing: how many have none (not finite, or not measured).
    """

    mean: float | None
    least: float | None
    greatest: float | None
    deviation: float | None
    seeds: int
    missing: int

    @property
    def whole(self) -> float | None:
        """The mean, if every seed has a value: the only mean that a verdict may rest on."""
        return self.mean if not self.missing else None


@dataclass(frozen=True)
class Law:
    """r_1 = factor · MSE^slope, by least squares in the logarithms.

    Attributes:
        slope: exactly 1 where r_1 is proportional to the validation MSE.
        factor: r_1 at a validation MSE of 1 by the fitted line.
        points: how many it rests on.
    """

    slope: float
    factor: float
    points: int


def spread(values: Sequence[float | None]) -> Spread:
    """Mean and spread of a figure over seeds."""
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    missing = len(values) - len(known)
    if not known:
        return Spread(None, None, None, None, 0, missing)
    deviation = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return Spread(math.fsum(known) / len(known), min(known), max(known), deviation, len(known), missing)


def over_seeds(contest: Contest, task: str, method: str, measure: str) -> Spread:
    """A field of `Entry`, or its `simulations_per_target`, over seeds."""
    return spread([getattr(entry, measure) for entry in contest.entries(task, method)])


def per_target(contest: Contest, task: str, method: str, measure: str) -> Spread:
    """A count of `Entry` divided by its targets, over seeds."""
    return spread([getattr(entry, measure) / entry.targets for entry in contest.entries(task, method)])


def mean_curve(contest: Contest, task: str, method: str) -> Curve | None:
    """The mean over seeds of mean and quartiles; as long as the shortest. None where there is no curve."""
    curves = contest.curves(task, method)
    if not curves:
        return None
    shortest = min(len(curve.mean) for curve in curves)
    mean, q25, q75 = np.mean([[c.mean[:shortest], c.q25[:shortest], c.q75[:shortest]] for c in curves], axis=0)
    return Curve(mean, q25, q75)


def break_even(surrogate: Entry, direct: Entry) -> float:
    """How many targets repay the network's examples in simulations; infinity where they never do.

    The least whole n with `examples + n · s <= n · d`, for s and d simulations a target. It counts
    simulations only: what is asked is who calls the simulator less, not who hits better.
    """
    return break_even_targets(
        surrogate.training_examples, surrogate.simulations_per_target, direct.simulations_per_target
    )


def repaid_at(contest: Contest, task: str, method: str) -> list[float]:
    """`break_even` of each seed in which both the method and the direct route ran; empty without a network."""
    pairs = [
        (run.entries[method], run.entries[DIRECT])
        for run in contest.runs
        if run.task == task and method in run.entries and DIRECT in run.entries
    ]
    return [break_even(mine, direct) for mine, direct in pairs if mine.training_examples]


def law(points: Sequence[tuple[float, float]]) -> Law | None:
    """Least squares of log r_1 against log MSE; None for fewer than two different qualities.

    Args:
        points: pairs of validation MSE and r_1; a pair that is not finite and above 0 is left out.
    """
    usable = [(mse, r_1) for mse, r_1 in points if 0 < mse < math.inf and 0 < r_1 < math.inf]
    if len({mse for mse, _ in usable}) < 2:
        return None
    x, y = np.log(np.asarray(usable, dtype=float)).T
    x_mean, y_mean = x.mean(), y.mean()
    slope = float(((x - x_mean) * (y - y_mean)).sum() / np.square(x - x_mean).sum())
    return Law(slope, float(np.exp(y_mean - slope * x_mean)), len(usable))


def quality_law(contest: Contest, task: str) -> Law | None:
    """The law over the task's sweep of qualities and the networks of the adjoint method."""
    sweep = [(point.validation_mse, point.r_1) for point in contest.quality.get(task, ())]
    return law([*sweep, *contest.network_points(task, ADJOINT, ADJOINT)])
