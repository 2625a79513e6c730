"""What a solver sees of a start: scaled numbers in the unit cube, and nothing of the world."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from aimback.core.box import Box
from aimback.core.problem import Linearised
from aimback.solve.rowwise import dot, greatest, total


@dataclass(frozen=True)
class Point:
    """A batch of starts at one step; row by row independent.

    Attributes:
        unit: controls in the unit cube, `(rows, n_controls)`.
        residual: (outcome - target) / scales, `(rows, n_outcomes)`.
        jacobian: of the residual by `unit`, `(rows, n_outcomes, n_controls)`.
        boundary: None where the box has walls. Else a start may leave it, and each box length that it
            is outside costs so much on top of the sum of squared residuals (0: nothing holds it back).
    """

    unit: Tensor
    residual: Tensor
    jacobian: Tensor
    boundary: float | None = None

    @cached_property
    def miss(self) -> Tensor:
        """The relative miss, `(rows,)`."""
        return compute_miss(self.residual)

    @cached_property
    def arrival(self) -> Tensor:
        """What tells an arrival: the relative miss, and what soft walls add to it, `(rows,)`."""
        if self.boundary is None:
            return self.miss
        return (greatest(self.residual.square()) + self.boundary * total(self._outside)).sqrt()

    @cached_property
    def loss(self) -> Tensor:
        """What is descended: the sum of squared residuals, and what soft walls add to it, `(rows,)`."""
        loss = total(self.residual.square())
        return loss if self.boundary is None else loss + self.boundary * total(self._outside)

    @cached_property
    def gradient(self) -> Tensor:
        """Of the loss by `unit`, `(rows, n_controls)`."""
        gradient = 2 * dot(self.residual[:, :, None], self.jacobian, 1)
        if self.boundary is None:
            return gradient
        return gradient + self.boundary * torch.where(self._outside > 0, torch.sign(self.unit - 0.5), 0.0)

    @property
    def _outside(self) -> Tensor:
        """How far each control is outside the box, in box lengths, `(rows, n_controls)`."""
        return ((self.unit - 0.5).abs() - 0.5).clamp(min=0)

    def keep_inside(self, unit: Tensor) -> Tensor:
        """A proposed position, moved back into the box where that has walls."""
        return unit.clamp(0, 1) if self.boundary is None else unit

    @cached_property
    def downhill(self) -> Tensor:
        """The gradient without the components whose descent would go through a wall, `(rows, n_controls)`.

        It vanishes at every local minimum over the closed box (the first-order condition)."""
        gradient = self.gradient
        if self.boundary is not None:
            return gradient
        leaves = ((self.unit <= 0) & (gradient > 0)) | ((self.unit >= 1) & (gradient < 0))
        return torch.where(leaves, 0.0, gradient)

    @cached_property
    def finite(self) -> Tensor:
        """Rows whose value and derivatives are all numbers, `(rows,)`."""
        # Nought times what is finite is nought, and a sum of noughts is.
        nought = total(0 * self.residual) + total(total(0 * self.jacobian))
        return nought == 0

    def __getitem__(self, rows: Tensor) -> "Point":
        return Point(self.unit[rows], self.residual[rows], self.jacobian[rows], self.boundary)


def compute_miss(residual: Tensor) -> Tensor:
    """The relative miss of residuals, `(..., n_outcomes)` -> `(...)`: that of `Distance`, over its span.

    With one outcome it is the root of the loss to the last bit, and so it is computed as one.
    """
    return greatest(residual.square()).sqrt()


def is_better(within: Tensor, arrived: Tensor, merit: Tensor, best: Tensor) -> Tensor:
    """Whether a place is better than the best one so far: the loss decides, but never against an arrival.

    With several outcomes a lower loss may come with one of them beyond its tolerance.

    Args:
        within: whether the place is within the tolerance; arrived: whether the best one is.
        merit, best: the roots of the losses of both.
    """
    return (within & ~arrived) | ((within | ~arrived) & (merit < best))


def where(condition: Tensor, a: Point, b: Point) -> Point:
    """Row by row, `a` where the condition `(rows,)` holds, else `b`."""
    return Point(
        torch.where(condition[:, None], a.unit, b.unit),
        torch.where(condition[:, None], a.residual, b.residual),
        torch.where(condition[:, None, None], a.jacobian, b.jacobian),
        a.boundary,
    )


def evaluate_point(
    forward: Linearised,
    box: Box,
    unit: Tensor,
    conditions: Tensor,
    targets: Tensor,
    scales: Tensor,
    boundary: float | None = None,
) -> Point:
    """The forward map and its Jacobian at unit-cube coordinates, scaled.

    Args:
        scales: what the differences of each outcome are divided by, `(n_outcomes,)`.
    """
    lower, upper = box.bounds(unit)
    scales = scales.to(unit)
    outcome, jacobian = forward.linearise(box.from_unit(unit), conditions)
    return Point(unit, (outcome - targets) / scales, jacobian * ((upper - lower) / scales[:, None]), boundary)
