"""The least and greatest outcome over the box: known from the task's outcomes, or found by zooming in on a grid."""

import itertools
from typing import Protocol

import torch
from torch import Tensor

from aimback.core.box import Box
from aimback.core.problem import ForwardMap
from aimback.tasks.base import Task

_GRID = 17
_ZOOMS = 8
_SHRINK = 0.35  # of the window a zoom: over two cells of the last grid, so a smooth optimum stays inside
_ROWS = 32_768  # simulated at once


class _Boxed(ForwardMap, Protocol):
    box: Box


def bound_outcomes(outcomes: Box, conditions: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the outcomes' range, `(..., n_outcomes)` each, where it is the same under all conditions."""
    low, high = outcomes.bounds(conditions)
    shape = (*conditions.shape[:-1], len(outcomes))
    return low.expand(shape), high.expand(shape)


def find_unreachable(task: Task, targets: Tensor, conditions: Tensor) -> Tensor:
    """Which targets no controls can hit, as far as the task can tell, `(n_targets,)`."""
    reach = task.reach(conditions) if len(targets) else None
    if reach is None:
        return torch.zeros(len(targets), dtype=torch.bool)
    low, high = reach
    tolerances = targets.new_tensor(task.tolerances)
    return ((targets < low - tolerances) | (targets > high + tolerances)).any(-1)


def search_reach(task: _Boxed, conditions: Tensor, coarse: _Boxed | None = None) -> tuple[Tensor, Tensor]:
    """Least and greatest outcome under each of the conditions, `(..., n_outcomes)` each, every component on its own.

    Global on the scale of the first grid, so meant for smooth outcomes of few controls: it costs
    2 * 8 * 17**n_controls simulations a condition and a component. Equal conditions are searched once.

    Args:
        coarse: a cheaper simulator of the same, which the search is then made with. What it finds is simulated by
            `task`, and each end moves outwards by as much as the two differ: the reach holds for both of them.
    """
    rows = conditions.flatten(0, -2)
    if rows.shape[-1] == 0:  # without conditions all rows are the same one; torch.unique refuses them
        different, index = rows[:1], rows.new_zeros(len(rows), dtype=torch.int64)
    else:
        different, index = torch.unique(rows, dim=0, return_inverse=True)
    size = max(1, _ROWS // _GRID ** len(task.box))
    ends = [_search(coarse or task, part, task if coarse else None) for part in different.split(size)]
    low, high = (torch.cat(part)[index].unflatten(0, conditions.shape[:-1]) for part in zip(*ends, strict=True))
    return low, high


@torch.no_grad()
def _search(task: _Boxed, conditions: Tensor, finer: ForwardMap | None = None) -> tuple[Tensor, Tensor]:
    line = torch.linspace(-0.5, 0.5, _GRID).to(conditions)
    offsets = torch.stack(torch.meshgrid(*itertools.repeat(line, len(task.box)), indexing="ij"), dim=-1)
    offsets = offsets.reshape(-1, len(task.box))
    pick = torch.arange(len(conditions), device=conditions.device)
    middle = torch.full((len(conditions), 1, len(task.box)), 0.5).to(conditions)
    components = task(task.box.from_unit(middle), conditions[:, None]).shape[-1]
    ends = []
    for sign in (-1.0, 1.0):
        extremes = []
        for component in range(components):
            centre, window = middle, 1.0
            for _ in range(_ZOOMS):
                points = (centre + window * offsets).clamp(0, 1)
                outcomes = task(task.box.from_unit(points), conditions[:, None].expand(-1, len(offsets), -1))
                outcome = outcomes[..., component]
                best = (sign * outcome).argmax(dim=1)
                centre, extreme = points[pick, best][:, None], outcome[pick, best]
                window *= _SHRINK
            if finer is not None:
                exact = finer(task.box.from_unit(centre[:, 0]), conditions)[:, component]
                extreme = exact + sign * (exact - extreme).abs()
            extremes.append(extreme)
        ends.append(torch.stack(extremes, dim=-1))
    return ends[0], ends[1]
