"""Forward maps over the unit box: outcomes, Jacobians and second derivatives at many points, chunk by chunk."""

from collections.abc import Callable

import torch
from torch import Tensor

from aimback.core.problem import ForwardMap, Linearised
from aimback.diagnose.case import Case

# Rows, and numbers of their Jacobians: these bound the memory that a network or a simulator takes.
_CHUNK, _DERIVATIVES = 16_384, 4_194_304
# Unit-box lengths. Noise of 1e-12 in a Jacobian grows to 1e-8; a wave of 1/10 of the box loses (k h)^2 / 6, 7e-6.
_STEP = 1e-4


def compute_outcomes(case: Case, forward: ForwardMap, unit: Tensor, conditions: Tensor) -> Tensor:
    """`(n, n_controls)` in the unit box, `(n, n_conditions)` -> `(n, n_outcomes)` over the scales, on the CPU."""

    def evaluate(controls: Tensor, given: Tensor) -> tuple[Tensor, ...]:
        return (forward(controls, given),)

    (outcome,) = _in_chunks(case, evaluate, unit, conditions)
    return outcome / case.task.distance.scales


def compute_jacobians(case: Case, forward: Linearised, unit: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
    """The same with the Jacobian by `unit`, `(n, n_outcomes, n_controls)`."""
    outcome, jacobian = _in_chunks(case, forward.linearise, unit, conditions)
    box, scales = case.task.box, case.task.distance.scales
    return outcome / scales, jacobian * ((box.upper - box.lower) / scales[:, None])


def compare_gradients(learned: Tensor, true: Tensor) -> Tensor:
    """The cosine between Jacobians `(n, n_outcomes, n_controls)`, all outcomes together, `(n,)`; NaN where one is zero
    or not finite."""
    sizes = torch.linalg.matrix_norm(learned) * torch.linalg.matrix_norm(true)
    cosine: Tensor = (learned * true).sum((-2, -1)) / sizes
    return cosine


def compute_second_derivatives(case: Case, forward: Linearised, unit: Tensor, conditions: Tensor) -> Tensor:
    """Of each outcome by `unit`, `(n, n_outcomes, n_controls, n_controls)`, symmetric, over the scales.

    Central differences of the Jacobian, so that any map with a `linearise` will do; next to a wall they
    are taken around the nearest point that leaves them room.
    """
    count, controls = unit.shape
    centre = unit.clamp(_STEP, 1 - _STEP)
    offsets = _STEP * torch.eye(controls, dtype=unit.dtype)
    around = torch.stack([centre[:, None] + offsets, centre[:, None] - offsets])
    given = conditions.repeat_interleave(controls, 0).repeat(2, 1)
    _, jacobian = compute_jacobians(case, forward, around.flatten(0, 2), given)
    ahead, behind = jacobian.unflatten(0, (2, count, controls))
    bent: Tensor = (ahead - behind).movedim(1, -1) / (2 * _STEP)
    return (bent + bent.mT) / 2


def compute_hessians(
    case: Case, forward: Linearised, unit: Tensor, conditions: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the loss, the sum of squared residuals: 2 (J'J + sum r_k H_k), `(n, n_controls, n_controls)`; and J itself."""
    hessians, jacobians = [], []
    size = max(1, _DERIVATIVES // (len(case.task.outcomes) * unit.shape[1] ** 2))
    for some, given, wanted in zip(unit.split(size), conditions.split(size), targets.split(size), strict=True):
        outcome, jacobian = compute_jacobians(case, forward, some, given)
        residual = outcome - wanted / case.task.distance.scales
        curved = torch.einsum("nk,nkij->nij", residual, compute_second_derivatives(case, forward, some, given))
        hessians.append(2 * (jacobian.mT @ jacobian + curved))
        jacobians.append(jacobian)
    return torch.cat(hessians), torch.cat(jacobians)


@torch.no_grad()
def _in_chunks(
    case: Case, evaluate: Callable[[Tensor, Tensor], tuple[Tensor, ...]], unit: Tensor, conditions: Tensor
) -> list[Tensor]:
    controls = case.task.box.from_unit(unit)
    size = max(1, min(_CHUNK, _DERIVATIVES // (len(case.task.outcomes) * controls.shape[1])))
    parts = [
        evaluate(some.to(case.device), given.to(case.device))
        for some, given in zip(controls.split(size), conditions.split(size), strict=True)
    ]
    return [torch.cat(part).to("cpu", torch.float64) for part in zip(*parts, strict=True)]
