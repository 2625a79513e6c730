"""The one loop: every solver, every route, all starts of all targets at once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.box import Box
from aimback.problem import History, InverseProblem, Linearised, Solution, StartStatus
from aimback.solve import point as points
from aimback.solve.point import Point
from aimback.solve.solver import Solver
from aimback.solve.starts import stratified_starts

_ROWS = 65_536  # starts in flight at once; bounds the memory, and more are no faster
_HISTORY_TARGETS = 256
_REST = 1e-12  # of the scaled gradient: nothing left to descend

Progress = Callable[[int, int], None]


@torch.no_grad()
def solve(
    forward: Linearised,
    problem: InverseProblem,
    solver: Solver,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Solution:
    """Descend through `forward` from every start of every target.

    Nothing is known here but a callable and a box; both routes come through this door with the same
    solver. Starts never influence each other: each row stops, fails or goes on by its own numbers,
    and finished rows are dropped from the batch.

    Args:
        forward: the simulator or the trained network.
        problem: what is wanted; its dtype and device are the ones worked in.
        solver: how to step.
        generator: of the starts; the same state gives both routes the same ones.
        progress: told (targets done, targets with a start that arrived) now and then.

    Returns:
        The state of every start at the least believed miss it ever had.
    """
    starts = stratified_starts(len(problem.targets), solver.starts, len(problem.box), generator)
    size = max(1, _ROWS // solver.starts)
    blocks = []
    arrived = done = 0
    for first in range(0, len(problem.targets), size):
        rows = slice(first, first + size)
        kept = max(0, min(_HISTORY_TARGETS - first, size))
        blocks.append(_solve_block(forward, problem, solver, rows, starts[rows].to(problem.targets), kept))
        done += len(problem.targets[rows])
        arrived += int((blocks[-1].start_status == StartStatus.ARRIVED).any(-1).sum())
        if progress is not None:
            progress(done, arrived)
    return _joined(blocks)


def _solve_block(
    forward: Linearised, problem: InverseProblem, solver: Solver, rows: slice, starts: Tensor, kept: int
) -> Solution:
    count, each, _ = starts.shape
    look = _Lookup(
        forward,
        problem.box,
        problem.targets[rows].repeat_interleave(each, 0),
        problem.conditions[rows].repeat_interleave(each, 0),
        problem.scale,
    )
    tolerance = problem.tolerance / problem.scale
    active = torch.arange(count * each, device=starts.device)
    point = look(starts.flatten(0, 1), active)
    memory = solver.begin(point)
    answer = _Answer.begin(point, kept * each)
    for step in range(solver.max_steps + 1):
        if step > 0:
            trial = look(solver.propose(point, memory, step), active)
            moves, still, memory = solver.judge(point, trial, memory)
            point = points.where(moves, trial, point)
        else:
            still = torch.zeros_like(active, dtype=torch.bool)
        finite = point.finite
        miss = point.loss.sqrt()
        answer.note(active, point.unit, miss, step, tolerance)
        rests = still | (point.downhill.abs().amax(-1) <= _REST)
        stops = ~finite | (miss <= solver.precision) | rests
        if step == solver.max_steps:
            answer.stop(active, StartStatus.STEP_LIMIT)
        no_event = torch.isinf(point.residual).any(-1)
        answer.stop(active[rests], StartStatus.STALLED)
        answer.stop(active[~finite], StartStatus.NOT_FINITE)
        answer.stop(active[no_event], StartStatus.NO_EVENT)
        if bool(stops.any()):
            active, point = active[~stops], point[~stops]
            memory = tuple(part[~stops] for part in memory)
        if len(active) == 0:
            break
    return answer.solution(problem.box, count, each, problem.scale, tolerance)


@dataclass(frozen=True)
class _Lookup:
    """The forward map at rows of a block."""

    forward: Linearised
    box: Box
    targets: Tensor
    conditions: Tensor
    scale: float

    def __call__(self, unit: Tensor, rows: Tensor) -> Point:
        return points.evaluate(self.forward, self.box, unit, self.conditions[rows], self.targets[rows], self.scale)


class _Answer:
    """What is known of each row so far: the best point it saw, how it stopped, and the path of the first ones."""

    def __init__(self, unit: Tensor, miss: Tensor, kept: int) -> None:
        self.best = unit.clone()
        self.miss = miss
        self.status = torch.full_like(miss, StartStatus.STEP_LIMIT, dtype=torch.int8)
        self.steps = torch.zeros_like(miss, dtype=torch.int32)
        self.steps_to_tolerance = torch.full_like(self.steps, -1)
        self._now = unit[:kept].clone(), torch.full_like(miss[:kept], torch.nan)
        self._path: list[tuple[Tensor, Tensor]] = []

    @classmethod
    def begin(cls, point: Point, kept: int) -> "_Answer":
        return cls(point.unit, torch.full_like(point.unit[:, 0], torch.inf), kept)

    def note(self, rows: Tensor, unit: Tensor, miss: Tensor, step: int, tolerance: float) -> None:
        better = miss < self.miss[rows]
        self.best[rows[better]] = unit[better]
        self.miss[rows[better]] = miss[better]
        self.steps[rows] = step
        fresh = rows[(miss <= tolerance) & (self.steps_to_tolerance[rows] < 0)]
        self.steps_to_tolerance[fresh] = step
        at, misses = self._now
        early = rows < len(at)
        at[rows[early]], misses[rows[early]] = unit[early], miss[early]
        self._path.append((at.clone(), misses.clone()))

    def stop(self, rows: Tensor, status: StartStatus) -> None:
        self.status[rows] = status

    def solution(self, box: Box, count: int, each: int, scale: float, tolerance: float) -> Solution:
        # However it stopped, a start that once came within the tolerance has arrived.
        self.status[self.miss <= tolerance] = StartStatus.ARRIVED
        path, misses = (torch.stack(part) for part in zip(*self._path, strict=True))
        return Solution(
            controls=box.from_unit(self.best).unflatten(0, (count, each)),
            believed_miss=(self.miss * scale).unflatten(0, (count, each)),
            start_status=self.status.unflatten(0, (count, each)),
            steps=self.steps.unflatten(0, (count, each)),
            steps_to_tolerance=self.steps_to_tolerance.unflatten(0, (count, each)),
            history=History(
                box.from_unit(path).unflatten(1, (-1, each)), (misses * scale).unflatten(1, (-1, each))
            ),
        )


def _joined(blocks: list[Solution]) -> Solution:
    """One solution from blocks of targets; shorter histories stay where they ended."""
    if len(blocks) == 1:
        return blocks[0]
    longest = max(len(block.history.believed_miss) for block in blocks)

    def padded(part: Tensor) -> Tensor:
        return torch.cat([part, part[-1:].expand(longest - len(part), *part.shape[1:])])

    return Solution(
        *(
            torch.cat([getattr(block, name) for block in blocks])
            for name in ("controls", "believed_miss", "start_status", "steps", "steps_to_tolerance")
        ),
        history=History(
            torch.cat([padded(block.history.controls) for block in blocks], dim=1),
            torch.cat([padded(block.history.believed_miss) for block in blocks], dim=1),
        ),
    )
