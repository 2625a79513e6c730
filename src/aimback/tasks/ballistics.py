"""A ball thrown through still air with linear drag: where does it come down?"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from aimback.autodiff.dual import linearise, value_of
from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_positive
from aimback.core.errors import UserError
from aimback.tasks.base import Task
from aimback.tasks.linear_drag import height_at, landing_time, never_lands, share_of_range
from aimback.tasks.reach import bound_outcomes, search_reach

Readout = Literal["exact", "grid"]

GRID_POINTS = 1500
GRID_END = 6.0  # s
GRID_STEP = GRID_END / (GRID_POINTS - 1)


class Ballistics(Task):
    """The x at which `m dV/dt = -(0, m g) - k V`, from (x0, y0) on, meets y = 0 on the way down.

    The benchmark is that of Kruse et al. (INNF+ 2021) and of Ren, Padilla, Malof (NeurIPS 2020); the
    latter give the speed in units of 15 m/s. There are no conditions: `conditions` is `(..., 0)`.

    The readout "exact" solves for the landing to rounding. "grid" is the published scoring: of 1500
    times from 0 to 6 s, the x of the last one before the ball is below the ground, at or after the
    apex; it falls short by up to one step, 4 ms of flight. It is the scoring itself, so there is no finer one to judge
    it by, and what it solves is solved by that scoring. It is for reporting: as a function of the
    controls it jumps from point to point, and what autograd makes of it is the slope at a fixed time.
    `linearise` is therefore that of the exact landing, whatever the readout.

    The outcome is infinite where the ball never comes down to the ground: an apex below it, or on the
    grid a landing later than 6 s. Outside every box allowed here the published code differs from "grid":
    it has no outcome for shots backwards (an angle over pi/2), and one for some that stay below the ground.

    Args:
        x0, y0: `[lower, upper]` of the launch in m, y0 not negative.
        angle: `[lower, upper]` of the elevation in rad, within (0, pi/2].
        speed: `[lower, upper]` of the launch in m/s, not negative.
        drag: k in kg/s, positive.
        mass: m in kg, positive.
        gravity: g in m/s^2, positive.
        readout: "exact" or "grid".
        tolerance: the miss in m at which a target counts as solved, positive.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self,
        x0: Sequence[float] = (-1.0, 1.0),
        y0: Sequence[float] = (0.5, 2.5),
        angle: Sequence[float] = (0.157, 1.413),
        speed: Sequence[float] = (6.9, 23.4),
        drag: float = 0.25,
        mass: float = 0.2,
        gravity: float = 9.81,
        readout: Readout = "exact",
        tolerance: float = 0.02,
    ) -> None:
        axes = [
            make_axis("x0", "m", x0),
            make_axis("y0", "m", y0),
            make_axis("angle", "rad", angle),
            make_axis("speed", "m/s", speed),
        ]
        self.box = Box(axes)
        for bound in (axes[1], axes[3]):
            if bound.lower < 0:
                got = f"got a lower bound of {bound.lower:g} {bound.unit}"
                raise UserError(f"{bound.name}: must not be negative, {got}")
        if not (axes[2].lower > 0 and axes[2].upper <= math.pi / 2):
            raise UserError(f"angle: must lie within (0, pi/2] rad, got [{axes[2].lower:g}, {axes[2].upper:g}]")
        self.time_unit = check_positive("mass", mass) / check_positive("drag", drag)
        self.terminal_speed = check_positive("gravity", gravity) * self.time_unit
        self.tolerance = check_positive("tolerance", tolerance)
        if readout not in ("exact", "grid"):
            raise UserError(f"readout: must be 'exact' or 'grid', got {readout!r}")
        self.readout = readout
        self.outcomes = Box([self._span()])

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """The x of the landing in m, `(..., 1)`, of `(x0, y0, angle, speed)` in `(..., 4)`."""
        return self._on_the_grid(controls) if self.readout == "grid" else self._exactly(controls)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """x of the exact landing `(..., 1)` and its Jacobian `(..., 1, 4)`, in one pass of dual numbers."""
        return linearise(lambda points, _: self._exactly(points), controls, conditions)

    def draw_controls(self, count: int, generator: torch.Generator) -> Tensor:
        """The published prior, `(count, 4)`: x0 ~ N(0, 0.5^2), y0 ~ max(N(1.5, 0.5^2), 0), angle uniform
        between 9 and 81 degrees, speed ~ Poisson(15). One in nine lies outside the default box."""
        return _draw(count, 0.5, generator)

    def draw_starts(self, count: int, generator: torch.Generator) -> Tensor:
        """As the data, `(count, 4)`, with half their deviation of x0 and y0: so the neural-adjoint method starts."""
        return _draw(count, 0.25, generator)

    def reach(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest x of the landing, `(..., 1)` each; the grid's least is a bound, within one step."""
        return bound_outcomes(self.outcomes, conditions)

    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> Tensor:
        """The flight from launch to the exact landing, `(..., points, 2)`, at equal time steps; NaN where
        it never lands."""
        x0, height, forward, rise = self._launch(controls)
        end = torch.where(never_lands(height, rise), math.nan, landing_time(height, rise))
        time = end[..., None] * torch.linspace(0, 1, points).to(controls)
        x = x0[..., None] + self._length * forward[..., None] * share_of_range(time)
        y = self._length * height_at(time, height[..., None], rise[..., None])
        return torch.stack([x, y], dim=-1)

    @property
    def _length(self) -> float:
        """The unit of length of `linear_drag`, in m."""
        return self.terminal_speed * self.time_unit

    def _launch(self, controls: Any) -> tuple[Any, Any, Any, Any]:
        """x0 in m; height, forward and vertical speed in the units of `linear_drag`; `(...)` each."""
        x0, y0, angle, speed = controls.unbind(-1)
        swiftness = speed / self.terminal_speed
        return x0, y0 / self._length, swiftness * torch.cos(angle), swiftness * torch.sin(angle)

    def _exactly(self, controls: Any) -> Any:
        x0, height, forward, rise = self._launch(controls)
        never = never_lands(value_of(height), value_of(rise))
        # Any height that it does land from keeps the gradient of such a row from being 0 times infinity.
        height = torch.where(never, 1.0, height)
        x = x0 + self._length * forward * share_of_range(landing_time(height, rise))
        return torch.stack([torch.where(never, math.inf, x)], dim=-1)

    def _on_the_grid(self, controls: Any) -> Any:
        x0, height, forward, rise = self._launch(controls)
        h, v = value_of(height), value_of(rise)
        step = GRID_STEP / self.time_unit
        # The exact landing tells the cell of the grid; rounding may have it off by one.
        last = torch.floor(landing_time(h, v) / step)
        later, here, earlier = (height_at((last + shift) * step, h, v) for shift in (1, 0, -1))
        last = torch.where(later >= 0, last + 1, torch.where(here >= 0, last, last - 1))
        between_points = (later < 0) & (here < 0) & (earlier < 0)
        never = never_lands(h, v) | between_points | (last > GRID_POINTS - 2)
        x = x0 + self._length * forward * share_of_range(last * step)
        return torch.stack([torch.where(never, math.inf, x)], dim=-1)

    def _span(self) -> Axis:
        """All that the box can hit: x grows with x0, y0 and speed, which leaves the angle to be searched."""
        x0, y0, _, speed = self.box.axes
        nothing = torch.zeros(1, 0, dtype=torch.float64)
        low, _ = search_reach(_Elevation(self, x0.lower, y0.lower, speed.lower), nothing)
        _, high = search_reach(_Elevation(self, x0.upper, y0.upper, speed.upper), nothing)
        short = speed.upper * GRID_STEP if self.readout == "grid" else 0.0
        return Axis("impact", "m", max(float(low) - short, x0.lower), float(high))


class _Elevation:
    """The exact landing as a function of the angle alone."""

    def __init__(self, task: Ballistics, x0: float, y0: float, speed: float) -> None:
        self.box = Box([task.box.axes[2]])
        self.task = task
        self.fixed = (x0, y0, speed)

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        angle = controls[..., 0]
        x0, y0, speed = (torch.full_like(angle, value) for value in self.fixed)
        landing: Tensor = self.task._exactly(torch.stack([x0, y0, angle, speed], dim=-1))
        return landing


def _draw(count: int, deviation: float, generator: torch.Generator) -> Tensor:
    place = deviation * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    share = torch.rand(count, generator=generator, dtype=torch.float64)
    speed = torch.poisson(torch.full((count,), 15.0, dtype=torch.float64), generator=generator)
    angle = torch.deg2rad(9 + 72 * share)
    return torch.stack([place[:, 0], (1.5 + place[:, 1]).clamp(min=0), angle, speed], dim=-1)
