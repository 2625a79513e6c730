"""A trained network as a forward map: standardisation in buffers, a multilayer perceptron, its file."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from aimback import dual
from aimback.dataset import Dataset
from aimback.errors import UserError
from aimback.files import sha256, write_text, written_whole
from aimback.identity import check_identity, identity
from aimback.surrogate.settings import SurrogateSettings
from aimback.tasks.base import Task

log = logging.getLogger(__name__)

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "relu": nn.ReLU,
}
_CURE = "run `dvc repro` to train it anew"

# A matrix product may round a row differently in a batch of another size, so rows are evaluated in
# tiles of one fixed size: then a row's result does not depend on what else is in the batch. On the
# CPU, tiles that stay in the cache are also three times as fast as one large batch.
_CPU_TILE = 256
_GPU_TILE = 32768
_WIDE = 256


class Surrogate(nn.Module):
    """A network in the simulator's place: `(controls, conditions) -> outcome`, raw units on both sides.

    Inputs are scaled by the task's box and conditions, so that uniform ones have mean 0 and variance 1;
    outcomes by the mean and standard deviation of the training examples. Both scalings are buffers
    and travel with the weights. The weights are undefined until `draw_weights`, or until `load` reads them.

    Args:
        lower, upper: bounds of controls, then conditions, `(n_controls + n_conditions,)`.
        outcome_mean, outcome_scale: `(n_outcomes,)`.
        settings: width, depth and activation are used here.
    """

    input_centre: Tensor
    input_scale: Tensor
    outcome_mean: Tensor
    outcome_scale: Tensor

    def __init__(
        self, lower: Tensor, upper: Tensor, outcome_mean: Tensor, outcome_scale: Tensor, settings: SurrogateSettings
    ) -> None:
        super().__init__()
        half = (upper - lower) / 2
        self.register_buffer("input_centre", lower + half)
        self.register_buffer("input_scale", torch.where(half > 0, half / math.sqrt(3), torch.ones_like(half)))
        self.register_buffer("outcome_mean", outcome_mean)
        self.register_buffer("outcome_scale", outcome_scale)
        self.settings = settings
        layers: list[nn.Module] = []
        width = len(lower)
        for _ in range(settings.hidden_layers):
            # skip_init: the default initialisation would draw from the global random state.
            layers += [nn.utils.skip_init(nn.Linear, width, settings.hidden_width), _ACTIVATIONS[settings.activation]()]
            width = settings.hidden_width
        layers.append(nn.utils.skip_init(nn.Linear, width, len(outcome_mean)))
        self.layers = nn.Sequential(*layers)

    @classmethod
    def for_dataset(
        cls, dataset: Dataset, task: Task, settings: SurrogateSettings, generator: torch.Generator
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
        surrogate = cls(lower, upper, mean, torch.where(constant, torch.ones_like(scale), scale), settings)
        surrogate.draw_weights(generator)
        return surrogate

    @property
    def architecture(self) -> dict[str, int | str]:
        """The settings that the weights fit."""
        settings = self.settings
        return {
            "hidden_width": settings.hidden_width,
            "hidden_layers": settings.hidden_layers,
            "activation": settings.activation,
        }

    def draw_weights(self, generator: torch.Generator) -> None:
        """Fill weights and biases uniformly within 1 / sqrt(inputs), as `nn.Linear` does by itself."""
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    bound = 1 / math.sqrt(layer.in_features)
                    layer.weight.uniform_(-bound, bound, generator=generator)
                    layer.bias.uniform_(-bound, bound, generator=generator)

    def standardise_inputs(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """`(..., n_controls)`, `(..., n_conditions)` -> what the layers see, joined along the last dimension."""
        return (torch.cat([controls, conditions], dim=-1) - self.input_centre) / self.input_scale

    def standardise_outcomes(self, outcomes: Tensor) -> Tensor:
        """`(..., n_outcomes)` -> what the layers are trained to give."""
        return (outcomes - self.outcome_mean) / self.outcome_scale

    def forward(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """`(..., n_controls)`, `(..., n_conditions)` -> outcome `(..., n_outcomes)`."""
        (outcome,) = self._in_tiles(lambda some, given: (self._row_wise(some, given),), controls, conditions)
        return outcome

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Outcome `(..., n_outcomes)` and Jacobian by the controls `(..., n_outcomes, n_controls)`, in one pass."""
        # In a wide network products of matrices are all that counts: forwards one a control, backwards one an outcome.
        wide = self.settings.hidden_layers > 0 and self.settings.hidden_width >= _WIDE
        backwards = wide and self.outcome_mean.numel() < controls.shape[-1]
        outcome, jacobian = self._in_tiles(
            self._backwards if backwards else self._forwards,
            controls,
            conditions,
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

    def _in_tiles(
        self, function: Callable[[Tensor, Tensor], tuple[Tensor, ...]], controls: Tensor, conditions: Tensor
    ) -> list[Tensor]:
        """Apply a function of rows to tiles of one fixed size; padding fills the last."""
        leading = torch.broadcast_shapes(controls.shape[:-1], conditions.shape[:-1])
        tile = _CPU_TILE if controls.device.type == "cpu" else _GPU_TILE
        count = math.prod(leading)
        tiles = []
        for points in (controls, conditions):
            width = points.shape[-1]
            rows = points.expand(*leading, width).reshape(count, width)
            tiles.append(F.pad(rows, (0, 0, 0, -count % tile)).split(tile))
        results = zip(*(function(some, given) for some, given in zip(*tiles, strict=True)), strict=True)
        return [torch.cat(parts)[:count].reshape(*leading, *parts[0].shape[1:]) for parts in results]

    def save(self, path: Path, task: Task) -> None:
        """Write the weights (.safetensors) and, beside them, their SHA-256; same weights, same bytes."""
        # One entry: safetensors writes several in random order.
        about = json.dumps({"architecture": self.architecture, "identity": identity(task)}, sort_keys=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with written_whole(path) as temporary:
            save_file(tensors, temporary, metadata={"aimback": about})
        write_text(path.with_suffix(".sha256"), f"{sha256(path)}  {path.name}\n")

    @classmethod
    def load(
        cls, path: Path, task: Task, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> "Surrogate":
        """Read a trained network of this task, frozen.

        Args:
            dtype: what it shall compute in; None keeps that of the file.

        Raises:
            UserError: weights or checksum are missing, truncated, altered, or made for another task
                or another standardisation.
        """
        sidecar = path.with_suffix(".sha256")
        for file in (path, sidecar):
            if not file.is_file():
                raise UserError(f"{file}: there is no such file; {_CURE}")
        if sidecar.read_text(encoding="utf-8", errors="replace").split()[:1] != [sha256(path)]:
            raise UserError(f"{path}: damaged (its SHA-256 is not the one in {sidecar.name}); {_CURE}")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["aimback"])
            tensors = load_file(path)
            check_identity(path, about["identity"], task, _CURE)
            lower, upper = _bounds(task)
            outcome = torch.zeros(len(task.outcomes), dtype=torch.float64)
            surrogate = cls(lower, upper, outcome, outcome, SurrogateSettings(**about["architecture"]))
            stored_in = tensors["layers.0.weight"].dtype
            for name in ("input_centre", "input_scale"):
                if not torch.allclose(tensors[name].double(), surrogate.get_buffer(name), rtol=1e-6, atol=1e-6):
                    raise UserError(f"{path}: its inputs are standardised otherwise than the task's box asks; {_CURE}")
            surrogate.to(stored_in).load_state_dict(tensors)
        except UserError:
            raise
        except (safetensors.SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a surrogate that this version can read ({error}); {_CURE}") from error
        return surrogate.to(device=device, dtype=dtype or stored_in).eval().requires_grad_(False)


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
