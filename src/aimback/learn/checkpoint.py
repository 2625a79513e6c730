"""A state of training in one file: tensors in safetensors, the rest in its header as JSON, no pickle."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import CheckpointIO
from safetensors.torch import load, save

from aimback.core.errors import UserError
from aimback.core.files import write_whole


def write_state(path: Path, state: dict[Any, Any]) -> None:
    """Write nested dicts, lists and tuples of tensors, numbers and text, whole or not at all.

    Raises:
        TypeError: the state holds anything else.
        UserError: the disk is full or the folder cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(_take_apart(state, tensors))
    payload = save(tensors, metadata={"tree": tree})
    with write_whole(path) as temporary:
        # safetensors has no checksum of its own: the first line is that of all the rest.
        temporary.write_bytes(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def read_state(path: Path) -> dict[Any, Any]:
    """Read a state back, tensors on the CPU.

    Raises:
        UserError: the file is truncated or altered, or no state.
    """
    digest, _, payload = path.read_bytes().partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise UserError(f"{path}: the checkpoint is damaged (its SHA-256 does not fit)")
    try:
        header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
        state: dict[Any, Any] = _put_together(json.loads(header["__metadata__"]["tree"]), load(payload))
        return dict(state)
    except Exception as error:
        raise UserError(f"{path}: not a checkpoint that this version can read ({error!r})") from error


class StateFiles(CheckpointIO):
    """Lightning's checkpoints as files without pickle."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_state(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def _take_apart(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """What JSON can hold of a node; its tensors go to `tensors`. JSON knows neither keys that are no
    text nor tuples, so every container is written as a list that starts with its kind."""
    if isinstance(node, torch.Tensor):
        name = str(len(tensors))
        # A copy: two names of one tensor, which safetensors refuses, become two tensors.
        tensors[name] = node.detach().cpu().clone(memory_format=torch.contiguous_format)
        return ["tensor", name]
    if isinstance(node, dict):
        return ["dict", *([_take_apart(key, tensors), _take_apart(value, tensors)] for key, value in node.items())]
    if isinstance(node, list | tuple):
        return ["tuple" if isinstance(node, tuple) else "list", *(_take_apart(part, tensors) for part in node)]
    if node is None or isinstance(node, bool | int | float | str):
        return node
    raise TypeError(f"a checkpoint cannot hold a {type(node).__name__}")


def _put_together(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(node, list):
        return node
    kind, *parts = node
    if kind == "tensor":
        return tensors[parts[0]]
    if kind == "dict":
        return {_put_together(key, tensors): _put_together(value, tensors) for key, value in parts}
    whole = [_put_together(part, tensors) for part in parts]
    return tuple(whole) if kind == "tuple" else whole
