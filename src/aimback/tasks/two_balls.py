"""A pushed ball strikes another: where does that one end, and what did the push cost?"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aimback.autodiff.dual import value_of
from aimback.autodiff.ode import Derivative, Measure, State, integrate_to_crossing
from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_number, check_positive
from aimback.core.errors import UserError
from aimback.tasks.base import Task

_LOOKS = 64  # for the contact, over the duration
_CLOSINGS = 3  # for a contact that nearly misses
_NODES = tuple(0.5 + sign / math.sqrt(12) for sign in (-1, 1))  # of Gauss's rule: exact for the square of a line


class TwoBalls(Task):
    """A force pushes a ball of 1 kg for a while; it strikes a second one, which is to come to the origin.

    The benchmark is the third task of Zhong, Han, Brikis ("Differentiable physics simulations with contacts: do they
    have correct gradients w.r.t. position, velocity and control?", ICML AI4Science workshop 2022), whose numbers are
    the defaults. Its loss is the squared distance of the second ball from the origin at the end, plus `effort` times
    the integral of the squared force. The outcomes are the roots of that: the final position, and the force at the two
    nodes of Gauss's rule, which is exact here, times the root of its weight and of `effort`. So the loss is the squared
    distance of the outcome from nought, all six in m, and the optimal force is the best answer to the target 0: that
    target is out of reach, and its miss is the root of the loss.

    The force is linear in time and ends with the contact, after which it would change nothing but the cost. The optimal
    force of continuous time is of this form (Hu et al., "Solving optimal control of rigid-body dynamics with collisions
    using the hybrid minimum principle", 2022), so its loss, 1.396542, is reached exactly and not up to a
    discretisation: of 480 pieces of constant force, which is the published choice, the best cost 7e-7 more. The motion
    is a cubic, of which a Runge-Kutta step makes no error, and the contact an event of it.

    A ball that passes the other one by leaves it where it is: there the gradient is that of the effort alone, and tells
    nothing of the contact. The effort jumps between the two, for the force goes on where there is no contact; a graze
    of less than a 64th of the duration counts as none. There are no conditions: `conditions` is `(..., 0)`.

    Args:
        force: `[lower, upper]` of the force at the beginning along x and along y in N, the lower bound above 0, so that
            the ball does not rest.
        final_force: of the force that it would have at the end of the duration.
        pushed: where the pushed ball begins, (x, y) in m.
        struck: where the other one lies, not touched by the first.
        radius: of both, in m, positive.
        elasticity: the share of the approaching speed that the contact keeps, from 0 to 1.
        effort: in m^2 / (N^2 s), positive.
        duration: in s, positive.
        tolerance: the miss in m at which a target counts as solved, positive.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self,
        force: Sequence[float] = (1.0, 6.0),
        final_force: Sequence[float] = (0.0, 6.0),
        pushed: Sequence[float] = (-2.0, -2.0),
        struck: Sequence[float] = (-1.0, -1.0),
        radius: float = 0.2,
        elasticity: float = 1.0,
        effort: float = 0.1,
        duration: float = 1.0,
        tolerance: float = 1e-4,
    ) -> None:
        ranges = {"force": force, "final_force": final_force}
        self.box = Box([make_axis(f"{name}_{axis}", "N", ranges[name]) for name in ranges for axis in "xy"])
        check_number("force", self.box.axes[0].lower, above=0)
        self.pushed, self.struck = (_read_point(*given) for given in (("pushed", pushed), ("struck", struck)))
        self.radius = check_positive("radius", radius)
        if math.dist(self.pushed, self.struck) <= 2 * self.radius:
            raise UserError(f"struck: the balls must not touch at the beginning, got {list(self.struck)}")
        check_number("elasticity", elasticity, least=0)
        if elasticity > 1:
            raise UserError(f"elasticity: must be at most 1, got {elasticity:g}")
        self.elasticity = float(elasticity)
        self.effort = check_positive("effort", effort)
        self.duration = check_positive("duration", duration)
        self.tolerance = check_positive("tolerance", tolerance)
        self.outcomes = Box(self._span())

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """The final position and the four roots of the effort in m, `(..., 6)`, of the forces in `(..., 4)`."""
        forces = controls.unbind(-1)
        velocity, contact = self._strike(*forces)
        position = [start + part * (self.duration - contact) for start, part in zip(self.struck, velocity, strict=True)]
        weight = torch.sqrt(contact * (self.effort / 2))
        # Node by node: the force there, the share of the duration that has gone told by the contact.
        efforts = [
            weight * (first + (last - first) * (contact * (node / self.duration)))
            for node in _NODES
            for first, last in zip(forces[:2], forces[2:], strict=True)
        ]
        return torch.stack([*position, *efforts], dim=-1)

    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> Tensor:
        """The path of the ball that is struck, `(..., points, 2)`."""
        velocity, contact = self._strike(*controls.unbind(-1))
        time = self.duration * torch.linspace(0, 1, points).to(controls)
        moved = (time - contact[..., None]).clamp(min=0)
        path = [start + part[..., None] * moved for start, part in zip(self.struck, velocity, strict=True)]
        return torch.stack(path, dim=-1)

    def _strike(self, *forces: Any) -> tuple[tuple[Any, Any], Any]:
        """The velocity that the ball is struck to, and when; nought and the end where it is not struck."""
        nought = torch.zeros_like(value_of(forces[0]))
        (x_struck, y_struck), touching, duration = self.struck, 2 * self.radius, self.duration

        def motion(*forces: Any) -> tuple[Derivative, Measure]:
            slopes = [(last - first) * (1 / duration) for first, last in zip(forces[:2], forces[2:], strict=True)]

            def derivative(state: State) -> State:
                return (*state[2:], *slopes)

            def gap(state: State) -> Any:
                apart = [state[0] - x_struck, state[1] - y_struck]
                return apart[0] * apart[0] + apart[1] * apart[1] - touching**2

            return derivative, gap

        start = [nought + part for part in (*self.pushed, 0.0, 0.0)]
        (x, y, *velocity, _, _), time, missing = integrate_to_crossing(
            motion,
            forces,
            (*start, *forces[:2]),
            steps=1,
            pace=duration / _LOOKS,
            horizon=duration,
            closings=_CLOSINGS,
        )
        normal = [(x_struck - x) * (1 / touching), (y_struck - y) * (1 / touching)]
        impulse = (velocity[0] * normal[0] + velocity[1] * normal[1]) * (0.5 * (1 + self.elasticity))
        hit = missing == 0
        struck_x, struck_y = (torch.where(hit, impulse * part, nought) for part in normal)
        return (struck_x, struck_y), torch.where(hit, time, nought + duration)

    def _span(self) -> list[Axis]:
        """More than all that the box can hit: struck at the worst time and in the worst direction."""
        strongest = max(max(abs(axis.lower), abs(axis.upper)) for axis in self.box.axes)
        furthest = math.sqrt(2) * strongest * self.duration**2 / 4
        most = math.sqrt(self.effort * self.duration / 2) * strongest
        places = [
            Axis(f"final_{name}", "m", at - furthest, at + furthest) for name, at in zip("xy", self.struck, strict=True)
        ]
        return places + [Axis(f"effort_{node}{name}", "m", -most, most) for node in (1, 2) for name in "xy"]


def _read_point(name: str, given: Sequence[float]) -> tuple[float, float]:
    if len(given) != 2:
        raise UserError(f"{name}: give [x, y], got {list(given)}")
    for part in given:
        check_number(name, part)
    return float(given[0]), float(given[1])
