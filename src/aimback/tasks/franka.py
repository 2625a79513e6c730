"""A robot arm in space: where the flange of a Franka Emika Panda is, and how it is turned."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from aimback.autodiff.dual import value_of
from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_number, check_positive
from aimback.tasks.base import Task

# Of each joint, from the base on, in Craig's convention: a in m, d in m, alpha in quarter turns.
LINKS = (
    (0.0, 0.333, 0),
    (0.0, 0.0, -1),
    (0.0, 0.316, 1),
    (0.0825, 0.0, 1),
    (-0.0825, 0.384, -1),
    (0.0, 0.0, 1),
    (0.088, 0.0, 1),
)
FLANGE = 0.107  # m beyond the last joint, along its axis


class Franka(Task):
    """The pose of the flange of a seven-jointed arm, by its joint angles.

    The controls are the angles in rad. The outcomes are the flange's position `(x, y, z)` in m and two columns of its
    rotation matrix, the directions of its x axis and of its z axis: smooth everywhere, as no three or four numbers for
    a rotation are, and the third column is the cross product of these two. There are no conditions: `conditions` is
    `(..., 0)`. The arm has a joint more than a pose has freedoms, so a pose that can be reached at all has a whole
    curve of answers. The data are the maker's: Denavit-Hartenberg parameters and joint limits of the Panda in "Robot
    and interface specifications", https://frankaemika.github.io/docs/control_parameters.html. Links may pass through
    each other and through the floor.

    A target counts as solved in the literature if the position is within 5 mm and the rotation within 0.05 rad (cuRobo,
    Sundaralingam et al. 2023, arXiv:2310.17274; PyRoki, Kim et al. 2025, arXiv:2505.03728). Here each outcome has a
    tolerance of its own, chosen so that who keeps all of them keeps that rule: 5 mm / sqrt(3) for a coordinate, since
    three of them make up the distance; and 2 sin(0.05 rad / 2) / sqrt(6) for an entry, since a rotation by an angle t
    changes the six entries by at least 2 sin(t / 2) in the root of the sum of their squares. So the rule becomes
    2.89 mm a coordinate and 0.0204 an entry, and is the stricter one.

    Args:
        joint1, ..., joint7: `[lower, upper]` of the angles in rad.
        position: how far the flange may be from where it is wanted, in m, positive.
        rotation: how far it may be turned from how it is wanted, in rad, between 0 and pi.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self,
        joint1: Sequence[float] = (-2.8973, 2.8973),
        joint2: Sequence[float] = (-1.7628, 1.7628),
        joint3: Sequence[float] = (-2.8973, 2.8973),
        joint4: Sequence[float] = (-3.0718, -0.0698),
        joint5: Sequence[float] = (-2.8973, 2.8973),
        joint6: Sequence[float] = (-0.0175, 3.7525),
        joint7: Sequence[float] = (-2.8973, 2.8973),
        position: float = 0.005,
        rotation: float = 0.05,
    ) -> None:
        joints = joint1, joint2, joint3, joint4, joint5, joint6, joint7
        self.box = Box([make_axis(f"joint{number}", "rad", bounds) for number, bounds in enumerate(joints, 1)])
        coordinate = check_positive("position", position) / math.sqrt(3)
        check_number("rotation", rotation, above=0.0, below=math.pi)
        entry = 2 * math.sin(rotation / 2) / math.sqrt(6)
        self.tolerance = 1.0
        self.tolerances = [coordinate] * 3 + [entry] * 6
        base, *links = (math.hypot(a, d) for a, d, _ in LINKS)
        length = sum(links) + FLANGE
        heights = {"x": 0.0, "y": 0.0, "z": base}
        self.outcomes = Box(
            [Axis(name, "m", height - length, height + length) for name, height in heights.items()]
            + [Axis(f"{axis}_axis_{name}", "", -1.0, 1.0) for axis in "xz" for name in "xyz"]
        )

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """The position and the directions of the flange's x and z axes, `(..., 9)`, of angles in `(..., 7)`."""
        *_, (flange, along, out) = self._follow(controls)
        return torch.cat([flange, along, out], dim=-1)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The outcome and the geometric Jacobian: what a joint carries turns about its axis.

        Dual numbers give the same by more arithmetic, most of it with zeros, since no joint moves what is before it.
        """
        *joints, (flange, along, out) = self._follow(controls)
        origins, _, axes = (torch.stack(part, dim=-2) for part in zip(*joints, strict=True))
        arms = flange[..., None, :] - origins
        columns = torch.cat([_cross(axes, lever) for lever in (arms, along[..., None, :], out[..., None, :])], dim=-1)
        return torch.cat([flange, along, out], dim=-1), columns.transpose(-1, -2)

    @staticmethod
    def _follow(controls: Any) -> Iterator[tuple[Any, Any, Any]]:
        """The origin, x axis and z axis of every joint's frame and last of the flange's, `(..., 3)` each."""
        x, y, z = torch.eye(3).to(value_of(controls)).expand(*controls.shape[:-1], 3, 3).unbind(-2)
        origin = torch.zeros_like(x)
        for angle, (a, d, quarter) in zip(controls.unbind(-1), LINKS, strict=True):
            y, z = (y, z) if quarter == 0 else (quarter * z, -quarter * y)
            origin = origin + a * x + d * z
            cosine, sine = torch.cos(angle)[..., None], torch.sin(angle)[..., None]
            x, y = cosine * x + sine * y, cosine * y - sine * x
            yield origin, x, z
        yield origin + FLANGE * z, x, z


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """The cross product, `(..., 3)`."""
    (x, y, z), (u, v, w) = a.unbind(-1), b.unbind(-1)
    return torch.stack([y * w - z * v, z * u - x * w, x * v - y * u], dim=-1)
