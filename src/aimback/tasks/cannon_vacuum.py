"""A cannon without air: the landing distance in closed form."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aimback.core.box import Box
from aimback.tasks.cannon import STANDARD_GRAVITY, Cannon, make_distance_axis


class CannonVacuum(Cannon):
    """`distance = v cos a (v sin a + sqrt(v^2 sin^2 a + 2 g h)) / g` (Galileo 1638; h the launch height).

    The arguments are those of `Cannon`. There are no conditions: `conditions` is `(..., 0)`.
    """

    def __init__(
        self,
        speed: Sequence[float] = (0.0, 10.0),
        angle: Sequence[float] = (0.0, math.pi / 2),
        launch_height: float = 0.0,
        gravity: float = STANDARD_GRAVITY,
        tolerance: float = 0.01,
    ) -> None:
        super().__init__(speed, angle, launch_height, gravity, tolerance)
        low, high = self.reach(torch.zeros(1, 0, dtype=torch.float64))
        self.outcomes = Box([make_distance_axis(low, high)])

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        speed, angle = controls.unbind(-1)
        forward = speed * torch.cos(angle)
        return torch.stack([forward * self._flight_time(speed * torch.sin(angle))], dim=-1)

    def reach(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest distance, `(..., 1)` each: the distance grows with the speed, and has one
        maximum over the angle, at tan a = v / sqrt(v^2 + 2 g h)."""
        speed, angle = self.box.axes
        fastest, slowest = speed.upper, speed.lower
        best = math.atan2(fastest, math.sqrt(fastest**2 + 2 * self.gravity * self.launch_height))
        best = min(max(best, angle.lower), angle.upper)
        corners = conditions.new_tensor([[slowest, angle.lower], [slowest, angle.upper], [fastest, best]])
        distances = self(corners, conditions.new_zeros(3, 0))
        shape = (*conditions.shape[:-1], 1)
        return distances[:2].min().expand(shape), distances[2].expand(shape)

    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> Tensor:
        """The parabola from muzzle to ground, `(..., points, 2)`."""
        speed, angle = controls.unbind(-1)
        rise = speed * torch.sin(angle)
        time = self._flight_time(rise)[..., None] * torch.linspace(0, 1, points).to(controls)
        x = (speed * torch.cos(angle))[..., None] * time
        y = self.launch_height + rise[..., None] * time - 0.5 * self.gravity * time**2
        return torch.stack([x, y], dim=-1)

    def _flight_time(self, rise: Any) -> Any:
        if self.launch_height == 0:
            # sqrt(rise^2) = rise, for it is not negative on the box; written so, its slope at 0 is right.
            return 2 * rise / self.gravity
        return (rise + torch.sqrt(rise * rise + 2 * self.gravity * self.launch_height)) / self.gravity
