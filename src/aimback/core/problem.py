"""The question, the answer and the verdict: the small types every route and solver shares."""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

from aimback.core.box import Box
from aimback.core.distance import Distance
from aimback.core.errors import UserError


class ForwardMap(Protocol):
    """Any differentiable map from controls to an outcome: a simulator or a trained network.

    An outcome of NaN says that the arithmetic failed, an infinite one that the event which ends
    the simulation never came.
    """

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """`(..., n_controls)`, `(..., n_conditions)` -> `(..., n_outcomes)`."""
        ...


class Linearised(ForwardMap, Protocol):
    """A forward map that gives its value and its Jacobian in one pass, cheaper than autograd."""

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """-> outcome `(..., n_outcomes)`, Jacobian by the controls `(..., n_outcomes, n_controls)`."""
        ...


class StartStatus(IntEnum):
    """How one start stopped, by the route's own forward map."""

    ARRIVED = 0
    STALLED = 1
    STEP_LIMIT = 2
    NO_EVENT = 3
    NOT_FINITE = 4
    NOT_BEGUN = 5


class Status(IntEnum):
    """What became of a target, decided by re-simulating its best answer; where there is no simulator, by what its route
    believes."""

    SOLVED = 0
    MISSED = 1
    UNREACHABLE = 2
    STALLED = 3
    STEP_LIMIT = 4
    NO_EVENT = 5
    NOT_FINITE = 6
    INVALID_INPUT = 7
    BELIEVED = 8


# What becomes of a target that is not hit, by how its best start has stopped.
UNLESS_HIT = {
    StartStatus.ARRIVED: Status.MISSED,
    StartStatus.STALLED: Status.STALLED,
    StartStatus.STEP_LIMIT: Status.STEP_LIMIT,
    StartStatus.NO_EVENT: Status.NO_EVENT,
    StartStatus.NOT_FINITE: Status.NOT_FINITE,
    StartStatus.NOT_BEGUN: Status.STEP_LIMIT,
}


@dataclass(frozen=True)
class InverseProblem:
    """Which controls inside `box` give the `targets` under the `conditions`?

    Args:
        targets: wanted outcomes, `(n_targets, n_outcomes)`, finite.
        conditions: what is given, `(n_targets, n_conditions)`, finite, same dtype and device.
        box: bounds of the controls.
        distance: what is a hit, and how far from one an outcome is; it has as many tolerances as there are outcomes.
        starts: initial guesses, `(n_targets, n_starts, n_controls)`, in the unit cube that stands for the box.
            They may lie outside; where a solver keeps to the box, it begins at the nearest wall.

    Raises:
        UserError: shapes, dtypes or devices that do not fit, or values that are not finite.
    """

    targets: Tensor
    conditions: Tensor
    box: Box
    distance: Distance
    starts: Tensor

    def __post_init__(self) -> None:
        targets, conditions = self.targets, self.conditions
        if targets.ndim != 2 or conditions.ndim != 2 or len(targets) != len(conditions):
            raise UserError(
                "targets and conditions must be (n_targets, n_outcomes) and (n_targets, n_conditions), "
                f"got {tuple(targets.shape)} and {tuple(conditions.shape)}"
            )
        if targets.dtype != conditions.dtype or targets.device != conditions.device:
            raise UserError(
                f"targets are {targets.dtype} on {targets.device}, conditions {conditions.dtype} on "
                f"{conditions.device}; they must agree"
            )
        if not targets.is_floating_point():
            raise UserError(f"targets must be floating point, got {targets.dtype}")
        if not (_is_finite(targets) and _is_finite(conditions)):
            raise UserError("targets and conditions must be finite; leave invalid rows out")
        if len(self.box) == 0:
            raise UserError("there is no control to solve for")
        if len(self.distance.tolerances) != targets.shape[1]:
            raise UserError(
                f"there must be a tolerance for each of the {targets.shape[1]} outcomes, got {self.distance.tolerances}"
            )
        shape, expected = tuple(self.starts.shape), (len(targets), len(self.box))
        if len(shape) != 3 or (shape[0], shape[2]) != expected or shape[1] == 0:
            raise UserError(
                f"starts must be (n_targets, n_starts, n_controls) for {expected[0]} targets and {expected[1]} "
                f"controls, got {shape}"
            )
        if not _is_finite(self.starts):
            raise UserError("starts must be finite")


def _is_finite(numbers: Tensor) -> bool:
    """Whether all of them are; their sum tells it in one pass, unless it overflows."""
    return math.isfinite(numbers.sum().item()) or bool(torch.isfinite(numbers).all())


@dataclass(frozen=True)
class History:
    """Where the starts of the first few targets went.

    Attributes:
        controls: `(n_steps + 1, n_kept, n_starts, n_controls)`, the start itself first; a start that
            has stopped stays where it is.
        believed_miss: `(n_steps + 1, n_kept, n_starts)`, as in `Solution`.
    """

    controls: Tensor
    believed_miss: Tensor


@dataclass(frozen=True)
class Solution:
    """What every start of every target came to, by the route's own forward map.

    Attributes:
        controls: `(n_targets, n_starts, n_controls)`, inside the box, unless the solver's walls are soft.
        believed_miss: `(n_targets, n_starts)`, the miss there by `Distance`, in its unit.
        start_status: `(n_targets, n_starts)`, int8 codes of `StartStatus`.
        steps: `(n_targets, n_starts)`, solver steps taken.
        steps_to_tolerance: `(n_targets, n_starts)`, the first step at which the believed miss was
            within the tolerance; -1 where it never was.
        history: paths of the first few targets.
        costs: `(n_targets, n_starts)`, what the answers that the route believes to hit cost their user, and infinity
            for all others; None where there is no preference among them.
    """

    controls: Tensor
    believed_miss: Tensor
    start_status: Tensor
    steps: Tensor
    steps_to_tolerance: Tensor
    history: History
    costs: Tensor | None = None

    def of(self, rows: Tensor) -> "Solution":
        """The answers to some of the targets, by number, `(n,)`; a number may come again.

        Paths are kept of the first of them: no number may be further back than all that come before it are many.
        """
        kept = self.history.controls.shape[1]
        first = rows[:kept]
        return Solution(
            self.controls[rows],
            self.believed_miss[rows],
            self.start_status[rows],
            self.steps[rows],
            self.steps_to_tolerance[rows],
            History(self.history.controls[:, first], self.history.believed_miss[:, first]),
            None if self.costs is None else self.costs[rows],
        )

    def ranking(self) -> Tensor:
        """The starts of each target from best to worst, `(n_targets, n_starts)`.

        By cost, where there is a preference: then all that are believed to hit come first. The others, and all
        without a preference, by believed miss; NaN comes last, and equal misses keep the order of the starts.
        """
        order = self.believed_miss.nan_to_num(nan=torch.inf).argsort(dim=-1, stable=True)
        if self.costs is None:
            return order
        return order.gather(-1, self.costs.gather(-1, order).argsort(dim=-1, stable=True))

    def best(self) -> Tensor:
        """The start of each target that is ranked first, `(n_targets,)`."""
        if self.costs is None:  # without sorting the others
            return self.believed_miss.nan_to_num(nan=torch.inf).argmin(dim=-1)
        return self.ranking()[:, 0]
