"""The one loop: every solver, every route, all starts of all targets at once."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from aimback.problem import History, InverseProblem, Linearised, Solution, StartStatus
from aimback.solve import point as points
from aimback.solve.cma_es import CmaEs, evolve
from aimback.solve.point import Point
from aimback.solve.progress import Progress
from aimback.solve.solver import Solver, Stepper
from aimback.solve.starts import draw_starts

_ROWS = 65_536  # starts in flight at once; bounds the memory, and more are no faster
_HISTORY_ROWS = 2048  # paths are kept of the starts of the first targets, about so many
_REST = 1e-12  # of the scaled gradient: nothing left to descend


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
        progress: told after every step how many targets are done (all their starts have stopped) and
            how many have a start within the tolerance.

    Returns:
        The state of every start at the least believed miss it ever had.
    """
    starts = draw_starts(problem, solver, generator)
    kept = max(1, _HISTORY_ROWS // solver.starts)
    if isinstance(solver, CmaEs):
        return evolve(forward, problem, solver, starts, kept, generator, progress)
    assert isinstance(solver, Stepper)
    size = max(1, _ROWS // solver.starts)
    blocks: list[Solution] = []
    arrived = 0
    for first in range(0, len(problem.targets), size):
        block = _Block(forward, problem, slice(first, first + size), starts, max(0, kept - first))
        for _ in block.steps(solver):
            if progress is not None:
                progress(first + block.done(), arrived + block.arrived())
        blocks.append(block.solution())
        arrived += block.arrived()
    return _joined(blocks)


class _Block:
    """The starts of some targets, moved together until the last one has stopped.

    Args:
        rows: which targets of the problem.
        starts: of all targets, in the unit cube, `(n_targets, n_starts, n_controls)`.
        kept: the paths of so many targets are kept.
    """

    def __init__(self, forward: Linearised, problem: InverseProblem, rows: slice, starts: Tensor, kept: int) -> None:
        self._forward, self._problem = forward, problem
        self._starts = starts[rows].to(problem.targets)
        self._count, self._each, _ = self._starts.shape
        self._targets = problem.targets[rows].repeat_interleave(self._each, 0)
        self._conditions = problem.conditions[rows].repeat_interleave(self._each, 0)
        self._tolerance = problem.tolerance / problem.scale
        self._active = torch.arange(self._count * self._each, device=self._starts.device)
        self._answer = _Answer(self._starts.flatten(0, 1), kept * self._each)

    def steps(self, solver: Stepper) -> Iterator[int]:
        """Step until nothing moves; yields the number of each step when it is done."""
        point = self._look(self._starts.flatten(0, 1), solver.boundary)
        memory = solver.begin(point)
        still = torch.zeros_like(self._active, dtype=torch.bool)
        for step in range(solver.max_steps + 1):
            if step > 0:
                proposed, memory = solver.propose(point, memory, step)
                trial = self._look(proposed, solver.boundary)
                moves, still, memory = solver.judge(point, trial, memory)
                point = points.where(moves, trial, point)
            merit = point.loss.sqrt()
            self._answer.note(self._active, point, merit, step, self._tolerance)

            rests = still | (point.downhill.abs().amax(-1) <= _REST)
            self._answer.stop(self._active[rests], StartStatus.STALLED)
            self._answer.stop(self._active[~point.finite], StartStatus.NOT_FINITE)
            self._answer.stop(self._active[torch.isinf(point.residual).any(-1)], StartStatus.NO_EVENT)
            goes_on = point.finite & (merit > solver.precision) & ~rests & (step < solver.max_steps)
            if not bool(goes_on.all()):
                self._active, point = self._active[goes_on], point[goes_on]
                still, memory = still[goes_on], tuple(part[goes_on] for part in memory)
            yield step
            if len(self._active) == 0:
                return

    def _look(self, unit: Tensor, boundary: float | None) -> Point:
        """The forward map at the starts that are still on their way."""
        some = self._active
        problem = self._problem
        return points.evaluate(
            self._forward, problem.box, unit, self._conditions[some], self._targets[some], problem.scale, boundary
        )

    def done(self) -> int:
        """Targets none of whose starts is on its way."""
        return self._count - len(torch.unique(self._active // self._each))

    def arrived(self) -> int:
        """Targets with a start that has come within the tolerance."""
        return int((self._answer.steps_to_tolerance >= 0).unflatten(0, (-1, self._each)).any(-1).sum())

    def solution(self) -> Solution:
        return self._answer.solution(self._problem, (self._count, self._each), self._tolerance)


class _Answer:
    """What is known of each row so far: the best point it saw, how it stopped, and the path of the first ones."""

    def __init__(self, unit: Tensor, kept: int) -> None:
        self.best = unit.clone()
        self.merit = torch.full_like(unit[:, 0], torch.inf)
        self.miss = self.merit.clone()
        # Whoever is never stopped for another reason runs out of steps.
        self.status = torch.full_like(self.miss, StartStatus.STEP_LIMIT, dtype=torch.int8)
        self.steps = torch.zeros_like(self.miss, dtype=torch.int32)
        self.steps_to_tolerance = torch.full_like(self.steps, -1)
        self._now = unit[:kept].clone(), self.miss[:kept].clone()
        self._path: list[tuple[Tensor, Tensor]] = []

    def note(self, rows: Tensor, point: Point, merit: Tensor, step: int, tolerance: float) -> None:
        """Look at where the rows are; `merit` is the root of their loss, with walls the relative miss itself."""
        unit, miss = point.unit, point.miss
        better = merit < self.merit[rows]
        self.best[rows[better]] = unit[better]
        self.miss[rows[better]] = miss[better]
        self.merit[rows[better]] = merit[better]
        self.steps[rows] = step
        fresh = rows[(merit <= tolerance) & (self.steps_to_tolerance[rows] < 0)]
        self.steps_to_tolerance[fresh] = step
        at, misses = self._now
        early = rows < len(at)
        at[rows[early]], misses[rows[early]] = unit[early], miss[early]
        self._path.append((at.clone(), misses.clone()))

    def stop(self, rows: Tensor, status: StartStatus) -> None:
        self.status[rows] = status

    def solution(self, problem: InverseProblem, shape: tuple[int, int], tolerance: float) -> Solution:
        # However it stopped, a start that once came within the tolerance has arrived.
        self.status[self.merit <= tolerance] = StartStatus.ARRIVED
        path, misses = (torch.stack(part) for part in zip(*self._path, strict=True))
        box, scale = problem.box, problem.scale
        return Solution(
            controls=box.from_unit(self.best).unflatten(0, shape),
            believed_miss=(self.miss * scale).unflatten(0, shape),
            start_status=self.status.unflatten(0, shape),
            steps=self.steps.unflatten(0, shape),
            steps_to_tolerance=self.steps_to_tolerance.unflatten(0, shape),
            history=History(
                box.from_unit(path).unflatten(1, (-1, shape[1])), (misses * scale).unflatten(1, (-1, shape[1]))
            ),
        )


def _joined(blocks: list[Solution]) -> Solution:
    """One solution from blocks of targets; shorter histories stay where they ended."""
    if len(blocks) == 1:
        return blocks[0]
    longest = max(len(block.history.believed_miss) for block in blocks)

    def padded(part: Tensor) -> Tensor:
        return torch.cat([part, part[-1:].expand(longest - len(part), *part.shape[1:])])

    def joined(part: Callable[[Solution], Tensor]) -> Tensor:
        return torch.cat([part(block) for block in blocks])

    return Solution(
        controls=joined(lambda block: block.controls),
        believed_miss=joined(lambda block: block.believed_miss),
        start_status=joined(lambda block: block.start_status),
        steps=joined(lambda block: block.steps),
        steps_to_tolerance=joined(lambda block: block.steps_to_tolerance),
        history=History(
            torch.cat([padded(block.history.controls) for block in blocks], dim=1),
            torch.cat([padded(block.history.believed_miss) for block in blocks], dim=1),
        ),
    )
