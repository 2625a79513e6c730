"""What the figures show, as plain arrays: what the routes saw and did, seen through the forward maps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimback.core.box import Axis
from aimback.core.problem import ForwardMap, Linearised, Solution
from aimback.data.dataset import simulate
from aimback.data.targets import Targets
from aimback.evaluate.tables import Array
from aimback.tasks.base import Task

SHOWN_STARTS = 8
LOSS_FLOOR, MISS_FLOOR = 1e-33, 1e-16  # a hit to the last bit has no logarithm
SURFACE_POINTS = 161  # along each side
_SHOWN_TARGETS = 5
_SAID = 3  # numbers of a target, at most


@dataclass(frozen=True)
class Surface:
    """The loss of one target over one or two controls, as one forward map has it; a curve over one control.

    Attributes:
        title: over the panel.
        route: whose colour it has.
        loss: `(n,)` or `(n_y, n_x)`.
        paths: by route, `(n_steps + 1, n_starts, 1 or 2)`, where the starts went that descended here.
    """

    title: str
    route: str
    loss: Array
    paths: Mapping[str, Array]


@dataclass(frozen=True)
class Landscape:
    """What the forward maps make of one target; the true one comes first.

    Attributes:
        axes: the one or two controls that are shown.
        surfaces: one a forward map.
        wanted: the target, and where further controls stand, in words.
        label: what the loss is, for its axis.
    """

    axes: Sequence[Axis]
    surfaces: Sequence[Surface]
    wanted: str
    label: str

    def ticks(self, axis: int) -> Array:
        """Where the points lie along an axis."""
        points = self.surfaces[0].loss.shape[-1 - axis]
        return np.linspace(self.axes[axis].lower, self.axes[axis].upper, points)


def view_landscape(
    task: Task,
    surrogate: Linearised,
    targets: Targets,
    solutions: Mapping[str, Solution],
    compared: Mapping[str, str],
    points: int = SURFACE_POINTS,
) -> Landscape:
    """The loss over the first two controls (one, where there is only one), true and through the network.

    Further controls stand where the direct route's best answer has them, or the surrogate's where there is no other.

    Args:
        compared: the route of each kind whose descents are shown; that of the kind "surrogate" on the network's loss.
    """
    through = compared["surrogate"]
    solutions = {name: solutions[name] for name in solutions if name in compared.values()}
    row = _shown_target(targets, solutions)
    target, condition = targets.targets[row], targets.conditions[row]
    solution = solutions[compared.get("direct", through)]
    answer = pick_answers(solution, torch.tensor(row))
    axes = task.box.axes[:2]
    grid = make_unit_grid(task.box.to_unit(answer), points)
    controls = task.box.from_unit(grid)
    surfaces = []
    for title, route, forward in name_maps(task, surrogate):
        outcome = evaluate(forward, controls, condition)
        loss = ((outcome - target) / task.distance.scales).square().sum(-1)
        paths = {
            name: to_array(found.history.controls[:, row, :SHOWN_STARTS, : len(axes)])
            for name, found in solutions.items()
            if (name == through) == (route == "surrogate")
        }
        surfaces.append(Surface(title, route, to_array(loss), paths))
    wanted = say_target(task, (*target, *condition), ".3g")
    if len(task.box) > len(axes):
        wanted += "; slice through the best answer"
    return Landscape(axes, surfaces, wanted, label_loss(task))


def label_loss(task: Task) -> str:
    """What solvers descend, see `Distance`: of several outcomes their differences add up to it."""
    return "loss, (miss / span)²" if len(task.outcomes) == 1 else "loss, sum of (difference / span)²"


def name_maps(task: Task, surrogate: Linearised) -> Sequence[tuple[str, str, Linearised]]:
    """What is compared: a title, whose colour it has, and the forward map."""
    return ("the simulator itself", "direct", task), ("through the network", "surrogate", surrogate)


def say_target(task: Task, wanted: Iterable[Tensor | float], digits: str) -> str:
    """What is wanted and what is given, in words; of many numbers the first."""
    axes = (*task.outcomes.axes, *task.conditions.axes)
    words = [f"{axis.name} {value:{digits}} {axis.unit}".rstrip() for axis, value in zip(axes, wanted, strict=True)]
    if len(words) > _SAID:
        words[1:] = [f"{len(words) - 1} more"]
    return "target " + ", ".join(words)


def pick_answers(solution: Solution, rows: Tensor) -> Tensor:
    """The controls that the route itself holds for best."""
    return solution.controls[rows, solution.best()[rows]].double().cpu()


def make_unit_grid(middle: Tensor, points: int) -> Tensor:
    """Points of the unit cube, evenly over the first two controls, the first one last: `(points, points, n_controls)`.

    Args:
        middle: where further controls stand, `(n_controls,)`; with one control the grid is `(points, 1)`.
    """
    ticks = torch.linspace(0, 1, points, dtype=torch.float64)
    if len(middle) == 1:
        return ticks[:, None]
    grid = middle.expand(points, points, -1).clone()
    grid[..., 0], grid[..., 1] = ticks, ticks[:, None]
    return grid


def evaluate(forward: ForwardMap, controls: Tensor, condition: Tensor) -> Tensor:
    """Outcomes of a grid `(..., n_controls)` under one condition, `(..., n_outcomes)`; a chunk at a time."""
    rows = controls.reshape(-1, controls.shape[-1])
    (outcome,) = simulate(forward, rows, condition.expand(len(rows), -1))
    return outcome.reshape(*controls.shape[:-1], -1)


def view_trajectories(
    task: Task, targets: Targets, solutions: Mapping[str, Solution], rows: Tensor, points: int = 80
) -> dict[str, Array] | None:
    """Paths of the answers to some targets by route, `(n_rows, points, 2)`; None where the task draws none."""
    paths = {}
    for route, solution in solutions.items():
        path = task.trajectory(pick_answers(solution, rows), targets.conditions[rows], points)
        if path is None:
            return None
        paths[route] = to_array(path)
    return paths


def spread_targets(targets: Targets) -> Tensor:
    """Rows of a few targets spread over all of them, without the outermost twentieth."""
    order = targets.targets[:, 0].argsort(stable=True)
    last = len(order) - 1
    places = torch.linspace(0.05 * last, 0.95 * last, min(_SHOWN_TARGETS, len(order))).round().long()
    return order[places]


def view_goals(task: Task, targets: Targets, solution: Solution, trajectories: Array, rows: Tensor) -> Array:
    """Where trajectories should end, `(n_rows, 2)`; a target of one number is that coordinate of their ends.

    Args:
        solution: the answers that the trajectories, `(n_rows, points, 2)`, are of.
    """
    wanted = to_array(targets.targets[rows])
    if wanted.shape[1] > 1:
        return wanted[:, :2]
    ends = trajectories[:, -1]
    off = np.abs(ends - to_array(simulate(task, pick_answers(solution, rows), targets.conditions[rows])[0])).mean(0)
    # A place on the ground, or a height.
    return np.where(np.arange(2) == off.argmin(), wanted, ends)


def accumulate(values: Array) -> tuple[Array, Array]:
    """Finite values in order, and the share of all that is at most so great, `(n,)` each."""
    ordered = np.sort(values[np.isfinite(values)])
    return ordered, np.arange(1, len(ordered) + 1) / max(len(values), 1)


def find_share_within(misses: Array, tolerance: float) -> float:
    return float((misses <= tolerance).sum() / max(len(misses), 1))


def find_bands(curves: Mapping[str, Array], floor: float) -> dict[str, tuple[Array, Array, Array]]:
    """By route, the 10 %, 50 % and 90 % quantile over targets at each step, `(n_steps + 1,)` each.

    Args:
        curves: by route, `(n_steps + 1, n_targets)`; the shorter ones stay where they ended.
        floor: nothing is drawn below.
    """
    longest = max(len(values) for values in curves.values())
    drawn = {}
    for route, values in curves.items():
        shown = np.where(np.isfinite(values), np.maximum(values, floor), np.inf)
        stopped = np.repeat(shown[-1:], longest - len(shown), axis=0)
        low, middle, high = np.quantile(np.concatenate([shown, stopped]), [0.1, 0.5, 0.9], axis=1, method="nearest")
        top = np.max(shown, initial=floor, where=np.isfinite(shown))  # a share that failed lies above all others
        drawn[route] = (np.minimum(low, top), np.where(np.isfinite(middle), middle, np.nan), np.minimum(high, top))
    return drawn


def find_miss_range(misses: Mapping[str, Array], tolerance: float) -> tuple[float, float]:
    """The ends of a logarithmic axis that shows every miss, and the tolerance."""
    positive = np.concatenate([values[np.isfinite(values) & (values > 0)] for values in misses.values()])
    lowest, highest = (positive.min(), positive.max()) if positive.size else (tolerance, tolerance)
    return min(lowest, tolerance) / 3, max(highest, tolerance) * 3


def choose_loss_levels(landscape: Landscape) -> Array:
    """Sixteen losses, the same ratio apart: five decades up to the greatest finite one."""
    worst = max(
        float(surface.loss[np.isfinite(surface.loss)].max(initial=LOSS_FLOOR)) for surface in landscape.surfaces
    )
    return np.asarray(10.0 ** np.linspace(-5, 0, 16) * worst)


def find_last_change(curves: Sequence[Array]) -> int:
    """The last step that still changes the 90 % quantile of any of the curves visibly."""
    last = 1
    for values in curves:
        high = np.quantile(np.nan_to_num(values, nan=np.inf), 0.9, axis=1, method="nearest")
        moving = np.flatnonzero(~np.isclose(high, high[-1], rtol=0.05, atol=0))
        last = max(last, int(moving[-1]) + 1 if len(moving) else 1)
    return last


def to_array(values: Tensor) -> Array:
    return values.detach().double().cpu().numpy()


def _shown_target(targets: Targets, solutions: Mapping[str, Solution]) -> int:
    """Of the targets with a history, the one in the middle of them all: not at the rim, where little is to be seen."""
    kept = min(solution.history.controls.shape[1] for solution in solutions.values())
    wanted = targets.targets[:kept, 0]
    return int((wanted - targets.targets[:, 0].median()).abs().argmin())
