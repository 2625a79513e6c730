"""How uncertain an answer is, where the target was measured: from the simulator's derivatives at the answer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.data.dataset import CHUNK
from aimback.tasks.base import Task

# A direction in the unit cube has a component along a control only where it is greater than this: below it the
# derivatives, which may come of differences, are not exact enough to tell it from none.
_NOISE = 1e-4
# The standard deviation of what is known of a control by its range alone: of an even distribution, in box lengths.
_OF_THE_BOX = 12**-0.5


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainty of answers, one row an answer.

    Attributes:
        deviations: the standard deviation of each control, in its unit, `(n, n_controls)`; NaN where the simulator has
            no finite derivatives.
        undetermined: the controls of which the target tells no more than their ranges do, `(n, n_controls)`. Their
            deviation by the target alone is greater, and infinite where it does not depend on them at all.
    """

    deviations: Tensor
    undetermined: Tensor


def propagate(task: Task, controls: Tensor, conditions: Tensor) -> Uncertainty | None:
    """Propagate the standard deviations of measured targets to the controls that answer them.

    To first order the covariance of the controls is the pseudo-inverse of `J' diag(1 / sigma^2) J`, with the Jacobian J
    of the outcomes by the controls (Tarantola 2005, "Inverse Problem Theory", chapter 3); it is computed in the unit
    cube, by the singular values of `J / sigma`. In a direction without a singular value the outcomes determine
    nothing, and the deviation is infinite instead of the 0 of the pseudo-inverse. A control is known to lie in its
    range, so no deviation is given as more than that of an even distribution over it, length / sqrt(12).

    Args:
        controls, conditions: of the answers, `(n, ...)`, float64 on the CPU.

    Returns:
        None where the task has no `sigmas`.
    """
    if task.sigmas is None:
        return None
    if len(controls) == 0:
        return Uncertainty(controls, torch.zeros_like(controls, dtype=torch.bool))
    rows = zip(controls.split(CHUNK), conditions.split(CHUNK), strict=True)
    jacobian = torch.cat([task.linearise(*pair)[1].detach() for pair in rows])
    length = (task.box.upper - task.box.lower).to(jacobian)
    scaled = jacobian * length / torch.tensor(task.sigmas, dtype=torch.float64).to(jacobian)[:, None]
    finite = scaled.isfinite().all(-1).all(-1)
    _, values, directions = torch.linalg.svd(scaled[finite], full_matrices=True)
    # There are as many directions as controls; beyond the singular values the outcomes do not change at all.
    values = torch.nn.functional.pad(values, (0, len(task.box) - values.shape[-1]))
    parts = torch.where(directions.abs() > _NOISE, directions / values[:, :, None], 0.0)
    by_target = torch.full_like(controls, torch.nan)
    by_target[finite] = parts.square().sum(-2).sqrt()
    return Uncertainty(by_target.clamp(max=_OF_THE_BOX) * length, by_target >= _OF_THE_BOX)
