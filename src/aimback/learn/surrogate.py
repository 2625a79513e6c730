"""A trained network as a forward map: the simulator's place taken by a multilayer perceptron."""

import copy
import functools
import logging
import operator
from collections.abc import Collection, Sequence
from typing import Any

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

    It may be an ensemble (Lakshminarayanan, Pritzel, Blundell 2017, without their variances): then its outcome is the
    mean of its members', each with layers of its own, and so is its Jacobian.

    Args:
        lower, upper: bounds of controls, then conditions, `(n_controls + n_conditions,)`.
        outcome_mean, outcome_scale: `(n_outcomes,)`.
        architecture: its hidden layers.

    Attributes:
        others: the layers of its members after the first; there are none where it is a single network.
    """

    outcome_mean: Tensor
    outcome_scale: Tensor

    def __init__(
        self, lower: Tensor, upper: Tensor, outcome_mean: Tensor, outcome_scale: Tensor, architecture: Architecture
    ) -> None:
        super().__init__(lower, upper, len(outcome_mean), architecture)
        self.register_buffer("outcome_mean", outcome_mean)
        self.register_buffer("outcome_scale", outcome_scale)
        self.others = nn.ModuleList()

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
    def blank(cls, task: Task, architecture: Architecture, tensors: Collection[str]) -> "Surrogate":
        outcome = torch.zeros(len(task.outcomes), dtype=torch.float64)
        single = cls(*_bounds(task), outcome, outcome.clone(), architecture)
        others = {name.split(".")[1] for name in tensors if name.startswith("others.")}
        return cls.join([copy.deepcopy(single) for _ in range(1 + len(others))])

    @classmethod
    def join(cls, members: Sequence["Surrogate"]) -> "Surrogate":
        """Make an ensemble of single networks that are standardised alike; the first of them becomes it."""
        first, *others = members
        first.others.extend(other.layers for other in others)
        return first

    def split(self) -> list["Surrogate"]:
        """Copy each member as a network by itself."""
        singles = [copy.deepcopy(self) for _ in self.members]
        for single, layers in zip(singles, copy.deepcopy(self.members), strict=True):
            single.layers, single.others = layers, nn.ModuleList()
        return singles

    @property
    def members(self) -> list[nn.Sequential]:
        """The layers of each member."""
        return [self.layers, *self.others]

    @property
    def wide(self) -> bool:
        """Whether products of matrices are all that counts."""
        return self.architecture.hidden_layers > 0 and self.architecture.hidden_width >= _WIDE

    def standardise_outcomes(self, outcomes: Tensor) -> Tensor:
        """`(..., n_outcomes)` -> what the layers are trained to give."""
        return (outcomes - self.outcome_mean) / self.outcome_scale

    def standardise_jacobians(self, jacobians: Tensor) -> Tensor:
        """`(..., n_outcomes, n_controls)` of the simulator -> of what the layers give by what they see."""
        return jacobians * (self.input_scale[: jacobians.shape[-1]] / self.outcome_scale[:, None])

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

    def measure_spread(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """The standard deviation of the members' outcomes, `(..., n_outcomes)`; of a single network it is 0."""
        (spread,) = self.in_tiles(lambda *parts: (self._spread(*parts),), controls, conditions)
        return spread

    @torch.no_grad()
    def _spread(self, controls: Tensor, conditions: Tensor) -> Tensor:
        inputs = self.standardise_inputs(controls, conditions)
        return torch.stack([layers(inputs) for layers in self.members]).std(0, correction=0) * self.outcome_scale

    def _forwards(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return dual.linearise(self._row_wise, controls, conditions)

    @torch.no_grad()
    def _backwards(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The same numbers by the chain rule from the last layer to the first, as autograd has them; written out,
        because a row's bits must not depend on its place in the batch, and those of autograd do."""
        inputs, values, jacobians = self.standardise_inputs(controls, conditions), [], []
        for layers in self.members:
            value, _, slopes = layer_by_layer(layers, inputs)
            weights = [layer.weight for layer in layers if isinstance(layer, nn.Linear)]
            first, *inner, last = weights
            rows = []
            for row in last:
                back = row * slopes[-1]
                for weight, slope in zip(reversed(inner), reversed(slopes[:-1]), strict=True):
                    back = (back @ weight) * slope
                rows.append((back[:, None, :] * first.T).sum(-1)[:, : controls.shape[-1]])
            values.append(value)
            jacobians.append(torch.stack(rows, dim=-2))
        scale = self.outcome_scale[:, None] / self.input_scale[: controls.shape[-1]]
        return _average(values) * self.outcome_scale + self.outcome_mean, _average(jacobians) * scale

    def _row_wise(self, controls: Tensor, conditions: Tensor) -> Tensor:
        inputs = self.standardise_inputs(controls, conditions)
        standardised: Tensor = _average([layers(inputs) for layers in self.members])
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


def _average(parts: Sequence[Any]) -> Any:
    """The mean of some tensors, or dual numbers; of a single one itself."""
    return functools.reduce(operator.add, parts) / len(parts) if len(parts) > 1 else parts[0]


def _bounds(task: Task) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of the inputs: the controls', then the conditions'."""
    return torch.cat([task.box.lower, task.conditions.lower]), torch.cat([task.box.upper, task.conditions.upper])
