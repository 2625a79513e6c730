"""Levenberg-Marquardt over the weights of a small network: few steps, each of all examples at once."""

import math
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from aimback.core.errors import UserError
from aimback.learn.surrogate import layer_by_layer

# J'J, its Cholesky factor and a copy are the square of this in float64: 200 MB each.
MOST_WEIGHTS = 5000
_FIRST_GROWTH = 2.0
# Of a Jacobian at a time. Larger portions are no faster, being too large for the cache.
_NUMBERS_A_PORTION = 2**20


class DampedLeastSquares(torch.optim.Optimizer):
    """The method of Levenberg (1944) and Marquardt (1963); for networks, Hagan and Menhaj (1994).

    A step d of the weights w minimises mean |r + J d|^2 + weight_decay / 2 |w + d|^2 + damping |d|^2 with the
    residuals r = network - outcome of all examples and their Jacobian J by the weights. The damping is
    raised until the step lowers mean |r|^2 + weight_decay / 2 |w|^2, and eased by the ratio of the decrease
    that came to the decrease that the model promised (Nielsen 1999, IMM-REP-1999-05).

    A step costs 2 n n_weights^2 + n_weights^3 / 3 operations for n residuals; J passes in portions, so the memory
    is that of three matrices `(n_weights, n_weights)`. For smooth networks of some hundred weights, whose error it
    brings to a fraction of what first-order methods reach in the same time. Not for wide networks.

    J is computed in the network's dtype, J'J added up and solved in float64. float32 goes the way of float64, in
    half the time, until the residuals are some 3e-4 of the outcome's standard deviation, and is slower below.

    Args:
        layers: `nn.Linear` and activations in turn, as in a `Surrogate`. No layer may mix examples.
        learning_rate: the reciprocal of the first damping.
        weight_decay: as in `torch.optim.Adam`: its half times |w|^2 is added to the mean squared error.

    Attributes:
        learning_rate: the reciprocal of the damping in the step taken last.
        stalled: whether no step that still moves a weight lowered the loss; the weights are then untouched.

    Raises:
        UserError: more than `MOST_WEIGHTS` weights.
    """

    def __init__(self, layers: nn.Sequential, learning_rate: float, weight_decay: float = 0.0) -> None:
        self.layers = layers
        self.learning_rate = learning_rate
        self.stalled = False
        count = sum(weight.numel() for weight in layers.parameters())
        if count > MOST_WEIGHTS:
            raise UserError(
                f"training.optimizer: levenberg_marquardt solves for all weights at once and allows {MOST_WEIGHTS:,} "
                f"of them, got {count:,}; lower surrogate.hidden_width or surrogate.hidden_layers"
            )
        # In the group, because that is what a checkpoint keeps.
        state = {"damping": 1 / learning_rate, "growth": _FIRST_GROWTH, "weight_decay": weight_decay}
        super().__init__(layers.parameters(), state)

    @torch.no_grad()
    def step(self, closure: Any = None, *, inputs: Tensor, outcomes: Tensor) -> Tensor:  # type: ignore[override]
        """Move the weights once.

        Args:
            closure: not used; Lightning hands one to every optimizer.
            inputs, outcomes: all examples, standardised; `(n, n_inputs)`, `(n, n_outcomes)`.

        Returns:
            The mean squared error before the step, float64.
        """
        group = self.param_groups[0]
        weights = parameters_to_vector(group["params"]).double()
        decay = group["weight_decay"] / 2
        error, slope, curvature = self._normal_equations(inputs, outcomes)
        loss = error + decay * weights.square().sum()
        slope += decay * weights
        curvature.diagonal().add_(decay)
        better = self.stalled = False
        while not (better or self.stalled):
            damping = group["damping"]
            self.learning_rate = 1 / damping
            damped = curvature.clone()
            damped.diagonal().add_(damping)
            # Where rounding has left the matrix indefinite this is no factor, and the loss refuses the step.
            factor, _ = torch.linalg.cholesky_ex(damped)
            move = -torch.cholesky_solve(slope[:, None], factor)[:, 0]
            moved = self._set(weights + move)
            trial = self._mean_squared_error(inputs, outcomes) + decay * moved.square().sum()
            better = bool(trial < loss)
            if better:
                gain = ((trial - loss) / (move @ (2 * slope + curvature @ move))).clamp(0, 1).item()
                group["damping"] = max(sys.float_info.min, damping * min(2, max(0.1, 1 - (2 * gain - 1) ** 3)))
                group["growth"] = _FIRST_GROWTH
            else:
                self.stalled = torch.equal(moved, weights) or math.isinf(damping)
                group["damping"] = damping * group["growth"]
                group["growth"] *= 2
        if self.stalled:
            self._set(weights)
        return error

    def _normal_equations(self, inputs: Tensor, outcomes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means over the residuals: r^2 `()`, J'r `(n_weights,)`, J'J `(n_weights, n_weights)`."""
        sums = [torch.zeros((), dtype=torch.float64, device=inputs.device)] * 3
        for some, wanted in self._portions(inputs, outcomes):
            outcome, jacobian = weight_jacobian(self.layers, some)
            residual = (outcome - wanted).flatten()
            jacobian = jacobian.flatten(0, 1)
            parts = (residual.double().square().sum(), jacobian.T @ residual, jacobian.T @ jacobian)
            sums = [total + part for total, part in zip(sums, parts, strict=True)]
        error, slope, curvature = (total / outcomes.numel() for total in sums)
        return error, slope, curvature

    def _mean_squared_error(self, inputs: Tensor, outcomes: Tensor) -> Tensor:
        squares = [
            (self.layers(some) - wanted).double().square().sum() for some, wanted in self._portions(inputs, outcomes)
        ]
        return torch.stack(squares).sum() / outcomes.numel()

    def _portions(self, inputs: Tensor, outcomes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        numbers_a_row = outcomes.shape[1] * sum(weight.numel() for weight in self.layers.parameters())
        rows = max(1, _NUMBERS_A_PORTION // numbers_a_row)
        return zip(inputs.split(rows), outcomes.split(rows), strict=True)

    def _set(self, weights: Tensor) -> Tensor:
        """Put one vector in the weights' places; what is left of it in their dtype, as float64."""
        params = self.param_groups[0]["params"]
        for param, part in zip(params, weights.split([param.numel() for param in params]), strict=True):
            param.copy_(part.view_as(param))
        return parameters_to_vector(params).double()


def weight_jacobian(layers: nn.Sequential, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Outcome `(n, n_outcomes)` and its Jacobian by all weights `(n, n_outcomes, n_weights)`, in their order.

    Backwards through the layers, an example at a time in effect: the derivative by a linear layer's weights is
    the outer product of that by its result and of what it sees (Hagan and Menhaj 1994). Written out, because
    `torch.func.vmap` of `jacrev` takes longer for the same numbers.
    """
    outcome, seen, slopes = layer_by_layer(layers, inputs)
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    back = torch.eye(outcome.shape[1]).to(outcome).expand(len(inputs), -1, -1)
    parts = [_outer(back, seen[-1])]
    for layer, slope, before in zip(linear[:0:-1], slopes[::-1], seen[-2::-1], strict=True):
        back = (back @ layer.weight) * slope[:, None, :]
        parts.append(_outer(back, before))
    return outcome, torch.cat(parts[::-1], dim=-1)


def _outer(back: Tensor, seen: Tensor) -> Tensor:
    """By weight `(width, inputs)` and bias `(width,)` of one layer, joined; `(n, n_outcomes, ...)`."""
    return torch.cat([(back[..., None] * seen[:, None, None, :]).flatten(2), back], dim=-1)
