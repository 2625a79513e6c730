"""C4: do the minima of the two losses coincide?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.problem import Linearised, Solution
from aimback.data.targets import Targets
from aimback.diagnose import derivatives
from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim, estimate
from aimback.diagnose.statistics import figure, median, medians, quantile, sureness
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.starts import Starts

# Its steps tend to the shortest ones, so it ends near the solution that is nearest; whatever the run's own solver is.
_PROJECTOR = LevenbergMarquardt()


@dataclass(frozen=True)
class Solutions:
    """Of every target from every start, `(targets, starts, n_controls)` in the unit box; NaN where none was found."""

    unit: Tensor

    @property
    def found(self) -> Tensor:
        """`(targets, starts)`."""
        return torch.isfinite(self.unit).all(-1)

    def join(self, others: "Solutions") -> "Solutions":
        """Of the same targets, from more starts."""
        return Solutions(torch.cat([self.unit, others.unit], dim=1))

    def distance(self, others: "Solutions") -> Tensor:
        """To the nearest of the others of the same target, `(targets, starts)`; NaN where one side has none."""
        between = torch.linalg.vector_norm(self.unit[:, :, None] - others.unit[:, None], dim=-1)
        nearest = between.nan_to_num(nan=torch.inf).amin(-1)
        return torch.where(nearest.isfinite(), nearest, torch.nan)


@dataclass(frozen=True)
class Valley:
    """A network's solutions against the true ones, `(targets, starts)` each; NaN where there is nothing to measure.

    Attributes:
        miss: true miss at the network's solutions, in its task's unit.
        out: unit-box lengths from them to the nearest true solution.
        back: unit-box lengths from true solutions to the network's nearest.
    """

    miss: Tensor
    out: Tensor
    back: Tensor


def examine(case: Case) -> tuple[Claim, Pictures]:
    """Find solutions of both maps from the same starts, and carry each to the other map's solution set.

    The true miss in tolerances is also, to first order, the distance to the true set over the distance
    that a hit may have, tolerance / slope; with several outcomes, whose slopes differ, that is at most as much.
    """
    targets = case.few()
    starts = case.settings.starts
    true = _solve(case, case.task, targets, starts)
    valleys = [_valley(case, network, targets, true, starts) for network in case.networks]
    own, tolerance = valleys[0], case.task.tolerance
    number = estimate(
        [valley.miss / tolerance for valley in valleys],
        medians,
        case.generator("minima: bootstrap"),
        case.settings.resamples,
    )
    if number.value is None:
        because = "There is no target for which the network has a solution that can be simulated."
    else:
        because = (
            f"At the network's solutions the true miss is {number.value:.3g} tolerances in the median "
            f"({sureness(number)}). They lie {figure(median(own.out))} box lengths from the true ones, "
            f"{figure(quantile(own.out, 1))} at most."
        )
    claim = Claim(
        key="C4",
        says="The minima of the two losses do not coincide.",
        question="Do the two losses have their minima in different places?",
        unit="tolerances off the target at the network's minima",
        bound=1.0,
        measure="true miss at the network's solutions over the tolerance, median over solutions",
        number=number,
        rule=(
            "supported where the ratio, its interval over targets and that of every network lie above 1: a typical "
            "solution of the network is no solution; refuted where none of them does"
        ),
        because=because,
        details={
            "distance_median": median(own.out),
            "distance_max": quantile(own.out, 1),
            "distance_back_median": median(own.back),
            "distance_back_max": quantile(own.back, 1),
            "valley_miss_median": median(own.miss),
            "valley_miss_p90": quantile(own.miss, 0.9),
            "valley_miss_max": quantile(own.miss, 1),
            "solutions": int(own.miss.isfinite().sum()),
            "starts_left_out": int((~own.miss.isfinite()).sum()),
        },
    )
    return claim, {}


def _solve(case: Case, forward: Linearised, targets: Targets, starts: int) -> Solutions:
    """From the same starts for every forward map."""
    drawn = Starts(number=starts, drawn_from="box", until_solved=False)
    return _find(case, case.solve(forward, targets, _PROJECTOR, "minima: starts", drawn))


def _carry(case: Case, forward: Linearised, targets: Targets, begin: Solutions) -> Solutions:
    """The solutions of `forward` near those of another map."""
    middle = torch.full_like(begin.unit, 0.5)  # stands in where there is none, and is left out again
    starts = case.task.box.from_unit(torch.where(begin.found[..., None], begin.unit, middle))
    reached = _find(case, case.solve(forward, targets, _PROJECTOR, "minima: carried", starts))
    return Solutions(torch.where(begin.found[..., None], reached.unit, torch.nan))


def _find(case: Case, solution: Solution) -> Solutions:
    hits = solution.believed_miss <= case.task.tolerance
    unit = case.task.box.to_unit(solution.controls.cpu().double())
    return Solutions(torch.where(hits.cpu()[..., None], unit, torch.nan))


def _valley(case: Case, network: Linearised, targets: Targets, true: Solutions, starts: int) -> Valley:
    own = _solve(case, network, targets, starts)
    miss = torch.full(own.found.shape, torch.nan, dtype=torch.float64)
    rows, _ = torch.nonzero(own.found, as_tuple=True)
    outcome = derivatives.compute_outcomes(case, case.task, own.unit[own.found], targets.conditions[rows])
    distance = case.task.distance
    missed = distance.measure(outcome * distance.scales - targets.targets[rows])
    miss[own.found] = torch.where(missed.isfinite(), missed, torch.nan)
    return Valley(
        miss,
        out=own.distance(true.join(_carry(case, case.task, targets, own))),
        back=true.distance(own.join(_carry(case, network, targets, true))),
    )
