"""Forward maps over the unit box: outcomes, Jacobians and second derivatives at many points, chunk by chunk."""

from collections.abc import Callable

import torch
from torch import Tensor

from aimback.core.problem import ForwardMap, Linearised
from aimback.diagnose.case import Subject

_CHUNK = 16384  # bounds the memory that a network or a simulator takes
# Unit-box lengths. Noise of 1e-12 in a Jacobian grows to 1e-8; a wave of 1/10 of the box loses (k h)^2 / 6, 7e-6.
_STEP = 1e-4


def outcomes(subject: Subject, forward: ForwardMap, unit: Tensor, conditions: Tensor) -> Tensor:
    """`(n, n_controls)` in the unit box, `(n, n_conditions)` -> `(n, n_outcomes)` in outcome spans, on the CPU."""

    def evaluate(controls: Tensor, given: Tensor) -> tuple[Tensor, ...]:
        return (forward(controls, given),)

    (outcome,) = _in_chunks(subject, evaluate, unit, conditions)
    return outcome / subject.task.outcomes.span


def linearise(subject: Subject, forward: Linearised, unit: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
    """The same with the Jacobian by `unit`, `(n, n_outcomes, n_controls)`, in outcome spans."""
    outcome, jacobian = _in_chunks(subject, forward.linearise, unit, conditions)
    box = subject.task.box
    return outcome / subject.task.outcomes.span, jacobian * ((box.upper - box.lower) / subject.task.outcomes.span)


def second_derivatives(subject: Subject, forward: Linearised, unit: Tensor, conditions: Tensor) -> Tensor:
    """Of each outcome by `unit`, `(n, n_outcomes, n_controls, n_controls)`, symmetric, in outcome spans.

    Central differences of the Jacobian, so that any map with a `linearise` will do; next to a wall they
    are taken around the nearest point that leaves them room.
    """
    count, controls = unit.shape
    centre = unit.clamp(_STEP, 1 - _STEP)
    offsets = _STEP * torch.eye(controls, dtype=unit.dtype)
    around = torch.stack([centre[:, None] + offsets, centre[:, None] - offsets])
    given = conditions.repeat_interleave(controls, 0).repeat(2, 1)
    _, jacobian = linearise(subject, forward, around.flatten(0, 2), given)
    ahead, behind = jacobian.unflatten(0, (2, count, controls))
    bent: Tensor = (ahead - behind).movedim(1, -1) / (2 * _STEP)
    return (bent + bent.mT) / 2


def hessians(
    subject: Subject, forward: Linearised, unit: Tensor, conditions: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the loss, the squared relative miss: 2 (J'J + sum r_k H_k), `(n, n_controls, n_controls)`; and J itself."""
    outcome, jacobian = linearise(subject, forward, unit, conditions)
    residual = outcome - targets / subject.task.outcomes.span
    curved = torch.einsum("nk,nkij->nij", residual, second_derivatives(subject, forward, unit, conditions))
    return 2 * (jacobian.mT @ jacobian + curved), jacobian


@torch.no_grad()
def _in_chunks(
    subject: Subject, evaluate: Callable[[Tensor, Tensor], tuple[Tensor, ...]], unit: Tensor, conditions: Tensor
) -> list[Tensor]:
    controls = subject.task.box.from_unit(unit)
    parts = [
        evaluate(some.to(subject.device), given.to(subject.device))
        for some, given in zip(controls.split(_CHUNK), conditions.split(_CHUNK), strict=True)
    ]
    return [torch.cat(part).to("cpu", torch.float64) for part in zip(*parts, strict=True)]
