"""A network that answers at once: which controls give this target?"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from aimback.learn.perceptron import Perceptron
from aimback.settings.learning import Architecture
from aimback.tasks.base import Task

# Of the box's width, beyond either wall: a bound is reached at a finite output of the last layer.
_OVERHANG = 0.1


class Proposer(Perceptron):
    """The inverse of a simulator as a network: `(targets, conditions) -> controls`, raw units on both sides.

    Inputs are scaled by the ranges of the task's outcomes and conditions. The controls lie in the closed box,
    its walls included: where many controls give a target the extreme ones are often the answer that varies least.
    One answer a target: which of them, the training has settled.

    Args:
        task: whose box, conditions and outcomes give the network its inputs and outputs.
        architecture: its hidden layers.
    """

    def __init__(self, task: Task, architecture: Architecture) -> None:
        outcomes, conditions = task.outcomes, task.conditions
        lower = torch.cat([outcomes.lower, conditions.lower])
        upper = torch.cat([outcomes.upper, conditions.upper])
        super().__init__(lower, upper, len(task.box), architecture)
        self.box = task.box

    @classmethod
    def blank(cls, task: Task, architecture: Architecture, tensors: Collection[str]) -> "Proposer":
        return cls(task, architecture)

    def forward(self, targets: Tensor, conditions: Tensor) -> Tensor:
        """`(..., n_outcomes)`, `(..., n_conditions)` -> controls in the closed box, `(..., n_controls)`."""
        (unit,) = self.in_tiles(lambda *parts: (self.unit(self.standardise_inputs(*parts)),), targets, conditions)
        return self.box.from_unit(unit)

    def unit(self, inputs: Tensor) -> Tensor:
        """Standardised inputs `(n, n_inputs)` -> controls in the closed unit cube, `(n, n_controls)`."""
        wide = (1 + 2 * _OVERHANG) * torch.sigmoid(self.layers(inputs)) - _OVERHANG
        held: Tensor = _Held.apply(wide)  # type: ignore[no-untyped-call]
        return held


class _Held(torch.autograd.Function):
    """Clamped to [0, 1]; backwards the identity, but where descent would lead further out.

    The gradient of a plain clamp vanishes outside, whichever way descent would lead, so that a control that was
    once beyond a wall would stay there.
    """

    @staticmethod
    def forward(context: Any, wide: Tensor) -> Tensor:
        context.save_for_backward(wide)
        return wide.clamp(0, 1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (wide,) = context.saved_tensors
        outward = ((wide < 0) & (gradient > 0)) | ((wide > 1) & (gradient < 0))
        return torch.where(outward, 0.0, gradient)
