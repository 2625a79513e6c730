"""Examines all claims, one after the other."""

from collections.abc import Callable

from aimback.diagnose import (
    basins,
    conditioning,
    gradients,
    iterations,
    minima,
    misbelief,
    roughness,
    warm_start,
)
from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim

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


def examine_all(case: Case, progress: Callable[[int], None] | None = None) -> list[tuple[Claim, Pictures]]:
    """Decide every claim, and return each with the arrays of its pictures; `progress` is told 1 after each."""
    decided = []
    for examination in EXAMINATIONS:
        decided.append(examination(case))
        if progress is not None:
            progress(1)
    return decided
