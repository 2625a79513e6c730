"""A ball thrown at the ground and a wall: where is it after a given time? Both impacts have closed forms."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aimback.autodiff.dual import value_of
from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_number, check_positive
from aimback.core.errors import UserError
from aimback.tasks.base import Task


class BallGroundWall(Task):
    """A ball is thrown under gravity, and bounces off the ground and off a wall, without friction.

    The benchmark is the second task of Zhong, Han, Brikis ("Differentiable physics simulations with contacts: do they
    have correct gradients w.r.t. position, velocity and control?", ICML AI4Science workshop 2022), whose numbers are
    the defaults: after 0.6 s the ball is to be at (-2, 1.5) m, first thrown at (5, -5) m/s. An impact keeps the share
    `elasticity` of the speed towards what is hit, and the whole speed along it. So height and forward motion know
    nothing of each other, each impact's time is the root of a parabola or a line, and the outcome is exact.

    The outcome is continuous. Its gradient is right wherever there is one, and jumps where an impact falls on the end.
    Two throws hit most targets on the left: one off the wall, and one away from it; each with a high and a low variant
    where the ground helps. There are no conditions: `conditions` is `(..., 0)`.

    Args:
        velocity_x, velocity_y: `[lower, upper]` of the throw in m/s.
        position: where the ball's centre begins, (x, y) in m, clear of the ground, which is at y = 0, and of the wall.
        radius: of the ball, in m, positive.
        wall: where it stands, to the right of the ball, in m.
        elasticity: above 0 and below 1.
        duration: in s, positive.
        gravity: g in m/s^2, positive.
        tolerance: the miss in m at which a target counts as solved, positive.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self,
        velocity_x: Sequence[float] = (-5.0, 15.0),
        velocity_y: Sequence[float] = (-10.0, 5.0),
        position: Sequence[float] = (-0.5, 1.0),
        radius: float = 0.1,
        wall: float = 1.75,
        elasticity: float = 0.92,
        duration: float = 0.6,
        gravity: float = 9.8,
        tolerance: float = 1e-4,
    ) -> None:
        self.box = Box([make_axis("velocity_x", "m/s", velocity_x), make_axis("velocity_y", "m/s", velocity_y)])
        self.radius = check_positive("radius", radius)
        check_number("elasticity", elasticity, above=0, below=1)
        self.elasticity = float(elasticity)
        self.duration = check_positive("duration", duration)
        self.gravity = check_positive("gravity", gravity)
        self.tolerance = check_positive("tolerance", tolerance)
        check_number("wall", wall)
        self.wall = float(wall)
        if len(position) != 2:
            raise UserError(f"position: give [x, y], got {list(position)}")
        self.x, self.y = (float(part) for part in position)
        if not (-math.inf < self.x < self.wall - self.radius and self.radius < self.y < math.inf):
            raise UserError(f"position: must be clear of the ground and of the wall, got [{self.x:g}, {self.y:g}]")
        self.outcomes = Box(self._span())

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """Where the ball is at the end in m, `(..., 2)`, of `(velocity_x, velocity_y)` in `(..., 2)`."""
        forward, rise = controls.unbind(-1)
        return torch.stack([self._x(forward, self.duration), self._height(rise, self.duration)], dim=-1)

    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> Tensor:
        """The path of the ball's centre, `(..., points, 2)`."""
        time = self.duration * torch.linspace(0, 1, points).to(controls)
        forward, rise = (part[..., None] for part in controls.unbind(-1))
        return torch.stack([self._x(forward, time), self._height(rise, time)], dim=-1)

    def _x(self, forward: Any, time: Any) -> Any:
        """The way past the wall is mirrored at it, and shortened."""
        past = forward * time + (self.x + self.radius - self.wall)
        return torch.where(value_of(past) > 0, -self.elasticity * past, past) + (self.wall - self.radius)

    def _height(self, rise: Any, time: Any) -> Any:
        """A parabola until the first impact; then one a bounce, each as long as the share `elasticity` of the last.

        How many bounces there were is a whole number, and has no derivative: the heights before and after are equal.
        """
        g, share = self.gravity, self.elasticity
        impact = torch.sqrt(rise * rise + 2 * g * (self.y - self.radius))
        since = time - (rise + impact) * (1 / g)
        # The bounce k lasts 2 v e^k / g, the first k of them (1 - e^k) of all: what is left of that tells k.
        all_bounces = impact * (2 * share / (g * (1 - share)))
        left = 1 - (value_of(since) / value_of(all_bounces)).clamp(min=0)
        bounces = torch.floor(torch.log(left.clamp(min=1e-300)) / math.log(share))
        part = torch.exp(bounces * math.log(share))
        gone = since - all_bounces * (1 - part)
        bounced = (impact * (share * part) - (0.5 * g) * gone) * gone
        bounced = torch.where(left > 0, bounced, 0.0)  # what has bounced without end lies
        flown = rise * time + (self.y - self.radius - 0.5 * g * time * time)
        return torch.where(value_of(since) > 0, bounced, flown) + self.radius

    def _span(self) -> list[Axis]:
        """What the box can hit; of the heights what energy allows."""
        forward, rise = self.box.axes
        ends = [self.x + bound * self.duration for bound in (forward.lower, forward.upper)]
        mirror = self.wall - self.radius
        mirrored = [min(end, mirror - self.elasticity * (end - mirror)) for end in ends]
        highest = self.y + max(rise.lower**2, rise.upper**2) / (2 * self.gravity)
        return [
            Axis("final_x", "m", min(mirrored), min(max(ends), mirror)),
            Axis("final_y", "m", self.radius, highest),
        ]
