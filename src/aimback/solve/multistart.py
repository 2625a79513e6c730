"""The one loop: every solver, every route, all starts of all targets at once."""

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor

from aimback.core.errors import OverBudgetError, is_out_of_memory
from aimback.core.ledger import Counted
from aimback.core.problem import History, InverseProblem, Linearised, Solution, StartStatus
from aimback.solve.derivative_free import DerivativeFree, search_values
from aimback.solve.point import compute_miss
from aimback.solve.program import Buffers, Program
from aimback.solve.solver import Progress, Solver, Stepper
from aimback.solve.step import Finish, Front, Iteration, NotCompilable, count_arrived

_ROWS = 65_536  # starts in flight at once: this bounds the memory, and more are no faster
_DERIVATIVES = 64 * _ROWS  # and so many numbers of their Jacobians, of whatever shape
_ROWS_OF_A_GPU = 4_194_304  # many times what it has in flight, so that it seldom waits to report its progress
_MOST_WRITTEN_OUT = 1024  # numbers of a Jacobian; those of a hundred controls would be a program of millions of lines
HISTORY_ROWS = 2048  # about so many starts, those of the first targets, keep their paths


@torch.no_grad()
def solve(
    forward: Linearised,
    problem: InverseProblem,
    solver: Solver,
    generator: torch.Generator,
    progress: Progress | None = None,
    compiler: Callable[[Iteration], Program] | None = None,
    paths: int = HISTORY_ROWS,
) -> Solution:
    """Descend through `forward` from every start of every target.

    Nothing is known here but a callable and a box; every route comes through this door with the same
    solver. Starts never influence each other: each row stops, fails or goes on by its own numbers,
    and finished rows are dropped from the batch. Blocks of targets follow each other; they are halved
    wherever the device has not the memory for one, and the ledger counts what the attempt has cost.

    Args:
        forward: the simulator or the trained network.
        problem: what is wanted, and where to begin; its dtype and device are the ones worked in.
        solver: how to step.
        generator: of solvers that move at random.
        progress: told after every step, or by a program after every block, how many targets are done (all their
            starts have stopped) and how many have a start within the tolerance.
        compiler: makes one program of all steps, see `aimback.compile.compiler`; None leaves them to the interpreter.
        paths: about so many starts, those of the first targets, keep theirs: of any, at least those of one target.

    Returns:
        The state of every start where its loss was least; once it has been within the tolerance, where it was that too.

    Raises:
        OverBudgetError: `forward` does not even allow a look at the starts. Where it stops the descent later on, the
            starts under way end as if by the limit of steps.
        NotCompilable: a compiler is given and cannot do it.
    """
    starts = problem.starts if solver.boundary is not None else problem.box.keep_inside(problem.starts)
    each = starts.shape[1]
    kept = max(1, paths // each) if paths else 0
    if compiler is not None:
        iteration, program = make_program(forward, problem, solver, compiler)
        return _run_program(program, iteration, starts, kept, progress)
    if isinstance(solver, DerivativeFree):
        return search_values(forward, problem, solver, starts, kept, generator, progress)
    iteration = Iteration(forward, problem, cast("Stepper", solver))  # an isinstance check of a protocol is slow
    derivatives = problem.targets.shape[1] * len(problem.box)
    size = max(1, min(_ROWS, _DERIVATIVES // derivatives) // each)
    blocks: list[Solution] = []
    arrived = first = 0

    def run(rows: slice) -> Finish:
        front = _begin(iteration, starts, rows)
        paths = max(0, min(kept - first, len(front.unit) // each)) * each
        block = _Block(front, each, paths)
        for _ in block.steps(iteration):
            if progress is not None:
                progress(first + block.count_done(), arrived + block.count_arrived())
        return block.finish()

    while first < len(problem.targets):
        try:
            block = run(slice(first, first + size))
        except RuntimeError as error:
            size = min(size, len(problem.targets) - first) // 2
            if size == 0 or not is_out_of_memory(error):
                raise
            continue  # no start influences another: smaller blocks give the same
        blocks.append(block.to_solution(problem, each))
        arrived += count_arrived(block.reached, each)
        first += len(blocks[-1].steps)
        if progress is not None:
            progress(first, arrived)
    return _concatenate(blocks)


def make_program(
    forward: Linearised, problem: InverseProblem, solver: Solver, compiler: Callable[[Iteration], Program]
) -> tuple[Iteration, Program]:
    """Compile all steps of a solver for problems that differ from this one in what is asked and in their starts.

    Raises:
        NotCompilable: see `solve`.
    """
    if isinstance(solver, DerivativeFree):
        raise NotCompilable(f"{type(solver).__module__.rpartition('.')[2]} is a library's own code")
    if problem.box.constraints is not None:
        raise NotCompilable("constraints among controls are kept by the interpreter")
    if (numbers := problem.targets.shape[1] * len(problem.box)) > _MOST_WRITTEN_OUT:
        raise NotCompilable(f"a Jacobian of {numbers:,} numbers is too much to write out")
    iteration = Iteration(forward, problem, cast("Stepper", solver))
    return iteration, compiler(iteration)


def _run_program(
    program: Program, iteration: Iteration, starts: Tensor, kept: int, progress: Progress | None = None
) -> Solution:
    """Solve by a program, which needs memory for its answers and for nothing else.

    Args:
        starts: `(n_targets, n_starts, n_controls)`, inside the cube where that has walls.
        kept: the paths of so many targets are kept.
        progress: see `solve`; it is told whenever each thread has had `_ROWS` starts, or a GPU `_ROWS_OF_A_GPU`.
    """
    problem, (targets, each) = iteration.problem, starts.shape[:2]
    buffers = Buffers.allocate(
        problem.targets, problem.conditions, starts, iteration.solver.max_steps, min(kept, targets)
    )
    rows = _ROWS * torch.get_num_threads() if buffers.steps.device.type == "cpu" else _ROWS_OF_A_GPU
    size = targets if progress is None else max(kept, rows // each)
    tallies, arrived = [], 0
    for first in range(0, targets, size):
        last = min(first + size, targets)
        part = buffers.of(first, last)
        program(part)()
        tallies.append(part.tally)
        if progress is not None:
            arrived += count_arrived(part.reached, each)
            progress(last, arrived)
    if isinstance(iteration.forward, Counted):
        iteration.forward.count(int(torch.stack(tallies)[:, 1].sum()), gradients=True)
    return buffers.read().to_solution(problem, each)


def _begin(iteration: Iteration, starts: Tensor, rows: slice) -> Front:
    """Place the starts `(n_targets, n_starts, n_controls)` of some of the targets, before their first look."""
    problem = iteration.problem
    starts = starts[rows].to(problem.targets)
    each = starts.shape[1]
    return iteration.begin(
        problem.targets[rows].repeat_interleave(each, 0),
        problem.conditions[rows].repeat_interleave(each, 0),
        starts.flatten(0, 1),
    )


class _Block:
    """Moves rows together until the last one has stopped; those that have stopped are dropped on the way.

    Args:
        front: the rows before their first look.
        each: so many of them belong to a target.
        kept: the paths of so many rows are kept.
    """

    def __init__(self, front: Front, each: int, kept: int) -> None:
        self._front, self._each = front, each
        self._active = torch.arange(len(front.unit), device=front.unit.device)
        self._best, self._miss, self._reached = (part.clone() for part in (front.best, front.miss, front.reached))
        self._status = torch.full_like(self._reached, StartStatus.STEP_LIMIT, dtype=torch.int8)
        self._steps = torch.zeros_like(self._reached)
        self._now = front.unit[:kept].clone(), front.miss[:kept].clone()
        self._path: list[tuple[Tensor, Tensor]] = []

    def steps(self, iteration: Iteration) -> Iterator[int]:
        """Step until nothing moves, and yield the number of each step when it is done."""
        max_steps = iteration.solver.max_steps
        for step in range(max_steps + 1):
            try:
                front, goes_on, status = iteration(step, self._front)
            except OverBudgetError:
                if step == 0:
                    raise
                self._stop_here(step - 1)
                return
            self._follow(front)
            if step == max_steps:
                goes_on = torch.zeros_like(goes_on)
            (stopped,) = torch.nonzero(~goes_on, as_tuple=True)
            if len(stopped):
                self._take(front, stopped, step, status)
                (going,) = torch.nonzero(goes_on, as_tuple=True)
                self._active, front = self._active[going], front[going]
            self._front = front
            yield step
            if len(self._active) == 0:
                return

    def _stop_here(self, step: int) -> None:
        """Take all rows out that are still under way: there is no budget for another step."""
        rows = torch.arange(len(self._active), device=self._active.device)
        status = torch.where(self._front.reached >= 0, StartStatus.ARRIVED, StartStatus.STEP_LIMIT)
        self._take(self._front, rows, step, status.to(torch.int8))
        self._active = rows[:0]

    def count_done(self) -> int:
        """Count the targets all of whose starts have stopped."""
        return len(self._steps) // self._each - len(torch.unique(self._active // self._each))

    def count_arrived(self) -> int:
        """Count the targets with a start that has come within the tolerance."""
        self._reached[self._active] = self._front.reached
        return count_arrived(self._reached, self._each)

    def finish(self) -> Finish:
        path, misses = (torch.stack(part) for part in zip(*self._path, strict=True))
        return Finish(self._best, self._miss, self._reached, self._steps, self._status, path, misses)

    def _follow(self, front: Front) -> None:
        """Note where the first rows are; a row that has stopped stays where it was."""
        at, misses = (part.clone() for part in self._now)
        rows = self._active
        early = int(torch.searchsorted(rows, len(at)))  # rows are in order
        at[rows[:early]] = front.unit[:early]
        misses[rows[:early]] = compute_miss(front.residual[:early])
        self._now = at, misses
        self._path.append(self._now)

    def _take(self, front: Front, stopped: Tensor, step: int, status: Tensor) -> None:
        """Take the rows that have stopped after `step` out of those under way."""
        rows = self._active[stopped]
        self._best[rows], self._miss[rows] = front.best[stopped], front.miss[stopped]
        self._reached[rows], self._steps[rows], self._status[rows] = front.reached[stopped], step, status[stopped]


def _concatenate(blocks: list[Solution]) -> Solution:
    """Make one solution of blocks of targets; a shorter history stays where it ended."""
    if len(blocks) == 1:
        return blocks[0]
    longest = max(len(block.history.believed_miss) for block in blocks)

    def pad(part: Tensor) -> Tensor:
        return torch.cat([part, part[-1:].expand(longest - len(part), *part.shape[1:])])

    def join(part: Callable[[Solution], Tensor]) -> Tensor:
        return torch.cat([part(block) for block in blocks])

    return Solution(
        controls=join(lambda block: block.controls),
        believed_miss=join(lambda block: block.believed_miss),
        start_status=join(lambda block: block.start_status),
        steps=join(lambda block: block.steps),
        steps_to_tolerance=join(lambda block: block.steps_to_tolerance),
        history=History(
            torch.cat([pad(block.history.controls) for block in blocks], dim=1),
            torch.cat([pad(block.history.believed_miss) for block in blocks], dim=1),
        ),
    )
