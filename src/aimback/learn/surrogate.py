"""A trained network as a forward map: the simulator's place taken by a multilayer perceptron."""

import logging

import torch
from torch import Tensor, nn

from aimback.autodiff import dual
from aimback.data.dataset import Dataset
from aimback.learn.perceptron import Perceptron
from aimback.settings.learning import Architecture
from aimback.tasks.base import Task

log = logging.getLogger(__name__)

_WIDE = 256
_FEW = 16  # controls whose tangents are still in the cache with a whole tile of rows


class Surrogate(Perceptron):
    """A network in the simulator's place: `(controls, conditions) -> outcome`, raw units on both sides.

    Inputs are scaled by the task's box and conditions, so that uniform ones have mean 0 and variance 1;
    outcomes by the mean and standard deviation of the training examples. Both scalings are buffers
    and travel with the weights. The weights are undefined until `draw_weights`, or until `load` reads them.

    Args:
        lower, upper: bounds of controls, then conditions, `(n_controls + n_conditions,)`.
        outcome_mean, outcome_scale: `(n_outcomes,)`.
        architecture: its hidden layers.
    """

    outcome_mean: Tensor
    outcome_scale: Tensor

    def __init__(
        self, lower: Tensor, upper: Tensor, outcome_mean: Tensor, outcome_scale: Tensor, architecture: Architecture
    ) -> None:
        super().__init__(lower, upper, len(outcome_mean), architecture)
        self.register_buffer("outcome_mean", outcome_mean)
        self.register_buffer("outcome_scale", outcome_scale)

    @classmethod
    def for_dataset(
        cls, dataset: Dataset, task: Task, architecture: Architecture, generator: torch.Generator
    ) -> "Surrogate":
        """An untrained network standardised for the training examples of a data set."""
        outcomes = dataset.outcomes[: dataset.n_training]
        mean = outcomes.mean(0)
        # The plain second moment: that of a single row is 0, not NaN.
        scale = (outcomes - mean).square().mean(0).sqrt()
        constant = scale <= 1e-14 * mean.abs()
        for axis, is_constant in zip(task.outcomes.axes, constant.tolist(), strict=True):
            if is_constant:
                log.warning("outcome %s is the same in every training example", axis.name)
        lower, upper = _bounds(task)
        surrogate = cls(lower, upper, mean, torch.where(constant, torch.ones_like(scale), scale), architecture)
        surrogate.draw_weights(generator)
        return surrogate

    @classmethod
    def blank(cls, task: Task, architecture: Architecture) -> "Surrogate":
        """One for this task whose tensors are still to be read, but for the scaling of its inputs."""
        outcome = torch.zeros(len(task.outcomes), dtype=torch.float64)
        return cls(*_bounds(task), outcome, outcome, architecture)

    @property
    def wide(self) -> bool:
        """Whether products of matrices are all that counts."""
        return self.architecture.hidden_layers > 0 and self.architecture.hidden_width >= _WIDE

    def standardise_outcomes(self, outcomes: Tensor) -> Tensor:
        """`(..., n_outcomes)` -> what the layers are trained to give."""
        return (outcomes - self.outcome_mean) / self.outcome_scale

    def forward(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """`(..., n_controls)`, `(..., n_conditions)` -> outcome `(..., n_outcomes)`."""
        (outcome,) = self.in_tiles(lambda some, given: (self._row_wise(some, given),), controls, conditions)
        return outcome

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Outcome `(..., n_outcomes)` and Jacobian by the controls `(..., n_outcomes, n_controls)`, in one pass."""
        # Products of matrices: forwards one a control, backwards one an outcome.
        backwards = self.wide and self.outcome_mean.numel() < controls.shape[-1]
        outcome, jacobian = self.in_tiles(
            self._backwards if backwards else self._forwards,
            controls,
            conditions,
            smaller=max(1, controls.shape[-1] // _FEW),
        )
        return outcome, jacobian

    def _forwards(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return dual.linearise(self._row_wise, controls, conditions)

    @torch.no_grad()
    def _backwards(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The same numbers by the chain rule from the last layer to the first, as autograd has them; written out,
        because a row's bits must not depend on its place in the batch, and those of autograd do."""
        value, _, slopes = layer_by_layer(self.layers, self.standardise_inputs(controls, conditions))
        weights = [layer.weight for layer in self.layers if isinstance(layer, nn.Linear)]
        first, *inner, last = weights
        rows = []
        for row in last:
            back = row * slopes[-1]
            for weight, slope in zip(reversed(inner), reversed(slopes[:-1]), strict=True):
                back = (back @ weight) * slope
            rows.append((back[:, None, :] * first.T).sum(-1)[:, : controls.shape[-1]])
        scale = self.outcome_scale[:, None] / self.input_scale[: controls.shape[-1]]
        return value * self.outcome_scale + self.outcome_mean, torch.stack(rows, dim=-2) * scale

    def _row_wise(self, controls: Tensor, conditions: Tensor) -> Tensor:
        standardised: Tensor = self.layers(self.standardise_inputs(controls, conditions))
        return standardised * self.outcome_scale + self.outcome_mean


def layer_by_layer(layers: nn.Sequential, inputs: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """What a backward pass through linear layers and activations in turn needs.

    Returns:
        The outcome `(n, n_outcomes)`; what each linear layer sees; the slope of each activation; all `(n, width)`.
    """
    value, seen, slopes = inputs, [], []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            seen.append(value)
            value = layer(value)
        else:
            bent = layer(dual.Dual(value, torch.ones_like(value)[None]))
            value = bent.value
            slopes.append(bent.tangent[0])
    return value, seen, slopes


def _bounds(task: Task) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of the inputs: the controls', then the conditions'."""
    return torch.cat([task.box.lower, task.conditions.lower]), torch.cat([task.box.upper, task.conditions.upper])
