"""A step that keeps to the box: what would leave it stops at its bound, and the others do the rest."""

from collections.abc import Callable

import torch
from torch import Tensor

from aimback.solve.point import Point


def step_inside(point: Point, step: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Where a solver's step ends inside the box, `(rows, n_controls)`, exactly on the bounds that it meets.

    A control on its bound whose descent would lead through it is held from the first. A control that
    the step of the free ones takes out of the box is put on its bound and held too, and `step` is asked
    again for those still free: at most once a control.

    Args:
        point: where the step begins.
        step: `(moved, free) -> (rows, n_controls)`, the best move of the `free` controls where the others
            have moved by `moved` (0 for the free ones); its values for the others are not looked at.
    """
    unit = point.unit
    free = point.downhill != 0
    end = there = unit
    for _ in range(unit.shape[1]):
        there = torch.where(free, unit + step(end - unit, free), end)
        inside = there.clamp(0, 1)
        hits = there != inside
        end = torch.where(hits, inside, end)
        free = free & ~hits
        # The rows without a hit would be given the same step again.
        if not torch.compiler.is_compiling() and not bool(hits.any()):
            break
    return torch.where(free, there, end)
