"""What makes two tasks the same, so that a file made for one is never used for another."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from aimback.core.box import Box
from aimback.core.errors import UserError
from aimback.tasks.base import Task

# What is judged with, not simulated with: changing it leaves every file valid.
_NOT_SIMULATED = frozenset({"tolerance"})


def identify(task: Task) -> str:
    """Write the task in one line of JSON: its class, its boxes and every public number, text and flag of it.

    Files carry this line, so that a mismatch can be told in words.
    """
    parts = {name: _plain(value) for name, value in vars(task).items() if not name.startswith("_")}
    # The range of an outcome is computed, so its last bits may depend on the machine: names and units only.
    parts |= {
        "box": _plain(task.box),
        "conditions": _plain(task.conditions),
        "outcomes": [axis.label for axis in task.outcomes.axes],
    }
    known = {name: value for name, value in parts.items() if value is not None and name not in _NOT_SIMULATED}
    return json.dumps({"task": type(task).__name__, **known}, sort_keys=True)


def check_identity(path: Path, stored: str, task: Task, cure: str) -> None:
    """Refuse a file that was made for another task.

    Raises:
        UserError: names the file, the first thing that differs, and the cure.
    """
    wanted = identify(task)
    if stored == wanted:
        return
    try:
        made, asked = json.loads(stored), json.loads(wanted)
    except (TypeError, ValueError, RecursionError):
        made = None
    if not isinstance(made, dict):
        raise UserError(f"{path}: does not say which task it was made for; {cure}") from None
    differing = [name for name in ("task", *sorted(made | asked)) if made.get(name) != asked.get(name)]
    name = differing[0] if differing else "task"
    raise UserError(f"{path}: made for another task ({name} is {made.get(name)} there, {asked.get(name)} here); {cure}")


def _plain(value: Any) -> Any:
    """The value as JSON can hold it; None where it says nothing about the simulation."""
    if isinstance(value, Box):
        return [[axis.name, axis.unit, axis.lower, axis.upper] for axis in value.axes]
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray | Tensor):
        array = np.asarray(value)
        return [str(array.dtype), *array.shape, hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()]
    return None
