"""Examines all claims, one after the other."""

from collections.abc import Callable, Sequence

from aimback.core.errors import OverBudgetError
from aimback.diagnose import (
    basins,
    conditioning,
    fidelity,
    gradients,
    iterations,
    minima,
    misbelief,
    roughness,
    warm_start,
)
from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim
from aimback.settings.claims import DiagnoseSettings

Examination = Callable[[Case], tuple[Claim, Pictures]]

# Each module measures one claim; in the order of their keys.
EXAMINATIONS: tuple[Examination, ...] = (
    misbelief.examine,
    iterations.examine,
    roughness.examine,
    minima.examine,
    basins.examine,
    conditioning.examine,
    gradients.examine,
    warm_start.examine,
)


def list_examinations(settings: DiagnoseSettings) -> Sequence[Examination]:
    """Those that are asked for: C9 trains networks of its own, which is dear, and does so only where it is told how."""
    return (*EXAMINATIONS, fidelity.examine) if settings.examples else EXAMINATIONS


def examine_all(
    case: Case, progress: Callable[[int], None] | None = None, budget: int | None = None
) -> tuple[list[tuple[Claim, Pictures]], list[str]]:
    """Decide every claim that the budget allows to be measured; `progress` is told 1 after each.

    Args:
        budget: simulations for all of them; the next claim gets what is left. None for no bound.

    Returns:
        Each claim with the arrays of its pictures, and the keys of those that would have taken more.
    """
    decided, left_out = [], []
    case.task.allow(budget)
    for place, examination in enumerate(list_examinations(case.settings), start=1):
        try:
            decided.append(examination(case))
        except OverBudgetError:
            left_out.append(f"C{place}")
        if progress is not None:
            progress(1)
    case.task.allow(None)
    return decided, left_out
