"""A ball thrown at a wall: the landing distance jumps where the ball just clears it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aimback.autodiff.dual import value_of
from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_positive
from aimback.core.errors import UserError
from aimback.tasks.base import Task
from aimback.tasks.reach import bound_outcomes


class BallWithWall(Task):
    """A ball thrown from the ground without air, at a given speed; a wall stands in its way.

    The benchmark is that of Suh, Simchowitz, Zhang, Tedrake ("Do differentiable simulators give better
    policy gradients?", ICML 2022). A ball that comes down before the wall, or flies over its top, lands at
    `v^2 sin(2 a) / g`. Any other loses its forward speed to the wall and drops at its foot: the distance is the wall's.

    As a function of the angle the distance is flat wherever the wall blocks the ball, and jumps at the two
    angles of `jumps`. The gradient is right wherever there is one, and never tells of the jump; it is zero
    on the flat part. No angle gives a distance between the wall's and that of a ball just over its top,
    though `reach` spans that gap. There are no conditions: `conditions` is `(..., 0)`.

    Args:
        angle: `[lower, upper]` of the elevation in rad, within [0, pi/2].
        speed: v in m/s, positive.
        wall_distance, wall_height: in m, positive.
        gravity: g in m/s^2, positive.
        tolerance: the miss in m at which a target counts as solved, positive.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self,
        angle: Sequence[float] = (0.0, math.pi / 2),
        speed: float = 1.0,
        wall_distance: float = 0.06,
        wall_height: float = 0.02,
        gravity: float = 9.81,
        tolerance: float = 1e-4,
    ) -> None:
        self.box = Box([make_axis("angle", "rad", angle)])
        self.speed = check_positive("speed", speed)
        self.wall_distance = check_positive("wall_distance", wall_distance)
        self.wall_height = check_positive("wall_height", wall_height)
        self.gravity = check_positive("gravity", gravity)
        self.tolerance = check_positive("tolerance", tolerance)
        (elevation,) = self.box.axes
        if elevation.lower < 0 or elevation.upper > math.pi / 2:
            raise UserError(f"angle: must lie within [0, pi/2] rad, got [{elevation.lower:g}, {elevation.upper:g}]")
        self.outcomes = Box([self._span()])

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """The distance in m, `(..., 1)`, of `(angle,)` in `(..., 1)`."""
        (angle,) = controls.unbind(-1)
        sine, cosine = torch.sin(angle), torch.cos(angle)
        free = (2 * self.speed**2 / self.gravity) * sine * cosine
        s, c = value_of(sine), value_of(cosine)
        # The height above the wall's foot against the wall's, both times cos^2 a: nothing to divide by upright.
        clears = self.wall_distance * s * c - self._drop > self.wall_height * c * c
        short = value_of(free) < self.wall_distance
        return torch.stack([torch.where(clears | short, free, self.wall_distance)], dim=-1)

    def jumps(self) -> tuple[float, float] | None:
        """The angles in rad between which the ball flies over the wall; None where it never does.

        At both it touches the wall's top: `d tan a - g d^2 (1 + tan^2 a) / (2 v^2) = h`.
        """
        distance, drop = self.wall_distance, self._drop
        discriminant = distance**2 - 4 * drop * (drop + self.wall_height)
        if discriminant <= 0:
            return None
        low, high = ((distance + sign * math.sqrt(discriminant)) / (2 * drop) for sign in (-1, 1))
        return math.atan(low), math.atan(high)

    def reach(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest distance, `(..., 1)` each, the gap between them not told of."""
        return bound_outcomes(self.outcomes, conditions)

    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> Tensor:
        """The flight from the ground to the ground, `(..., points, 2)`; the wall leaves the height as it is."""
        (angle,) = controls.unbind(-1)
        forward, rise = self.speed * torch.cos(angle), self.speed * torch.sin(angle)
        time = (2 * rise / self.gravity)[..., None] * torch.linspace(0, 1, points).to(controls)
        x = torch.minimum(forward[..., None] * time, self(controls, conditions))
        y = rise[..., None] * time - 0.5 * self.gravity * time**2
        return torch.stack([x, y], dim=-1)

    @property
    def _drop(self) -> float:
        """What gravity takes off the height over the wall, times cos^2 a, in m."""
        return 0.5 * self.gravity * (self.wall_distance / self.speed) ** 2

    def _span(self) -> Axis:
        """All that the box can hit.

        The unhindered distance has one maximum, at pi/4, and the angles over the wall are an interval. So the least
        distance is that of an end of the box; the greatest is that of the angle over the wall nearest to pi/4, or,
        where there is none, of the angle nearest to pi/4 but at most the wall's.
        """
        (elevation,) = self.box.axes

        def nearest(lower: float, upper: float) -> float:
            return min(max(math.pi / 4, lower), upper)

        def free(angle: float) -> float:
            return self.speed**2 * math.sin(2 * angle) / self.gravity

        ends = torch.tensor([[elevation.lower], [elevation.upper]], dtype=torch.float64)
        high = min(free(nearest(elevation.lower, elevation.upper)), self.wall_distance)
        if jumps := self.jumps():
            lower, upper = max(elevation.lower, jumps[0]), min(elevation.upper, jumps[1])
            if lower < upper:
                high = free(nearest(lower, upper))
        return Axis("distance", "m", float(self(ends, ends[:, :0]).min()), high)
