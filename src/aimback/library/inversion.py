"""One target or many, by one solver: the shortest way from a function to controls."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aimback.core.checks import check_whole, quote
from aimback.core.errors import UserError
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import Solution
from aimback.core.randomness import make_generator
from aimback.data.question import pose_problem
from aimback.data.targets import Targets
from aimback.evaluate.judge import judge, resimulate
from aimback.library.answer import Answer
from aimback.library.wish import Wish, read_wish
from aimback.solve.cma_es import CmaEs
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.solver import Solver
from aimback.solve.starts import MOST_STARTS, Starts
from aimback.tasks.base import Task


def invert(
    f: Task | Callable[..., Any],
    controls: Mapping[str, Any] | None = None,
    target: Any = None,
    tolerance: float | None = None,
    *,
    conditions: Mapping[str, Any] | None = None,
    outcomes: Mapping[str, Any] | Sequence[str] | str | None = None,
    derivatives: str = "auto",
    solver: Solver | str | None = None,
    starts: int = 8,
    seed: int = 0,
) -> Answer:
    """Find the controls that make a function hit a target.

    It is found out first what the function takes (tensors of PyTorch, arrays of NumPy or JAX; one case a call or many)
    and which derivatives it has, which takes some dozens to hundreds of cases. Everything runs in this process.

    Args:
        f: a function of named numbers or arrays, an `nn.Module` of rows `(n, n_inputs)`, or a `Task`, which brings its
            controls, outcomes and tolerance along.
        controls: by name `(lower, upper)`, `(lower, upper, unit)`, `{"range": ..., "unit": ..., "size": ...}` for an
            array, or a number that the control is pinned to.
        target: a number or an array of them; with several outcomes a row of them `(n_outcomes,)`, a table
            `(n_targets, n_outcomes)`, or arrays by the outcome's name. A row that is not finite is `invalid_input`.
        tolerance: how far an outcome may be from its target, in the outcome's unit.
        conditions: what is given, by name: a number, or an array with a value for each target.
        outcomes: what f returns: a name, names, or by name `{"unit": ..., "tolerance": ..., "size": ...}`.
        derivatives: "auto", or how it is to be differentiated, see `Description`.
        solver: an instance, or a name of conf/solver; None: Levenberg-Marquardt, cma_es where there are no derivatives.
        starts: initial guesses a target.
        seed: of the starts, and of a solver that moves at random; the same seed gives the same answer.

    Raises:
        UserError: in one line, what is wrong or missing, or that f cannot be called so.
    """
    check_whole(1, MOST_STARTS, starts=starts)
    chosen = _choose_solver(solver)
    if target is None:
        raise UserError("target: say what is wanted, a number or an array of them")
    wish = read_wish(f, controls, target, tolerance, conditions, outcomes, derivatives)
    assert wish.targets is not None
    ledger = Ledger(simulations=wish.probing)
    forward = Counted(wish.task, ledger, simulates=True)
    generator = partial(make_generator, seed, wish.name)
    targets, again = wish.targets.only_valid().once()
    problem, stream = pose_problem(
        wish.task, targets, Starts(number=starts, drawn_from="box", until_solved=False), generator
    )
    began = time.perf_counter()
    solution = solve(
        forward, problem, chosen or (LevenbergMarquardt() if wish.has_derivatives else CmaEs()), stream
    ).of(again)
    seconds = time.perf_counter() - began
    return judge_solution(wish, wish.targets, solution, ledger, seconds)


def judge_solution(wish: Wish, targets: Targets, solution: Solution, ledger: Ledger, seconds: float) -> Answer:
    """Simulate the best answer of each target again, on the ledger too, and decide what became of it."""
    truth = resimulate(wish.task, targets, solution, candidates=1, ledger=ledger)
    judged = judge(wish.task, targets, solution, truth)
    return Answer(wish, targets, solution, judged, ledger, seconds)


def _choose_solver(solver: Solver | str | None) -> Solver | None:
    if isinstance(solver, str):
        from aimback.workflow.defaults import check_choices, read_defaults  # Hydra, which most calls do without

        check_choices("solver", solver)
        return read_defaults(f"solver={solver}").solver
    if solver is not None and not isinstance(solver, Solver):
        raise UserError(f"solver: must be a name of conf/solver or a Solver, got {quote(solver)}")
    return solver
