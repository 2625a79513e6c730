"""What needs no derivatives: every start is a search by itself, which asks for values and is told them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from aimback.core.distance import Distance
from aimback.core.errors import OverBudgetError
from aimback.core.problem import ForwardMap, History, InverseProblem, Solution, StartStatus
from aimback.solve.point import compute_miss, is_better
from aimback.solve.solver import Progress, Solver


class Quest(Protocol):
    """The search of one start."""

    def ask(self) -> Tensor:
        """Where to look next, `(points, n_controls)` in the unit cube, float64; as many for every start."""
        ...

    def tell(self, unit: Tensor, residual: Tensor, loss: Tensor) -> None:
        """Take in what was found.

        Args:
            unit: where it was looked, `(points, n_controls)`.
            residual: (outcome - target) / scales there, `(points, n_outcomes)`; not finite where a simulation failed.
            loss: the sum of its squares, `(points,)`; infinite where a simulation failed.
        """
        ...

    def should_stop(self) -> bool:
        """Whether there is nothing left to ask, be it that all simulations failed."""
        ...


class DerivativeFree(Solver, ABC):
    """A solver that asks the forward map for values only; a step is one round of questions."""

    @abstractmethod
    def begin_quests(self, starts: Tensor, distance: Distance, generator: torch.Generator) -> Sequence[Quest]:
        """Begin a search at each of the starts `(rows, n_controls)`, each with random numbers of its own."""

    @abstractmethod
    def count_evaluations(self, controls: int) -> int:
        """Count what a start asks for that never arrives, with so many controls."""


@torch.no_grad()
def search_values(
    forward: ForwardMap,
    problem: InverseProblem,
    solver: DerivativeFree,
    starts: Tensor,
    kept: int,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Solution:
    """Search from every start of every target; one call of `forward` a round of them all.

    Args:
        starts: in the unit cube, `(n_targets, n_starts, n_controls)`.
        kept: the paths of the best point so far are kept for so many targets.
        generator: seeds the searches.
        progress: as in `multistart.solve`.
    """
    count, each, _ = starts.shape
    quests = solver.begin_quests(starts.flatten(0, 1).double().cpu(), problem.distance, generator)
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
        unit = torch.stack([quests[row].ask() for row in active.tolist()])
        if problem.box.constraints is not None:
            unit = problem.box.keep_inside(unit)
        try:
            residual = _residual(forward, problem, unit, active // each)
        except OverBudgetError:
            if step == 1:
                raise
            break
        found, root = compute_miss(residual), residual.square().sum(-1).sqrt()
        # A failed simulation is the worst of its round, not a number to calculate with.
        graded = root.nan_to_num(nan=math.inf, posinf=math.inf)
        for row, *told in zip(active.tolist(), unit, residual, graded.square(), strict=True):
            quests[row].tell(*told)
        within = found <= distance.share
        lowest = torch.where(within | ~within.any(-1, keepdim=True), graded, math.inf).min(-1)
        better = is_better(within.any(-1), first[active] >= 0, lowest.values, merit[active])
        here, chosen = active[better], lowest.indices[better]
        best[here], miss[here], merit[here] = unit[better, chosen], found[better, chosen], lowest.values[better]
        steps[active] = step
        first[active[within.any(-1) & (first[active] < 0)]] = step
        path.append((best[:early].clone(), miss[:early].clone()))

        still = torch.tensor([quests[row].should_stop() for row in active.tolist()], dtype=torch.bool)
        status[active[still]] = StartStatus.STALLED
        failed = still & torch.isinf(graded).all(-1)
        status[active[failed]] = StartStatus.NOT_FINITE
        status[active[failed & torch.isinf(residual).any(-1).all(-1)]] = StartStatus.NO_EVENT
        active = active[(miss[active] > solver.precision) & ~still]
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


def _residual(forward: ForwardMap, problem: InverseProblem, unit: Tensor, targets: Tensor) -> Tensor:
    """(outcome - target) / scales of a round, `(rows, points, n_outcomes)`, float64 on the CPU."""
    like = problem.targets
    targets = targets.to(like.device)
    conditions = problem.conditions[targets][:, None].expand(-1, unit.shape[1], -1)
    outcome = forward(problem.box.from_unit(unit.to(like)), conditions)
    return ((outcome - problem.targets[targets][:, None]) / problem.distance.scales.to(like)).double().cpu()
