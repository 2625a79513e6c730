"""A route's solution as a file."""

from dataclasses import fields
from pathlib import Path

import torch

from aimback.archive import damaged, read_arrays, write_arrays
from aimback.problem import History, Solution
from aimback.tasks.base import Task

_HISTORY = tuple(f"history_{field.name}" for field in fields(History))
_OWN = tuple(field.name for field in fields(Solution) if field.name != "history")


def save_solution(path: Path, solution: Solution, task: Task) -> None:
    """Write `path` (.npz), whole or not at all; the same solution gives the same bytes."""
    tensors = {name: getattr(solution, name) for name in _OWN}
    tensors |= {f"history_{field.name}": getattr(solution.history, field.name) for field in fields(History)}
    write_arrays(path, {name: tensor.cpu().numpy() for name, tensor in tensors.items()}, task)


def load_solution(path: Path, task: Task) -> Solution:
    """Read a solution of this task, onto the CPU.

    Raises:
        UserError: the file is missing, truncated, altered, or made for another task.
    """
    arrays = read_arrays(path, _OWN + _HISTORY, task)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    history = History(*(tensors[name] for name in _HISTORY))
    solution = Solution(**{name: tensors[name] for name in _OWN}, history=history)
    if solution.controls.shape[-1] != len(task.box) or solution.controls.shape[:2] != solution.believed_miss.shape:
        raise damaged(path, "its tables do not fit together")
    return solution
