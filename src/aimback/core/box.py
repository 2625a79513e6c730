"""Named bounds with units: the only place where controls and conditions are scaled."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.constraints import Constraints
from aimback.core.errors import UserError

_REDRAWS = 100
_SLACK = 1e-6  # box lengths: bounds in float32 are not those in float64


@dataclass(frozen=True)
class Axis:
    """One bounded quantity.

    Args:
        name: what it is called in files, metrics and figures.
        unit: its unit, "" for none.
        lower, upper: its closed range; equal bounds only where `fixed` makes sense (a condition).
    """

    name: str
    unit: str
    lower: float
    upper: float

    @property
    def label(self) -> str:
        """The name with its unit, as a column header or an axis label: "speed [m/s]"."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name


class Box:
    """A closed box in `len(axes)` named dimensions; points are `(..., len(box))`.

    Solvers move in the unit cube, so that one step size means the same on every axis; this class
    is what maps between the two.

    Args:
        axes: one `Axis` a dimension; none at all is allowed (a task without conditions).
        constraints: what else its points keep; None leaves the whole box to them.

    Raises:
        UserError: bounds that are not finite or not in order, or a name used twice.
    """

    def __init__(self, axes: Iterable[Axis], constraints: Constraints | None = None) -> None:
        self.axes: tuple[Axis, ...] = tuple(axes)
        self.constraints = constraints
        for axis in self.axes:
            if not (math.isfinite(axis.lower) and math.isfinite(axis.upper)):
                raise UserError(f"{axis.name}: bounds must be finite, got [{axis.lower}, {axis.upper}]")
            if axis.lower > axis.upper:
                raise UserError(
                    f"{axis.name}: the lower bound must not exceed the upper, got [{axis.lower}, {axis.upper}]"
                )
        names = [axis.name for axis in self.axes]
        if len(set(names)) < len(names):
            raise UserError(f"names must differ, got {names}")
        self.lower = torch.tensor([axis.lower for axis in self.axes], dtype=torch.float64)
        self.upper = torch.tensor([axis.upper for axis in self.axes], dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.axes)

    def __repr__(self) -> str:
        inside = ", ".join(f"{axis.label} in [{axis.lower:g}, {axis.upper:g}]" for axis in self.axes)
        return f"Box({inside})"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper corner, `(len(box),)`, in the dtype and on the device of `like`."""
        return self.lower.to(like), self.upper.to(like)

    def to_unit(self, points: Tensor) -> Tensor:
        """Box coordinates to unit-cube coordinates; an axis of width zero maps to 0."""
        lower, upper = self.bounds(points)
        width = upper - lower
        return (points - lower) / torch.where(width > 0, width, torch.ones_like(width))

    def from_unit(self, unit: Tensor) -> Tensor:
        """Unit-cube coordinates to box coordinates; 0 and 1 give the bounds to the bit, others may lie outside."""
        lower, upper = self.bounds(unit)
        return torch.where(unit == 1, upper, torch.lerp(lower, upper, unit))

    def keep_inside(self, unit: Tensor) -> Tensor:
        """Unit-cube coordinates, moved to the nearest point of the box that keeps its constraints."""
        return unit.clamp(0, 1) if self.constraints is None else self.constraints.project(unit)

    def shrink(self, margin: float) -> "Box":
        """Cut off a share of each width, in [0, 0.5), at either end."""
        constraints = None if self.constraints is None else self.constraints.shrink(margin)
        axes = [(axis, margin * (axis.upper - axis.lower)) for axis in self.axes]
        return Box([Axis(axis.name, axis.unit, axis.lower + off, axis.upper - off) for axis, off in axes], constraints)

    def contains(self, points: Tensor) -> Tensor:
        """Which points lie in the closed box, `(...)`; a NaN does not."""
        lower, upper = self.bounds(points)
        return ((points >= lower) & (points <= upper)).all(-1) & ~self._breaks(points)

    def is_outside(self, points: Tensor) -> Tensor:
        """Which points lie outside by more than rounding, `(...)`; a NaN does not."""
        return ((self.to_unit(points) - 0.5).abs() > 0.5 + _SLACK).any(-1) | self._breaks(points)

    def _breaks(self, points: Tensor) -> Tensor:
        """Which points break a constraint by more than rounding, `(...)`."""
        if self.constraints is None:
            return torch.zeros(points.shape[:-1], dtype=torch.bool, device=points.device)
        return self.constraints.measure_excess(self.to_unit(points)) > _SLACK

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` uniform points, `(count, len(box))`, float64 on the CPU, so that every device
        starts from the same ones.

        Points that break a constraint are drawn again; what still does so after many draws is moved to the nearest
        point that keeps them.
        """
        unit = torch.rand(count, len(self), generator=generator, dtype=torch.float64)
        if self.constraints is not None:
            for _ in range(_REDRAWS):
                broken = self.constraints.measure_excess(unit) > 0
                unit[broken] = torch.rand(int(broken.sum()), len(self), generator=generator, dtype=torch.float64)
            unit = self.constraints.project(unit)
        return self.from_unit(unit)


def make_axis(name: str, unit: str, bounds: Sequence[float], *, fixed: bool = False) -> Axis:
    """Make an `Axis` of a `[lower, upper]` pair from a config file.

    Args:
        fixed: whether the bounds may be equal (a condition that does not vary; never a control).

    Raises:
        UserError: not two numbers, or bounds out of order.
    """
    if len(bounds) != 2:
        raise UserError(f"{name}: give [lower, upper], got {list(bounds)}")
    lower, upper = (float(bound) for bound in bounds)
    if not fixed and not lower < upper:
        raise UserError(f"{name}: the lower bound must be below the upper, got [{lower:g}, {upper:g}]")
    return Axis(name, unit, lower, upper)
