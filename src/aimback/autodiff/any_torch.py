"""Values and Jacobians of maps in any torch code, by torch's own differentiation.

Dual numbers (`aimback.autodiff.dual`) take one pass for all controls, and know the operations of most equations. What
they do not know, complex numbers or linear algebra, torch differentiates by itself.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aimback.core.errors import UserError, is_out_of_memory

Map = Callable[[Tensor, Tensor], Tensor]
Linearise = Callable[[Map, Tensor, Tensor], tuple[Tensor, Tensor]]

# Reverse mode took two to four evaluations an outcome, forward mode 20 to 60 in all for up to seven controls.
_MANY_OUTCOMES = 16


def linearise_by_jvp(forward: Map, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
    """Value and Jacobian by forward mode, all controls in one pass (`torch.func.vmap` of `torch.func.jvp`).

    Args:
        controls: `(..., n_controls)`; conditions: `(..., n_conditions)`. Rows must not depend on each other.

    Returns:
        The outcome `(..., n_outcomes)` and its Jacobian `(..., n_outcomes, n_controls)`.
    """

    def push_forward(direction: Tensor) -> Any:
        return torch.func.jvp(lambda points: forward(points, conditions), (controls,), (direction.expand_as(controls),))

    units = torch.eye(controls.shape[-1], dtype=controls.dtype, device=controls.device)
    outcomes, columns = torch.func.vmap(push_forward)(units)
    return outcomes[0], columns.movedim(0, -1)


def linearise_by_autograd(forward: Map, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
    """The same by reverse mode, one backward pass an outcome."""
    with torch.enable_grad():
        leaf = controls.detach().requires_grad_()
        outcome = forward(leaf, conditions)
        rows = [torch.autograd.grad(component.sum(), leaf, retain_graph=True)[0] for component in outcome.unbind(-1)]
    return outcome.detach(), torch.stack(rows, dim=-2)


def choose_mode(forward: Map, controls: Tensor, conditions: Tensor) -> Linearise:
    """The mode that works at some points; if both do, the one that is faster for this number of outcomes.

    Raises:
        UserError: neither does. What the map raises by itself is raised as it is.
    """
    many = forward(controls, conditions).shape[-1] > _MANY_OUTCOMES
    reasons = {}
    for mode in (linearise_by_jvp, linearise_by_autograd) if many else (linearise_by_autograd, linearise_by_jvp):
        try:
            with warnings.catch_warnings():
                # torch loads its rules of forward mode by means that it has itself deprecated.
                warnings.simplefilter("ignore", DeprecationWarning)
                mode(forward, controls, conditions)
        except Exception as error:  # whatever torch raises, the other mode may do without
            if is_out_of_memory(error):
                raise
            reasons[mode] = str(error).strip().partition("\n")[0]
        else:
            return mode
    raise UserError(
        f"{type(forward).__name__}: torch cannot differentiate it, neither forwards ({reasons[linearise_by_jvp]}) nor "
        f"backwards ({reasons[linearise_by_autograd]}); solver=cma_es does without derivatives"
    )
