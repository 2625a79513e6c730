"""A robotic arm in the plane: three links on a base that slides up and down."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_positive
from aimback.core.errors import UserError
from aimback.tasks.base import Task
from aimback.tasks.reach import bound_outcomes, search_reach

Convention = Literal["ren2020", "kruse2021"]

PRIOR_DEVIATION = (0.25, 0.5, 0.5, 0.5)  # m and rad: the published variances 1/16, 1/4, 1/4, 1/4


class RoboticArm(Task):
    """The tip of an arm, `(x, y) = (sum l cos d, height + sum l sin d)`, with link directions d.

    The benchmark is that of Kruse et al. (INNF+ 2021), taken over by Ren, Padilla, Malof (NeurIPS
    2020) with directions of its own. There are no conditions: `conditions` is `(..., 0)`.

    Args:
        height: `[lower, upper]` of the base in m.
        angle1, angle2, angle3: `[lower, upper]` of the joint angles in rad.
        lengths: of the three links in m, from the base on, positive.
        convention: how angles a1, a2, a3 give directions: "ren2020" a1, a2 - a1, a3 - a2 - a1;
            "kruse2021" a1, a1 + a2, a1 + a2 + a3.
        tolerance: the miss in m at which a target counts as solved, positive.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self,
        height: Sequence[float] = (-0.6, 0.6),
        angle1: Sequence[float] = (-1.2, 1.2),
        angle2: Sequence[float] = (-1.2, 1.2),
        angle3: Sequence[float] = (-1.2, 1.2),
        lengths: Sequence[float] = (0.5, 0.5, 1.0),
        convention: Convention = "ren2020",
        tolerance: float = 0.01,
    ) -> None:
        angles = [
            make_axis("angle1", "rad", angle1),
            make_axis("angle2", "rad", angle2),
            make_axis("angle3", "rad", angle3),
        ]
        self.box = Box([make_axis("height", "m", height), *angles])
        self.tolerance = check_positive("tolerance", tolerance)
        if len(lengths) != 3:
            raise UserError(f"lengths: give three, got {list(lengths)}")
        self.lengths = tuple(check_positive("lengths", length) for length in lengths)
        if convention not in ("ren2020", "kruse2021"):
            raise UserError(f"convention: must be 'ren2020' or 'kruse2021', got {convention!r}")
        self.convention = convention
        low, high = search_reach(_Links(self, Box(angles)), torch.zeros(1, 0, dtype=torch.float64))
        base = self.box.axes[0]
        x, y = zip(low[0].tolist(), high[0].tolist(), strict=True)
        self.outcomes = Box([Axis("x", "m", *x), Axis("y", "m", base.lower + y[0], base.upper + y[1])])

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """The tip `(x, y)` in m, `(..., 2)`, of `(height, angle1, angle2, angle3)` in `(..., 4)`."""
        height, *angles = controls.unbind(-1)
        x, y = self.span(*angles)
        return torch.stack([x, height + y], dim=-1)

    def draw_controls(self, count: int, generator: torch.Generator) -> Tensor:
        """Normal about the arm stretched out level, `(count, 4)`, as published; now and then outside the box."""
        return torch.randn(count, 4, generator=generator, dtype=torch.float64) * torch.tensor(
            PRIOR_DEVIATION, dtype=torch.float64
        )

    def draw_starts(self, count: int, generator: torch.Generator) -> Tensor:
        """As the data, `(count, 4)`: so the neural-adjoint method starts there."""
        return self.draw_controls(count, generator)

    def reach(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest x and y, `(..., 2)` each, found by search. Their rectangle is wider than
        what the tip can touch: a target beyond it is out of reach, one inside need not be in reach."""
        return bound_outcomes(self.outcomes, conditions)

    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> Tensor:
        """The arm itself from base to tip, `(..., points, 2)`, at equal steps along its links."""
        height, *angles = controls.unbind(-1)
        along = torch.linspace(0, sum(self.lengths), points).to(controls)
        x = torch.zeros_like(height)[..., None]
        y = height[..., None]
        begin = 0.0
        for direction, length in zip(self._directions(*angles), self.lengths, strict=True):
            part = (along - begin).clamp(0, length)
            x = x + torch.cos(direction)[..., None] * part
            y = y + torch.sin(direction)[..., None] * part
            begin += length
        return torch.stack([x, y], dim=-1)

    def span(self, angle1: Any, angle2: Any, angle3: Any) -> tuple[Any, Any]:
        """From the base to the tip, `(...)` each, in m."""
        directions = self._directions(angle1, angle2, angle3)
        first, second, third = self.lengths
        x = first * torch.cos(directions[0]) + second * torch.cos(directions[1]) + third * torch.cos(directions[2])
        y = first * torch.sin(directions[0]) + second * torch.sin(directions[1]) + third * torch.sin(directions[2])
        return x, y

    def _directions(self, angle1: Any, angle2: Any, angle3: Any) -> tuple[Any, Any, Any]:
        """Of the links above the horizontal, in rad."""
        if self.convention == "ren2020":
            return angle1, angle2 - angle1, angle3 - angle2 - angle1
        return angle1, angle1 + angle2, angle1 + angle2 + angle3


class _Links:
    """The arm on a base at height 0: what is left to search, for the height only adds to y."""

    def __init__(self, arm: RoboticArm, box: Box) -> None:
        self.arm = arm
        self.box = box

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return torch.stack(self.arm.span(*controls.unbind(-1)), dim=-1)
