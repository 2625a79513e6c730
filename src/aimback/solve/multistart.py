"""The one loop: every solver, every route, all starts of all targets at once."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from aimback.errors import out_of_memory
from aimback.problem import History, InverseProblem, Linearised, Solution, StartStatus
from aimback.solve.advance import Advance, Front, NotCompilable, Step
from aimback.solve.cma_es import CmaEs, evolve
from aimback.solve.progress import Progress
from aimback.solve.solver import Solver, Stepper
from aimback.solve.starts import draw_starts
from aimback.solve.tiny import total

_ROWS = 65_536  # starts in flight at once; bounds the memory, and more are no faster
HISTORY_ROWS = 2048  # paths are kept of the starts of the first targets, about so many


@torch.no_grad()
def solve(
    forward: Linearised,
    problem: InverseProblem,
    solver: Solver,
    generator: torch.Generator,
    progress: Progress | None = None,
    compiler: Callable[[Advance], Step] | None = None,
) -> Solution:
    """Descend through `forward` from every start of every target.

    Nothing is known here but a callable and a box; every route comes through this door with the same
    solver. Starts never influence each other: each row stops, fails or goes on by its own numbers,
    and finished rows are dropped from the batch. Blocks of targets follow each other; they are halved
    wherever the device has not the memory for one, and the ledger counts what the attempt has cost.

    Args:
        forward: the simulator or the trained network.
        problem: what is wanted; its dtype and device are the ones worked in.
        solver: how to step.
        generator: of the starts; the same state gives every route the same ones.
        progress: told after every step how many targets are done (all their starts have stopped) and
            how many have a start within the tolerance.
        compiler: makes one program of a step, see `aimback.compiled`; None leaves it to the interpreter.

    Returns:
        The state of every start at the least believed miss it ever had.

    Raises:
        NotCompilable: a compiler is given and cannot do it.
    """
    starts = draw_starts(problem, solver, generator)
    kept = max(1, HISTORY_ROWS // solver.starts)
    if isinstance(solver, CmaEs):
        if compiler is not None:
            raise NotCompilable("cma_es is a library's own code")
        return evolve(forward, problem, solver, starts, kept, generator, progress)
    assert isinstance(solver, Stepper)
    advance = Advance(forward, problem, solver)
    step_by: Step = advance if compiler is None else compiler(advance)
    size = max(1, _ROWS // solver.starts)
    blocks: list[Solution] = []
    arrived = first = 0

    def solved(rows: slice) -> _Block:
        block = _Block(advance, rows, starts, max(0, kept - first))
        for _ in block.steps(step_by, solver.max_steps):
            if progress is not None:
                progress(first + block.done(), arrived + block.arrived())
        return block

    while first < len(problem.targets):
        try:
            block = solved(slice(first, first + size))
        except RuntimeError as error:
            size = min(size, len(problem.targets) - first) // 2
            if size == 0 or not out_of_memory(error):
                raise
            continue  # no start influences another: smaller blocks give the same
        blocks.append(block.solution())
        arrived += block.arrived()
        first += size
    return _joined(blocks)


class _Block:
    """The starts of some targets, moved together until the last one has stopped.

    Args:
        rows: which targets of the problem.
        starts: of all targets, in the unit cube, `(n_targets, n_starts, n_controls)`.
        kept: the paths of so many targets are kept.
    """

    def __init__(self, advance: Advance, rows: slice, starts: Tensor, kept: int) -> None:
        problem = advance.problem
        starts = starts[rows].to(problem.targets)
        self._count, self._each, _ = starts.shape
        self._advance = advance
        self._front = advance.begin(
            problem.targets[rows].repeat_interleave(self._each, 0),
            problem.conditions[rows].repeat_interleave(self._each, 0),
            starts.flatten(0, 1),
        )
        self._active = torch.arange(self._count * self._each, device=starts.device)
        self._answer = _Answer(self._front, kept * self._each)

    def steps(self, step_by: Step, max_steps: int) -> Iterator[int]:
        """Step until nothing moves; yields the number of each step when it is done."""
        for step in range(max_steps + 1):
            front, goes_on, why = step_by(step, self._front)
            self._answer.follow(self._active, front)
            if step == max_steps:
                goes_on = torch.zeros_like(goes_on)
            (stopped,) = torch.nonzero(~goes_on, as_tuple=True)
            if len(stopped):
                self._answer.take(self._active, front, stopped, step, why)
                (going,) = torch.nonzero(goes_on, as_tuple=True)
                self._active, front = self._active[going], front[going]
            self._front = front
            yield step
            if len(self._active) == 0:
                return

    def done(self) -> int:
        """Targets none of whose starts is on its way."""
        return self._count - len(torch.unique(self._active // self._each))

    def arrived(self) -> int:
        """Targets with a start that has come within the tolerance."""
        reached = self._answer.reached.clone()
        reached[self._active] = self._front.reached
        return int((reached >= 0).unflatten(0, (-1, self._each)).any(-1).sum())

    def solution(self) -> Solution:
        return self._answer.solution(self._advance.problem, (self._count, self._each))


class _Answer:
    """What became of the rows that have stopped, and the paths of the first ones."""

    def __init__(self, front: Front, kept: int) -> None:
        self.best, self.miss, self.merit, self.reached = (
            part.clone() for part in (front.best, front.miss, front.merit, front.reached)
        )
        self.status = torch.full_like(self.reached, StartStatus.STEP_LIMIT, dtype=torch.int8)
        self.steps = torch.zeros_like(self.reached)
        self._now = front.unit[:kept].clone(), front.miss[:kept].clone()
        self._path: list[tuple[Tensor, Tensor]] = []

    def follow(self, rows: Tensor, front: Front) -> None:
        """Note where the first rows are; one that has stopped stays where it was."""
        at, misses = (part.clone() for part in self._now)
        early = int(torch.searchsorted(rows, len(at)))  # rows are in order
        at[rows[:early]] = front.unit[:early]
        misses[rows[:early]] = total(front.residual[:early].square()).sqrt()
        self._now = at, misses
        self._path.append(self._now)

    def take(self, rows: Tensor, front: Front, stopped: Tensor, step: int, why: Tensor) -> None:
        """Those of the rows under way that have stopped after `step`."""
        rows = rows[stopped]
        self.best[rows], self.miss[rows] = front.best[stopped], front.miss[stopped]
        self.merit[rows], self.reached[rows] = front.merit[stopped], front.reached[stopped]
        self.steps[rows], self.status[rows] = step, why[stopped]

    def solution(self, problem: InverseProblem, shape: tuple[int, int]) -> Solution:
        # However it stopped, a start that once came within the tolerance has arrived.
        self.status[self.merit <= problem.tolerance / problem.scale] = StartStatus.ARRIVED
        path, misses = (torch.stack(part) for part in zip(*self._path, strict=True))
        box, scale = problem.box, problem.scale
        return Solution(
            controls=box.from_unit(self.best).unflatten(0, shape),
            believed_miss=(self.miss * scale).unflatten(0, shape),
            start_status=self.status.unflatten(0, shape),
            steps=self.steps.unflatten(0, shape),
            steps_to_tolerance=self.reached.unflatten(0, shape),
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
