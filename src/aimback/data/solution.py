"""A route's solution as a file."""

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from aimback.core.problem import History, Solution, StartStatus
from aimback.data.archive import DamagedFileError, Stored, read_arrays, write_parts
from aimback.tasks.base import Task

_FLOATS = ("float64", "float32")
_COUNTS = ("int32", "int64")
_OWN = tuple(field.name for field in fields(Solution) if field.name not in ("history", "costs"))


def save_solution(path: Path, parts: Iterable[Solution], task: Task) -> None:
    """Write `path` (.npz), whole or not at all; the same solutions of the targets' parts give the same bytes."""

    def list_arrays(solution: Solution) -> dict[str, np.ndarray]:
        tensors = {name: getattr(solution, name) for name in _OWN}
        tensors |= {f"history_{field.name}": getattr(solution.history, field.name) for field in fields(History)}
        return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}

    write_parts(path, map(list_arrays, parts), task)


def load_solution(path: Path, task: Task, targets: int | None = None, part: int = 0) -> Solution:
    """Read a solution of this task, onto the CPU, with the costs of its answers where the task has a preference.

    Args:
        targets: how many it must answer; None leaves that open.
        part: of the targets that it answers.

    Raises:
        UserError: the file is missing, truncated, altered, or made for another task or another number of targets.
    """
    starts, paths = (targets or "targets", "starts"), ("looks", "kept", "starts")
    declared = {
        "controls": Stored(_FLOATS, (*starts, len(task.box)), finite=True),
        "believed_miss": Stored(_FLOATS, starts),
        "start_status": Stored("int8", starts),
        "steps": Stored(_COUNTS, starts),
        "steps_to_tolerance": Stored(_COUNTS, starts),
        "history_controls": Stored(_FLOATS, (*paths, len(task.box))),
        "history_believed_miss": Stored(_FLOATS, paths),
    }
    tensors = {name: torch.from_numpy(array) for name, array in read_arrays(path, declared, task, part).items()}
    history = History(*(tensors.pop(f"history_{field.name}") for field in fields(History)))
    solution = Solution(**tensors, history=history)
    looks, kept, _ = history.believed_miss.shape
    if not (0 < kept <= len(solution.steps) and looks > 0 and solution.steps.numel() > 0):
        raise DamagedFileError(path, "its targets, starts and paths do not fit together")
    if not torch.isin(solution.start_status, torch.tensor(list(StartStatus))).all():
        raise DamagedFileError(path, "its start_status are not all codes of how a start can stop")
    return add_costs(solution, task)


def add_costs(solution: Solution, task: Task) -> Solution:
    """What the answers cost their user, where the task has a preference.

    Only what the route itself believes to hit, by controls inside the box, has a cost: the truth selects nothing.
    """
    hits = (solution.start_status == StartStatus.ARRIVED) & ~task.box.is_outside(solution.controls.double())
    found = task.compute_costs(solution.controls[hits].cpu())
    if found is None:
        return solution
    costs = torch.full(hits.shape, torch.inf, dtype=torch.float64)
    costs[hits.cpu()] = found
    return replace(solution, costs=costs.to(hits.device))
