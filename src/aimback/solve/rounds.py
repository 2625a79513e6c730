"""Starts one after the other: more of them only for the targets that none has hit so far."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from aimback.core.errors import OverBudgetError
from aimback.core.problem import History, InverseProblem, Linearised, Solution, StartStatus
from aimback.solve.continuation import solve_by_continuation
from aimback.solve.multistart import HISTORY_ROWS
from aimback.solve.solver import Progress, Solver

_PARTS = ("controls", "believed_miss", "start_status", "steps", "steps_to_tolerance")
# Of the tolerance: a start that has come so close is done.
_CLOSE = 0.1


def solve_in_rounds(
    forwards: Sequence[Linearised],
    problem: InverseProblem,
    solver: Solver,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Solution:
    """Descend from one start of every target; then from another one, then from two, four, ... where none has arrived.

    Meant for simulators whose calls are dear: a start ends well within the tolerance and not at the last digit, and
    what is left of a budget goes to the targets that need it. All else is as in `solve_by_continuation`.

    Returns:
        As there; starts that it never came to have the status `NOT_BEGUN` and an infinite miss.

    Raises:
        OverBudgetError: the budget does not even allow a look at one start of every target.
    """
    solver = replace(solver, precision=max(solver.precision, min(_CLOSE * problem.distance.share, 0.5)))
    targets, each, _ = problem.starts.shape
    whole = _begin(problem, max(1, HISTORY_ROWS // each))
    open_rows = torch.arange(targets, device=problem.targets.device)
    first, size = 0, 1
    while first < each and len(open_rows):
        columns = slice(first, min(first + size, each))
        part = replace(
            problem,
            targets=problem.targets[open_rows],
            conditions=problem.conditions[open_rows],
            starts=problem.starts[open_rows.to(problem.starts.device), columns],
        )
        try:
            solution = solve_by_continuation(forwards, part, solver, generator)
        except OverBudgetError:
            if first == 0:
                raise
            break
        whole = enter_answers(whole, solution, open_rows, columns)
        arrived = (whole.start_status == StartStatus.ARRIVED).any(-1)
        open_rows = (~arrived).nonzero()[:, 0]
        if progress is not None:
            done = targets if columns.stop == each else int(arrived.sum())
            progress(done, int(arrived.sum()))
        first, size = columns.stop, first + size
    return whole


def _begin(problem: InverseProblem, kept: int) -> Solution:
    """All starts where they are, none begun."""
    like = problem.targets
    shape = problem.starts.shape[:2]
    controls = problem.box.from_unit(problem.box.keep_inside(problem.starts.to(like)))
    nowhere = torch.full(shape, torch.inf, dtype=like.dtype, device=like.device)
    counts = torch.zeros(shape, dtype=torch.int64, device=like.device)
    return Solution(
        controls=controls,
        believed_miss=nowhere,
        start_status=torch.full_like(counts, StartStatus.NOT_BEGUN, dtype=torch.int8),
        steps=counts,
        steps_to_tolerance=counts - 1,
        history=History(controls[None, :kept], nowhere[None, :kept]),
    )


def enter_answers(whole: Solution, part: Solution, rows: Tensor, columns: slice = slice(None)) -> Solution:
    """Put what some starts of some targets, in ascending order, came to into the solution of all."""

    def put(name: str) -> Tensor:
        filled: Tensor = getattr(whole, name).clone()
        filled[rows, columns] = getattr(part, name).to(filled.dtype)
        return filled

    kept = whole.history.controls.shape[1]
    early = rows[rows < kept]
    looks = max(len(whole.history.controls), len(part.history.controls))

    def put_path(name: str) -> Tensor:
        filled = _pad(getattr(whole.history, name), looks).clone()
        filled[:, early, columns] = _pad(getattr(part.history, name), looks)[:, : len(early)].to(filled.dtype)
        return filled

    return Solution(
        **{name: put(name) for name in _PARTS}, history=History(put_path("controls"), put_path("believed_miss"))
    )


def single_out(whole: Solution, rows: Tensor, starts: Tensor) -> Solution:
    """Let every start of some targets, in ascending order, come to what one of them came to, `(n,)` both."""
    history, kept = whole.history, rows < whole.history.controls.shape[1]
    paths = [path[:, rows[kept], starts[kept], None] for path in (history.controls, history.believed_miss)]
    parts = {name: getattr(whole, name)[rows, starts, None] for name in _PARTS}
    return enter_answers(whole, Solution(**parts, history=History(*paths)), rows)


def _pad(path: Tensor, looks: int) -> Tensor:
    """A path that has ended stays where it was."""
    return torch.cat([path, path[-1:].expand(looks - len(path), *path.shape[1:])])
