"""A multilayer perceptron behind standardised inputs: its weights, its tiles, its file."""

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_linear_bn_eval

from aimback.autodiff import dual
from aimback.core.errors import UserError
from aimback.core.files import sha256, write_text, write_whole
from aimback.core.tracing import is_traced
from aimback.data.identity import check_identity, identify
from aimback.settings.learning import Architecture
from aimback.tasks.base import Task

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

# Fewer rows have no variance, by which batch normalisation divides.
LEAST_BATCH = 2


class Perceptron(nn.Module):
    """Linear layers and activations in turn, of inputs that are scaled by the ranges they come from.

    Uniform inputs then have mean 0 and variance 1. The scaling is a buffer and travels with the weights.
    The weights are undefined until `draw_weights`, or until `load` reads them.

    Args:
        lower, upper: bounds of the inputs, `(n_inputs,)`.
        outputs: how many.
        architecture: its hidden layers.
    """

    input_centre: Tensor
    input_scale: Tensor

    def __init__(self, lower: Tensor, upper: Tensor, outputs: int, architecture: Architecture) -> None:
        super().__init__()
        half = (upper - lower) / 2
        self.register_buffer("input_centre", lower + half)
        self.register_buffer("input_scale", torch.where(half > 0, half / math.sqrt(3), torch.ones_like(half)))
        self.architecture = architecture
        layers: list[nn.Module] = []
        width = len(lower)
        # Linear layers draw weights by themselves. `skip_init` would avoid that, and imports sympy for it.
        with torch.random.fork_rng(devices=[]):
            for _ in range(architecture.hidden_layers):
                layers.append(nn.Linear(width, architecture.hidden_width))
                layers.append(_ACTIVATIONS[architecture.activation]())
                width = architecture.hidden_width
            layers.append(nn.Linear(width, outputs))
        self.layers = nn.Sequential(*layers)

    @classmethod
    @abstractmethod
    def blank(cls, task: Task, architecture: Architecture, tensors: Collection[str]) -> Self:
        """One for this task whose tensors, of these names, are still to be read, but for the scaling of its inputs."""

    def draw_weights(self, generator: torch.Generator) -> None:
        """Fill weights and biases uniformly within 1 / sqrt(inputs), as `nn.Linear` does by itself."""
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    bound = 1 / math.sqrt(layer.in_features)
                    layer.weight.uniform_(-bound, bound, generator=generator)
                    layer.bias.uniform_(-bound, bound, generator=generator)

    def standardise_inputs(self, *parts: Tensor) -> Tensor:
        """Parts `(..., n)` of the inputs -> what the layers see, joined along the last dimension."""
        return (torch.cat(parts, dim=-1) - self.input_centre) / self.input_scale

    def in_tiles(
        self, function: Callable[[Tensor, Tensor], tuple[Tensor, ...]], *parts: Tensor, smaller: int = 1
    ) -> list[Tensor]:
        """Apply a function of the rows of two parts of the inputs to tiles of one fixed size; padding fills the last.

        Args:
            smaller: so many times as small are the tiles of a function that makes much of a row.
            parts: `(..., n)`; their leading dimensions are broadcast, and are those of the results.
        """
        if is_traced():  # a row is alone there
            return list(function(*parts))
        # Not torch's own, which imports sympy when it is first called.
        leading = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
        tile = max(1, (_CPU_TILE if parts[0].device.type == "cpu" else _GPU_TILE) // smaller)
        count = math.prod(leading)
        tiles = []
        for part in parts:
            width = part.shape[-1]
            rows = part.expand(*leading, width).reshape(count, width)
            tiles.append(F.pad(rows, (0, 0, 0, -count % tile)).split(tile))
        results = zip(*(function(one, other) for one, other in zip(*tiles, strict=True)), strict=True)
        return [torch.cat(some)[:count].reshape(*leading, *some[0].shape[1:]) for some in results]

    def save(self, path: Path, task: Task) -> None:
        """Write the weights (.safetensors) and, beside them, their SHA-256; same weights, same bytes."""
        # One entry: safetensors writes several in random order.
        architecture = self.architecture.model_dump(include=set(Architecture.model_fields))
        about = json.dumps({"architecture": architecture, "identity": identify(task)}, sort_keys=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with write_whole(path) as temporary:
            # Not by safetensors itself, whose error on a full disk is none of the system's.
            temporary.write_bytes(save(tensors, metadata={"aimback": about}))
        write_text(path.with_suffix(".sha256"), f"{sha256(path)}  {path.name}\n")

    @classmethod
    def load(cls, path: Path, task: Task, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Self:
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

        def unreadable(error: Exception) -> UserError:
            kind = cls.__name__.lower()
            reason = " ".join(str(error).split()) or type(error).__name__
            return UserError(f"{path}: not a {kind} that this version can read ({reason}); {_CURE}")

        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["aimback"])
            tensors, stored, architecture = load_file(path), about["identity"], about["architecture"]
        except Exception as error:  # whatever it is, it is the file
            raise unreadable(error) from error
        check_identity(path, stored, task, _CURE)
        try:
            stored_in = _dtype(tensors, architecture)
            network = cls.blank(task, Architecture(**architecture), tensors)
            asked = {name: network.get_buffer(name).clone() for name in ("input_centre", "input_scale")}
            network.to(stored_in).load_state_dict(tensors)
        except Exception as error:
            raise unreadable(error) from error
        for name, buffer in asked.items():
            if not torch.allclose(network.get_buffer(name).double(), buffer, rtol=1e-6, atol=1e-6):
                raise UserError(f"{path}: its inputs are standardised otherwise than the task's box asks; {_CURE}")
        return network.to(device=device, dtype=dtype or stored_in).eval().requires_grad_(False)


def differentiate(layers: nn.Sequential, inputs: Tensor, controls: int) -> tuple[Tensor, Tensor]:
    """What layers make of inputs, and its Jacobian by the first of these; torch can differentiate both by the weights.

    Backwards for each outcome, or forwards for all controls at once where these are fewer.

    Args:
        inputs: `(n, n_inputs)`; controls: how many of them.

    Returns:
        The outcome `(n, n_outcomes)` and its Jacobian `(n, n_outcomes, controls)`.
    """
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    if controls < last.out_features:
        # Dual numbers take part in torch's functions, which its type stubs do not know.
        bent = layers(torch.cat([dual.seed(inputs[:, :controls]), inputs[:, controls:]], dim=-1))  # type: ignore[list-item]
        return bent.value, bent.tangent.movedim(0, -1)
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        outcome: Tensor = layers(leaf)
        rows = [torch.autograd.grad(one.sum(), leaf, create_graph=True)[0] for one in outcome.unbind(-1)]
    return outcome, torch.stack(rows, dim=-2)[..., :controls]


def with_batch_norm(layers: nn.Sequential) -> nn.Sequential:
    """The same layers, with a batch normalisation after each linear one but the last.

    The linear layers are shared, not copied. The new ones start as the identity of what is normalised
    (scale 1, shift 0), so nothing is drawn at random.
    """
    *hidden, last = layers
    normalised: list[nn.Module] = []
    for layer in hidden:
        normalised.append(layer)
        if isinstance(layer, nn.Linear):
            like = layer.weight
            normalised.append(nn.BatchNorm1d(layer.out_features, device=like.device, dtype=like.dtype))
    return nn.Sequential(*normalised, last)


def without_batch_norm(layers: nn.Sequential) -> nn.Sequential:
    """Plain layers that give what these give in evaluation mode, to rounding.

    With its statistics frozen a batch normalisation is a linear map of each neuron, so the linear layer
    before it can do its work: w -> w s, b -> (b - mean) s + shift, s = scale / sqrt(variance + epsilon).
    """
    plain: list[nn.Module] = []
    for layer in layers.eval():
        if isinstance(layer, nn.BatchNorm1d):
            linear = plain.pop()
            assert isinstance(linear, nn.Linear)
            plain.append(fuse_linear_bn_eval(linear, layer))
        else:
            plain.append(layer)
    return nn.Sequential(*plain)


def _dtype(tensors: Mapping[str, Tensor], architecture: Mapping[str, Any]) -> torch.dtype:
    """What a network was stored in, if its tensors are the numbers of such a network.

    That is found out before a network is made: one that is described as huge would take all memory, or for ever.

    Raises:
        ValueError: they are not.
    """
    first = tensors["layers.0.weight"]
    depth = sum(name.startswith("layers.") and name.endswith(".weight") for name in tensors) - 1
    width = len(first) if depth else architecture["hidden_width"]
    if (architecture["hidden_layers"], architecture["hidden_width"]) != (depth, width):
        raise ValueError(f"its weights are those of {depth} hidden layers of {width}")
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if dtypes not in ({torch.float32}, {torch.float64}):
        raise ValueError(f"its tensors are {' and '.join(sorted(map(str, dtypes)))}")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} is not finite everywhere")
    return first.dtype
