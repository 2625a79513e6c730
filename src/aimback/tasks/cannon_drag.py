"""A cannon in air: quadratic drag relative to a horizontal wind."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aimback.autodiff import ode
from aimback.autodiff.dual import value_of
from aimback.core.box import Box, make_axis
from aimback.core.errors import UserError
from aimback.tasks.accuracy import choose_steps, spread_points
from aimback.tasks.cannon import STANDARD_GRAVITY, Cannon, make_distance_axis
from aimback.tasks.reach import search_reach

_STEPS = 16
_CLOSING = 1e-3  # mean steps: the longest closing step of a finer cannon, whose own error is then nothing
_MOST_STEPS = 256  # that an accuracy may take: beyond, the fine grid that it is measured by takes seconds
_BESIDE_THE_KINK = (0.0, -0.003, 0.003, -0.01, 0.01, -0.03, 0.03)  # of the speed


class CannonDrag(Cannon):
    """`dV/dt = -(0, g) - k |V - W| (V - W)`, from the muzzle until the ball meets the ground falling.

    The drag coefficient is k = rho C_d A / (2 m), the quadratic law of Newton (Principia, book II).
    The condition is the wind along x in m/s, `(..., 1)`.

    Args:
        speed, angle, launch_height, gravity, tolerance: see `Cannon`.
        drag: k in 1/m, not negative; 0 is the vacuum.
        wind: `[lower, upper]` in m/s that the wind is drawn from.
        steps: Runge-Kutta steps of a flight, at least 4; None is 16, or as many as `accuracy` takes.
        accuracy: how far a distance may be off in m, anywhere in the box and under any of its winds, for
            want of steps; None asks for nothing. See `choose_steps`; the number is the attribute `steps`.
    """

    def __init__(
        self,
        speed: Sequence[float] = (0.0, 10.0),
        angle: Sequence[float] = (0.0, math.pi / 2),
        launch_height: float = 0.0,
        gravity: float = STANDARD_GRAVITY,
        tolerance: float = 0.01,
        drag: float = 0.05,
        wind: Sequence[float] = (-2.0, 2.0),
        steps: int | None = None,
        accuracy: float | None = None,
    ) -> None:
        super().__init__(speed, angle, launch_height, gravity, tolerance)
        self.drag = float(drag)
        if not 0 <= self.drag < math.inf:
            raise UserError(f"drag: must be finite and not negative, got {drag:g} 1/m")
        self.conditions = Box([make_axis("wind", "m/s", wind, fixed=True)])
        self._coarse: CannonDrag | None = None
        self.steps = choose_steps(
            steps,
            accuracy,
            self._in_steps,
            self._closely,
            self._sample,
            default=_STEPS,
            least=4,
            most=_MOST_STEPS,
            unit="m",
            axes=(*self.box.axes, *self.conditions.axes),
        )
        low, high = self.reach(torch.stack(self.conditions.bounds(self.box.lower)))
        if not bool(torch.isfinite(torch.cat([low, high])).all()):
            raise UserError(
                f"steps: {self.steps} Runge-Kutta steps cannot follow so fast a ball in so thick an air; take more"
            )
        self.outcomes = Box([make_distance_axis(low, high)])

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        wind = conditions[..., 0]
        (x, *_), time = self._fly(*self._launch(controls, wind))
        return torch.stack([x + wind * time], dim=-1)

    def reach(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest distance, `(..., 1)` each, found by search: with a head wind it need not
        grow with the speed."""
        return search_reach(self, conditions, self._coarse)

    def finer(self, factor: int) -> "CannonDrag":
        """The same cannon in `factor` times as many steps, each flight followed anew until hardly a gap is left."""
        return self._closely(factor * self.steps)

    def settings_of_accuracy(self) -> Mapping[str, str]:
        """An accuracy of a tenth of the tolerance."""
        return {"steps": "null", "accuracy": f"{self.tolerance / 10:g}"}

    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> Tensor:
        """The flight from muzzle to ground, `(..., points, 2)`, at equal time steps."""
        wind = conditions[..., 0]
        start, rate = self._launch(controls, wind)
        _, duration = self._fly(start, rate)
        times = ode.Grid(points - 1, duration)
        states = ode.follow_steps(self._derivative, start, times)
        return torch.stack(
            [torch.stack([x + wind * t, y], dim=-1) for t, (x, y, *_) in zip(times, states, strict=True)], dim=-2
        )

    def _in_steps(self, steps: int) -> "CannonDrag":
        """The same cannon, its flights in so many steps."""
        other = copy.copy(self)
        other.steps = steps
        return other

    def _closely(self, steps: int) -> "CannonDrag":
        """The same, each flight followed anew up to the time at which the one before has landed.

        Where the landing was searched for on too coarse a grid, the step that closes the gap is a long one, and
        its error is the same for many numbers of steps: here the gap closes to nothing.
        """
        other = self._in_steps(steps)
        other._coarse = self
        return other

    def _sample(self) -> tuple[Tensor, Tensor]:
        """Controls and wind where the error of the steps is looked for.

        A grid, and flights that go straight up and down as the moving air sees them, or nearly so. At
        their apex the ball stands still in the air, where the drag, k |V| V, has a kink: there the
        method is of third order only, in a layer too thin for a grid.
        """
        controls, wind = spread_points(self.box, self.conditions, counts=(9, 17, 5))
        speed, angle = self.box.axes
        fast, blown = spread_points(Box([speed]), self.conditions, counts=(17, 9))
        along = (blown / fast).nan_to_num() + torch.tensor(_BESIDE_THE_KINK, dtype=fast.dtype)
        steep = torch.acos(along.clamp(-1, 1)).clamp(angle.lower, angle.upper)
        upright = torch.stack([fast.expand_as(steep), steep], dim=-1).flatten(0, 1)
        return torch.cat([controls, upright]), torch.cat([wind, blown.expand_as(steep).reshape(-1, 1)])

    def _launch(self, controls: Any, wind: Tensor) -> tuple[ode.State, Tensor]:
        """The state at the muzzle and the rate at which drag alone would slow the ball there, in 1/s.

        The state is (x, y, dx/dt, dy/dt) seen from the moving air, where the wind is nought and the
        muzzle drifts; the ground is level, so the flight ends at the same time for both observers.
        """
        speed, angle = controls.unbind(-1)
        nought = torch.zeros_like(value_of(speed))
        state = (nought, nought + self.launch_height, speed * torch.cos(angle) - wind, speed * torch.sin(angle))
        return state, self.drag * torch.hypot(value_of(state[2]), value_of(state[3]))

    def _fly(self, start: ode.State, rate: Tensor) -> tuple[ode.State, Any]:
        guess = self._flight_time(value_of(start[3]), rate)
        longest = 1.0 if self._coarse is None else _CLOSING
        return ode.integrate_to_event(
            self._derivative, start, time_to_ground, guess, steps=self.steps, rate=rate, longest=longest
        )

    def _flight_time(self, rise: Tensor, rate: Tensor) -> Tensor:
        """Within some per cent, by the apex height of Chudinov (Eur. J. Phys. 25, 2004)."""
        apex = rise * rise / (2 * self.gravity + rate * rise)
        return torch.sqrt(2 * apex / self.gravity) + torch.sqrt(2 * (apex + self.launch_height) / self.gravity)

    def _derivative(self, state: ode.State) -> ode.State:
        _, _, along, up = state
        # The smallest normal number keeps the square root differentiable where the ball rests in the air.
        tiny = torch.finfo(along.dtype).tiny
        speed = torch.sqrt(torch.addcmul(up * up + tiny, along, along))
        resistance = -self.drag * speed
        return along, up, resistance * along, resistance * up - self.gravity


def time_to_ground(state: ode.State, rate: ode.State) -> Any:
    """Time until y = 0 on the way down, at the acceleration of this moment; negative below the ground.

    The later root of y + v t + a t^2 / 2 = 0, in whichever of its two forms does not cancel.
    """
    _, height, _, up = state
    fall = -rate[3]
    climbing = value_of(up) >= 0
    square = up * up + 2.0 * fall * height
    sound = value_of(square) > 0
    # At rest on the ground launch and landing fall together and sqrt has no slope, but its limit,
    # sqrt(v^2) = |v|, has. The same stands in, as a Newton step, where the parabola misses the ground.
    root = torch.where(sound, torch.sqrt(torch.where(sound, square, 1.0)), torch.where(climbing, up, -up))
    # Each form gets a denominator of 1 where the other one holds: no 0 / 0, so no NaN in the gradient.
    from_above = 2.0 * height / torch.where(climbing, 1.0, root - up)
    from_launch = (up + root) / torch.where(climbing, fall, 1.0)
    return torch.where(climbing, from_launch, from_above)
