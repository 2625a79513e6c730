"""A sine wave over a plane: many answers to each target, in two controls."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_positive
from aimback.tasks.base import Task
from aimback.tasks.reach import bound_outcomes


class SineWave(Task):
    """`height = sin(3 pi x1) + cos(3 pi x2)` (Ren, Padilla, Malof, NeurIPS 2020).

    Controls and outcome have no unit; there are no conditions: `conditions` is `(..., 0)`.

    Args:
        x1, x2: `[lower, upper]` of the controls.
        tolerance: the miss at which a target counts as solved, positive.

    Raises:
        UserError: bounds out of order, or a tolerance that is not positive.
    """

    def __init__(
        self, x1: Sequence[float] = (-1.0, 1.0), x2: Sequence[float] = (-1.0, 1.0), tolerance: float = 0.01
    ) -> None:
        self.box = Box([make_axis("x1", "", x1), make_axis("x2", "", x2)])
        self.tolerance = check_positive("tolerance", tolerance)
        first, second = self.box.axes
        sine = _sine_range(3 * math.pi * first.lower, 3 * math.pi * first.upper)
        quarter = math.pi / 2  # cos x = sin(x + pi / 2)
        cosine = _sine_range(3 * math.pi * second.lower + quarter, 3 * math.pi * second.upper + quarter)
        self.outcomes = Box([Axis("height", "", sine[0] + cosine[0], sine[1] + cosine[1])])

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """The height, `(..., 1)`, of `(x1, x2)` in `(..., 2)`."""
        x1, x2 = controls.unbind(-1)
        return torch.stack([torch.sin(3 * math.pi * x1) + torch.cos(3 * math.pi * x2)], dim=-1)

    def draw_controls(self, count: int, generator: torch.Generator) -> Tensor:
        """Every pairing of `ceil(sqrt(count))` random x1 with as many random x2, in random order, `(count, 2)`.

        So the published data were drawn, 100 by 100; they know fewer values of each control than
        independent draws would.
        """
        side = math.isqrt(max(count - 1, 0)) + 1
        lines = self.box.sample(side, generator)
        pairs = torch.cartesian_prod(lines[:, 0], lines[:, 1])
        return pairs[torch.randperm(side * side, generator=generator)[:count]]

    def reach(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest height, `(..., 1)` each: both waves vary on their own, so their extremes add."""
        return bound_outcomes(self.outcomes, conditions)


def _sine_range(lower: float, upper: float) -> tuple[float, float]:
    """Least and greatest sine on `[lower, upper]`: a trough or crest inside, else one of the ends."""
    ends = math.sin(lower), math.sin(upper)
    low = -1.0 if _holds(lower, upper, -math.pi / 2) else min(ends)
    high = 1.0 if _holds(lower, upper, math.pi / 2) else max(ends)
    return low, high


def _holds(lower: float, upper: float, phase: float) -> bool:
    """Whether `phase` plus some whole number of turns lies in `[lower, upper]`."""
    turn = 2 * math.pi
    return math.ceil((lower - phase) / turn) <= math.floor((upper - phase) / turn)
