"""One target or many, by one solver: the shortest way from a function to controls."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aimback.core.checks import check_whole, quote
from aimback.core.errors import UserError
from aimback.core.ledger import Ledger
from aimback.library.aim import Aim
from aimback.library.answer import Answer
from aimback.library.wish import read_wish
from aimback.solve.solver import Solver
from aimback.solve.starts import MOST_STARTS
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
    return Aim(wish, chosen, starts, seed).answer(wish, Ledger(simulations=wish.probing))


def prepare(
    f: Task | Callable[..., Any],
    controls: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
    *,
    conditions: Mapping[str, Any] | None = None,
    outcomes: Mapping[str, Any] | Sequence[str] | str | None = None,
    derivatives: str = "auto",
    solver: Solver | str | None = None,
    starts: int = 8,
    seed: int = 0,
    compile: bool = False,
) -> Aim:
    """Make an inversion ready once, to be asked again and again: `aim = prepare(...)`, then `aim(target)`.

    Args:
        conditions: by name a range, `(lower, upper)`, whose values are then given with each target; or a number.
        compile: whether to compile the solver and f into one program, which takes some seconds: f must be in
            operations of PyTorch. Then `aim.believe` answers in microseconds.

    All else is as for `invert`, and so are the answers.

    Raises:
        UserError: in one line, what is wrong or missing, that f cannot be called so, or that it cannot be compiled.
    """
    check_whole(1, MOST_STARTS, starts=starts)
    chosen = _choose_solver(solver)
    wish = read_wish(f, controls, None, tolerance, conditions, outcomes, derivatives)
    return Aim(wish, chosen, starts, seed, compile)


def _choose_solver(solver: Solver | str | None) -> Solver | None:
    if isinstance(solver, str):
        from aimback.workflow.defaults import check_choices, read_defaults  # Hydra, which most calls do without

        check_choices("solver", solver)
        return read_defaults(f"solver={solver}").solver
    if solver is not None and not isinstance(solver, Solver):
        raise UserError(f"solver: must be a name of conf/solver or a Solver, got {quote(solver)}")
    return solver
