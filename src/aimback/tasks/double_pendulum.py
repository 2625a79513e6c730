"""A double pendulum let go at rest: where is its lower mass at the horizon?"""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aimback.autodiff.dual import value_of
from aimback.autodiff.ode import Grid, State, follow_steps, integrate
from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_positive, check_whole
from aimback.core.errors import UserError
from aimback.tasks.base import Task


class DoublePendulum(Task):
    """Two point masses on massless rods in the plane, without friction, let go at rest from two angles.

    The angles are those of the rods from the downward vertical, and the outcome is the position (x, y) of the lower
    mass at the horizon, from the pivot, y upwards. The motion is Lagrange's (Goldstein, "Classical Mechanics",
    exercise 1.22): with the difference d of the angles a and b, their rates u and v, and m the lower mass over both,

        l_a a'' + m cos(d) l_b b'' = -m l_b v^2 sin(d) - g sin(a)
        cos(d) l_a a'' + l_b b'' = l_a u^2 sin(d) - g sin(b)

    It is chaotic where a rod can turn over: neighbours part as e^(lambda t), with lambda of the order of
    sqrt(g / length) (Shinbrot, Grebogi, Wisdom, Yorke, American Journal of Physics 60, 1992), some 1.4/s by default.
    With them grow derivatives, the error of the steps, which more of them lessen, and that of rounding, which nothing
    does: "Chaos: a double pendulum by horizon" in benchmarks/FIELD.md. There are no conditions: `conditions` is
    `(..., 0)`.

    Args:
        angle1, angle2: `[lower, upper]` of the upper and the lower rod in rad.
        lengths: of both rods in m, from the pivot on, positive.
        masses: at their ends in kg, positive.
        gravity: in m/s^2, positive.
        horizon: in s, positive.
        time_step: of the Runge-Kutta steps in s, positive; a little shorter where the horizon is no multiple of it.
        tolerance: the miss in m at which a target counts as solved, positive.

    Raises:
        UserError: a value outside these ranges, named, or more than a million steps.
    """

    def __init__(
        self,
        angle1: Sequence[float] = (-2.5, 2.5),
        angle2: Sequence[float] = (-2.5, 2.5),
        lengths: Sequence[float] = (1.0, 1.0),
        masses: Sequence[float] = (1.0, 1.0),
        gravity: float = 9.80665,
        horizon: float = 1.5,
        time_step: float = 0.01,
        tolerance: float = 0.01,
    ) -> None:
        self.box = Box([make_axis("angle1", "rad", angle1), make_axis("angle2", "rad", angle2)])
        self.lengths, self.masses = _read_pair("lengths", lengths), _read_pair("masses", masses)
        self.gravity = check_positive("gravity", gravity)
        self.horizon = check_positive("horizon", horizon)
        self.steps = math.ceil(self.horizon / check_positive("time_step", time_step))
        check_whole(1, 1_000_000, steps=self.steps)
        self.tolerance = check_positive("tolerance", tolerance)
        furthest = sum(self.lengths)
        self.outcomes = Box([Axis(name, "m", -furthest, furthest) for name in "xy"])

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """The position of the lower mass at the horizon in m, `(..., 2)`, of the angles in `(..., 2)`."""
        start = self._rest(*controls.unbind(-1))
        return self._locate(integrate(self.accelerate, start, Grid(self.steps, start[2] + self.horizon)))

    def finer(self, factor: int) -> "DoublePendulum":
        """The same pendulum in `factor` times as many steps."""
        other = copy.copy(self)
        other.steps = factor * self.steps
        return other

    def settings_of_accuracy(self) -> Mapping[str, str]:
        """Steps of a quarter of the length, which leave a 256th of the error."""
        return {"time_step": f"{self.horizon / self.steps / 4:.2g}"}

    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> Tensor:
        """The path of the lower mass, `(..., points, 2)`, at equal times."""
        start, each = self._rest(*controls.unbind(-1)), math.ceil(self.steps / (points - 1))
        states = follow_steps(self.accelerate, start, Grid(each * (points - 1), start[2] + self.horizon))
        return torch.stack([self._locate(state) for state in itertools.islice(states, 0, None, each)], dim=-2)

    def accelerate(self, state: State) -> State:
        """The rate of change of `(angle1, angle2, rate1, rate2)`, in rad and s."""
        a, b, u, v = state
        (upper, lower), (above, below) = self.lengths, self.masses
        share = below / (above + below)
        sine, cosine = torch.sin(a - b), torch.cos(a - b)
        first = v * v * sine * (-share * lower) - self.gravity * torch.sin(a)
        second = u * u * sine * upper - self.gravity * torch.sin(b)
        inverse = 1 / (1 - share * cosine * cosine)
        turn, follow = first - share * cosine * second, second - cosine * first
        return u, v, turn * inverse * (1 / upper), follow * inverse * (1 / lower)

    def _rest(self, a: Any, b: Any) -> State:
        nought = torch.zeros_like(value_of(a))
        return a, b, nought, nought

    def _locate(self, state: State) -> Any:
        (upper, lower), (a, b) = self.lengths, state[:2]
        x = upper * torch.sin(a) + lower * torch.sin(b)
        return torch.stack([x, -upper * torch.cos(a) - lower * torch.cos(b)], dim=-1)


def _read_pair(name: str, given: Sequence[float]) -> tuple[float, float]:
    if len(given) != 2:
        raise UserError(f"{name}: give two, got {list(given)}")
    first, second = (check_positive(name, value) for value in given)
    return first, second
