"""What both cannons share: two controls, one landing distance, a level ground at y = 0."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_positive
from aimback.core.errors import UserError
from aimback.tasks.base import Task

STANDARD_GRAVITY = 9.80665  # m/s^2, CGPM 1901


class Cannon(Task):
    """A cannon on a ledge, fired forwards and not downwards.

    Args:
        speed: `[lower, upper]` of the muzzle speed in m/s, not negative.
        angle: `[lower, upper]` of the elevation in rad, within [0, pi/2].
        launch_height: of the muzzle above the ground in m, not negative.
        gravity: in m/s^2, positive.
        tolerance: the miss in m at which a target counts as solved, positive.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self, speed: Sequence[float], angle: Sequence[float], launch_height: float, gravity: float, tolerance: float
    ) -> None:
        self.box = Box([make_axis("speed", "m/s", speed), make_axis("angle", "rad", angle)])
        self.launch_height = float(launch_height)
        self.gravity = check_positive("gravity", gravity)
        self.tolerance = check_positive("tolerance", tolerance)
        speed_axis, angle_axis = self.box.axes
        if speed_axis.lower < 0:
            raise UserError(f"speed: must not be negative, got a lower bound of {speed_axis.lower:g} m/s")
        if angle_axis.lower < 0 or angle_axis.upper > math.pi / 2:
            raise UserError(f"angle: must lie within [0, pi/2] rad, got [{angle_axis.lower:g}, {angle_axis.upper:g}]")
        if not 0 <= self.launch_height < math.inf:
            raise UserError(f"launch_height: must be a number of metres >= 0, got {launch_height:g}")

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """The landing distance in m, `(..., 1)`, of `(speed, angle)` in `(..., 2)`."""
        raise NotImplementedError


def make_distance_axis(lower: Tensor, upper: Tensor) -> Axis:
    """The outcome of a cannon, spanning what it can reach under any of its conditions."""
    return Axis("distance", "m", float(lower.min()), float(upper.max()))
