"""CMA-ES on every start by itself: it shows what can be had without any gradient."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aimback.core.checks import check_positive
from aimback.core.errors import OverBudgetError, UserError
from aimback.core.problem import ForwardMap, History, InverseProblem, Solution, StartStatus
from aimback.solve.point import compute_miss, is_better
from aimback.solve.solver import Progress, Solver

if TYPE_CHECKING:
    from cmaes import CMA

_LARGEST = 10_000  # population


@dataclass(frozen=True)
class CmaEs(Solver):
    """Covariance matrix adaptation evolution strategy (Hansen 2016, arXiv:1604.00772), by the package `cmaes`.

    A start is one run whose first mean lies there; a step is one generation. It asks the forward map for
    values only, and so also works where a simulator has no derivative worth following: a baseline for
    what derivatives bring. Its own arithmetic is a Python loop over starts: slow beyond some ten thousand.

    Args:
        step_size: the first standard deviation, in unit-box lengths.
        population: evaluations a generation; 0 takes the published default, 4 + floor(3 ln n_controls).
    """

    max_steps: int = 100
    step_size: float = 0.3
    population: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("step_size", self.step_size)
        if self.population != 0 and not 4 <= self.population <= _LARGEST:
            raise UserError(f"population: must be 0, or a whole number from 4 to {_LARGEST:,}, got {self.population}")


@torch.no_grad()
def evolve(
    forward: ForwardMap,
    problem: InverseProblem,
    solver: CmaEs,
    starts: Tensor,
    kept: int,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Solution:
    """Run CMA-ES from every start of every target; one call of `forward` a generation of them all.

    Args:
        starts: in the unit cube, `(n_targets, n_starts, n_controls)`.
        kept: the paths of the best point so far are kept for so many targets.
        generator: seeds the runs.
        progress: as in `multistart.solve`.
    """
    count, each, _ = starts.shape
    runs = _make_runs(starts.flatten(0, 1).double().cpu(), solver, generator)
    size = runs[0].population_size
    rows = count * each
    best = starts.flatten(0, 1).double().cpu().clone()
    miss, merit = torch.full((2, rows), torch.inf, dtype=torch.float64)
    status = torch.full((rows,), int(StartStatus.STEP_LIMIT), dtype=torch.int8)
    steps, first = torch.zeros(rows, dtype=torch.int32), torch.full((rows,), -1, dtype=torch.int32)
    distance = problem.distance
    active = torch.arange(rows)
    path: list[tuple[Tensor, Tensor]] = []
    early = min(kept, count) * each
    for step in range(1, solver.max_steps + 1):
        unit = torch.from_numpy(np.stack([[runs[row].ask() for _ in range(size)] for row in active.tolist()]))
        if problem.box.constraints is not None:
            unit = problem.box.keep_inside(unit)
        try:
            residual = _residual(forward, problem, unit, active // each)
        except OverBudgetError:
            if step == 1:
                raise
            break
        found, root = compute_miss(residual), residual.square().sum(-1).sqrt()
        # A failed simulation is the worst of its generation, not a number to calculate with.
        graded = root.nan_to_num(nan=math.inf, posinf=math.inf)
        for row, points, values in zip(active.tolist(), unit.numpy(), graded.square().tolist(), strict=True):
            runs[row].tell(list(zip(points, values, strict=True)))
        within = found <= distance.share
        lowest = torch.where(within | ~within.any(-1, keepdim=True), graded, math.inf).min(-1)
        better = is_better(within.any(-1), first[active] >= 0, lowest.values, merit[active])
        here, chosen = active[better], lowest.indices[better]
        best[here], miss[here], merit[here] = unit[better, chosen], found[better, chosen], lowest.values[better]
        steps[active] = step
        first[active[within.any(-1) & (first[active] < 0)]] = step
        path.append((best[:early].clone(), miss[:early].clone()))

        status[active[torch.isnan(found).all(-1)]] = StartStatus.NOT_FINITE
        status[active[torch.isinf(residual).any(-1).all(-1)]] = StartStatus.NO_EVENT
        still = torch.tensor([runs[row].should_stop() for row in active.tolist()], dtype=torch.bool)
        status[active[still]] = StartStatus.STALLED
        failed = (status[active] == StartStatus.NOT_FINITE) | (status[active] == StartStatus.NO_EVENT)
        active = active[(miss[active] > solver.precision) & ~still & ~failed]
        if progress is not None:
            progress(
                count - len(torch.unique(active // each)), int((first >= 0).unflatten(0, (-1, each)).any(-1).sum())
            )
        if len(active) == 0:
            break
    status[first >= 0] = StartStatus.ARRIVED
    box, shape, like = problem.box, (count, each), problem.targets
    points, misses = (torch.stack(part) for part in zip(*path, strict=True))
    return Solution(
        controls=box.from_unit(best.to(like)).unflatten(0, shape),
        believed_miss=(miss.to(like) * distance.span).unflatten(0, shape),
        start_status=status.to(like.device).unflatten(0, shape),
        steps=steps.to(like.device).unflatten(0, shape),
        steps_to_tolerance=first.to(like.device).unflatten(0, shape),
        history=History(
            box.from_unit(points.to(like)).unflatten(1, (-1, each)),
            (misses.to(like) * distance.span).unflatten(1, (-1, each)),
        ),
    )


def _make_runs(starts: Tensor, solver: CmaEs, generator: torch.Generator) -> "list[CMA]":
    """Begin one run a start, each with random numbers of its own."""
    from cmaes import CMA  # brings SciPy's statistics, most of a second

    bounds = np.tile([0.0, 1.0], (starts.shape[-1], 1))
    seeds = torch.randint(2**32, (len(starts),), generator=generator).tolist()
    return [
        CMA(mean, solver.step_size, bounds=bounds, seed=seed, population_size=solver.population or None)
        for mean, seed in zip(starts.numpy(), seeds, strict=True)
    ]


def _residual(forward: ForwardMap, problem: InverseProblem, unit: Tensor, targets: Tensor) -> Tensor:
    """(outcome - target) / scales of a generation, `(rows, population, n_outcomes)`, float64 on the CPU."""
    like = problem.targets
    targets = targets.to(like.device)
    conditions = problem.conditions[targets][:, None].expand(-1, unit.shape[1], -1)
    outcome = forward(problem.box.from_unit(unit.to(like)), conditions)
    return ((outcome - problem.targets[targets][:, None]) / problem.distance.scales.to(like)).double().cpu()
