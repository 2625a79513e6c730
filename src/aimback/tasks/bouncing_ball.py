"""A ball that bounces off the ground: how a simulator finds the impact decides which gradient it has."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from aimback.autodiff.dual import value_of
from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_positive, check_whole
from aimback.core.errors import UserError
from aimback.tasks.base import Task
from aimback.tasks.reach import bound_outcomes

Contact = Literal["naive", "time_of_impact"]


class BouncingBall(Task):
    """A ball flies down at constant velocity and bounces once, without friction or loss; how high is it at the end?

    The benchmark is that of Hu et al. ("DiffTaichi", ICLR 2020, on the time of impact), whose numbers are the
    defaults here, but for 203 time steps of 0.002 s: shorter ones make the value nearly exact, so that only the
    gradient is wrong. It has no gravity. The ball turns at a time t and ends at `y0 + v (T - 2 t)`,
    T = steps * time_step. The contact says when it turns:

    - "time_of_impact": when it meets the ground, `t = (y0 - ground) / v`. The end falls by as much as the start
      is raised: the slope is -1, the truth.
    - "naive": at the end of the first time step below the ground, as simulators of fixed steps do (symplectic
      Euler). That time does not change with y0 until it jumps by a whole step, so the slope is +1 wherever there
      is one: right for these lines of code, and wrong for the ball. Against y0 the end is a sawtooth below the
      truth, whose teeth are as long as one step's fall, `v * time_step`, and jump by twice that.

    Of the laws that every task keeps, "naive" therefore keeps two along a tooth only. Between points on different teeth
    the outcome changes against its gradient; and at a tooth's edge float32 may stand on the other side of the jump.
    A tolerance below one step's fall asks for more than it can tell of the ball: what is solved is solved for the ball
    itself, as the time of impact has it. There are no conditions: `conditions` is `(..., 0)`.

    Args:
        height: `[lower, upper]` of y0 in m, above the ground, and so low that the ball is above it again at the end.
        speed: v, downwards, in m/s, positive.
        forward_speed: along the ground, in m/s; it changes what is drawn, not the outcome.
        ground: where the ball turns, in m.
        time_step: in s, positive.
        steps: how many, at least 2.
        contact: "naive" or "time_of_impact".
        tolerance: the miss in m at which a target counts as solved, positive.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self,
        height: Sequence[float] = (0.5, 0.8),
        speed: float = 2.0,
        forward_speed: float = -1.0,
        ground: float = 0.1,
        time_step: float = 1e-4,
        steps: int = 4060,
        contact: Contact = "naive",
        tolerance: float = 0.005,
    ) -> None:
        self.box = Box([make_axis("height", "m", height)])
        self.speed = check_positive("speed", speed)
        self.forward_speed = float(forward_speed)
        self.ground = float(ground)
        self.time_step = check_positive("time_step", time_step)
        check_whole(2, 10_000, steps=steps)
        self.steps = int(steps)
        if contact not in ("naive", "time_of_impact"):
            raise UserError(f"contact: must be 'naive' or 'time_of_impact', got {contact!r}")
        self.contact = contact
        self.tolerance = check_positive("tolerance", tolerance)
        for name in ("forward_speed", "ground"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name}: must be finite, got {getattr(self, name):g}")
        (initial,) = self.box.axes
        highest = self.ground + (self.steps - 1) * self._fall
        if not (self.ground <= initial.lower and initial.upper < highest):
            got = f"got [{initial.lower:g}, {initial.upper:g}]"
            raise UserError(f"height: must lie within [{self.ground:g}, {highest:g}), to bounce in time; {got}")
        self.outcomes = Box([self._span()])

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """The height at the end in m, `(..., 1)`, of `(height,)` in `(..., 1)`."""
        (height,) = controls.unbind(-1)
        return torch.stack([height + self.speed * (self._duration - 2 * self._turn(height))], dim=-1)

    def reach(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest height at the end, `(..., 1)` each."""
        return bound_outcomes(self.outcomes, conditions)

    def finer(self, factor: int) -> "BouncingBall | None":
        """The ball itself, whatever the factor: the limit of ever shorter time steps is known."""
        if self.contact == "time_of_impact":
            return None
        other = copy.copy(self)
        other.contact = "time_of_impact"
        # The teeth lie below the ball's own heights, so they end lower and the ball itself ends higher.
        lowest, highest = self.outcomes.axes[0], other._span()
        other.outcomes = Box([Axis(highest.name, highest.unit, lowest.lower, max(highest.upper, lowest.upper))])
        return other

    def settings_of_accuracy(self) -> Mapping[str, str]:
        """The contact that is exact."""
        return {"contact": "time_of_impact"} if self.contact == "naive" else {}

    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> Tensor:
        """The flight down and up again, `(..., points, 2)`, from x = 0."""
        (height,) = controls.unbind(-1)
        turn = self._turn(height)[..., None]
        time = self._duration * torch.linspace(0, 1, points).to(controls)
        y = height[..., None] - self.speed * (turn - (time - turn).abs())
        return torch.stack([(self.forward_speed * time).expand_as(y), y], dim=-1)

    @property
    def _duration(self) -> float:
        return self.steps * self.time_step

    @property
    def _fall(self) -> float:
        """Of one time step, in m: the length of a tooth."""
        return self.speed * self.time_step

    def _turn(self, height: Any) -> Any:
        """When the ball turns, in s, `(...)`."""
        if self.contact == "time_of_impact":
            return (height - self.ground) / self.speed
        return self.time_step * (torch.floor((value_of(height) - self.ground) / self._fall) + 1)

    def _span(self) -> Axis:
        """All that the box can hit: a higher start ends lower, but for the rise along each tooth."""
        (initial,) = self.box.axes
        ends = torch.tensor([[initial.lower], [initial.upper]], dtype=torch.float64)
        low, high = sorted(self(ends, ends[:, :0])[:, 0].tolist())
        first, last = (math.floor((end - self.ground) / self._fall) for end in (initial.lower, initial.upper))
        if self.contact == "naive" and first < last:
            # The end of the first tooth, which is just missed, and the beginning of the last one.
            high = self.ground + (self.steps - 1 - first) * self._fall
            low = self.ground + (self.steps - 2 - last) * self._fall
        return Axis("final_height", "m", low, high)
