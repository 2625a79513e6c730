"""The figures. Plain arrays in, PNG files out; the same arrays give the same bytes.

`plot_*` know nothing of tasks; `draw_figures` is the thin part that evaluates forward maps for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor

from aimback.box import Axis
from aimback.files import written_whole
from aimback.problem import ForwardMap, Solution
from aimback.targets import Targets
from aimback.tasks.base import Task

Array = NDArray[np.float64]

# Okabe and Ito, "Color Universal Design" (2008): told apart with every common colour blindness.
COLOURS = {"direct": "#0072B2", "surrogate": "#D55E00", "hybrid": "#009E73"}
_LINES = {"direct": "-", "surrogate": "--", "hybrid": "-."}
_SECOND = "#009E73"
_STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 120,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
_SHOWN_STARTS = 8
_SHOWN_TARGETS = 5


@dataclass(frozen=True)
class Surface:
    """What one route sees over two controls of one target; the true one comes first.

    Attributes:
        title: over the panel.
        outcome: `(n_y, n_x)`, of the first outcome, or None where there are several.
        loss: `(n_y, n_x)`.
        paths: `(n_steps + 1, n_starts, 2)`, where the starts went; None draws none.
        colour: of the paths.
    """

    title: str
    outcome: Array | None
    loss: Array
    paths: Array | None
    colour: str


def draw_figures(
    folder: Path,
    name: str,
    task: Task,
    *,
    surrogate: ForwardMap,
    targets: Targets,
    solutions: Mapping[str, Solution],
    misses: Mapping[str, Tensor],
    training: Mapping[str, Sequence[float]],
) -> list[str]:
    """Draw all figures of a task that apply to it.

    Args:
        folder: where the PNG files go.
        name: the task's name, for the titles.
        task: the simulator.
        surrogate: the trained network.
        targets: the valid targets, in the order of the solutions.
        solutions: by route, with the history of their first targets; on the CPU.
        misses: by route, the miss of each target's answer, `(n_targets,)`; not finite where there is none.
        training: columns of the training history: "step", "train_loss", "validation_loss" (NaN for an empty cell).

    Returns:
        The figures' file names, in the order to be shown.
    """
    drawn = []

    def file(figure: str) -> Path:
        drawn.append(f"{figure}.png")
        return folder / drawn[-1]

    span = _span(task)
    unit = task.outcomes.axes[0].unit
    forwards: dict[str, ForwardMap] = {"surrogate": surrogate, "direct": task}
    if len(task.box) >= 2 and len(targets):
        axes = task.box.axes[:2]
        surfaces, wanted = draw_surfaces(task, forwards, targets, solutions)
        plot_surfaces(file("surfaces"), f"{name}: {wanted}", axes, surfaces, _first_target(task, targets, solutions))
    if len(targets):
        shown = _spread(targets)
        trajectories = draw_trajectories(task, targets, solutions, shown)
        if trajectories is not None:
            missed = {route: _array(miss)[shown] for route, miss in misses.items()}
            goals = _goals(targets, trajectories, shown)
            plot_trajectories(
                file("trajectories"),
                f"{name}: {len(shown)} answers, simulated again",
                trajectories=trajectories,
                goals=goals,
                misses=missed,
                unit=unit,
            )
        believed, true = {}, {}
        for route, solution in solutions.items():
            believed[route], true[route] = draw_descent(task, targets, solution, span)
        plot_loss(file("loss"), name, losses=believed, misses=true, unit=unit, tolerance=task.tolerance)
    plot_misses(file("miss"), name, {r: _array(m) for r, m in misses.items()}, unit, task.tolerance)
    columns = {column: np.asarray(values, dtype=float) for column, values in training.items()}
    plot_training(file("training"), name, columns["step"], columns["train_loss"], columns["validation_loss"])
    return drawn


def draw_surfaces(
    task: Task,
    forwards: Mapping[str, ForwardMap],
    targets: Targets,
    solutions: Mapping[str, Solution],
    points: int = 161,
) -> tuple[list[Surface], str]:
    """The loss over the first two controls, true and through the network, and what the target is.

    Further controls stand where the direct route's best answer has them.
    """
    row = _shown_target(targets, solutions)
    target, condition = targets.targets[row], targets.conditions[row]
    solution = solutions["direct"]
    answer = solution.controls[row, solution.best()[row]].cpu()
    unit = torch.linspace(0, 1, points, dtype=torch.float64)
    grid = task.box.to_unit(answer).expand(points, points, -1).clone()
    grid[..., 0], grid[..., 1] = unit, unit[:, None]
    controls = task.box.from_unit(grid).reshape(points * points, -1)
    conditions = condition.expand(points * points, -1)
    surfaces = []
    for route, title in (("direct", "the simulator itself"), ("surrogate", "through the network")):
        with torch.no_grad():
            outcome = forwards[route](controls, conditions).double()
        loss = ((outcome - target) / _span(task)).square().sum(-1)
        starts = _array(solutions[route].history.controls[:, row, :_SHOWN_STARTS, :2])
        height = _array(outcome[:, 0].reshape(points, points)) if len(task.outcomes) == 1 else None
        surfaces.append(Surface(title, height, _array(loss.reshape(points, points)), starts, COLOURS[route]))
    given = zip((*task.outcomes.axes, *task.conditions.axes), (*target, *condition), strict=True)
    wanted = "target " + ", ".join(f"{axis.name} {value:.3g} {axis.unit}" for axis, value in given)
    return surfaces, wanted if len(task.box) == 2 else f"{wanted}; slice through the best answer"


def draw_trajectories(
    task: Task, targets: Targets, solutions: Mapping[str, Solution], rows: Tensor, points: int = 80
) -> dict[str, Array] | None:
    """Paths of the answers to some targets by route, `(n_rows, points, 2)`; None where the task draws none."""
    paths = {}
    for route, solution in solutions.items():
        answers = solution.controls[rows, solution.best()[rows]].double().cpu()
        path = task.trajectory(answers, targets.conditions[rows], points)
        if path is None:
            return None
        paths[route] = _array(path)
    return paths


def draw_descent(task: Task, targets: Targets, solution: Solution, span: float) -> tuple[Array, Array]:
    """What the answers' starts did: loss by the route's own map and true miss, `(n_steps + 1, n_kept)` each."""
    kept = solution.history.controls.shape[1]
    rows = torch.arange(kept)
    best = solution.best()[:kept]
    loss = (solution.history.believed_miss[:, rows, best] / span).square()
    controls = solution.history.controls[:, rows, best].double().cpu()
    steps = len(controls)
    conditions = targets.conditions[:kept].expand(steps, -1, -1)
    with torch.no_grad():
        outcomes = task(controls.reshape(steps * kept, -1), conditions.reshape(steps * kept, -1))
    miss = (outcomes.reshape(steps, kept, -1) - targets.targets[:kept]).norm(dim=-1)
    return _array(loss), _array(miss)


def plot_training(path: Path, title: str, step: Array, train_loss: Array, validation_loss: Array) -> None:
    """Train and validation loss by step; an empty cell is a NaN and leaves no gap."""
    with new_figure(path, (7, 4)) as figure:
        axes = figure.add_subplot()
        for label, values, colour, line in (
            ("training examples", train_loss, COLOURS["surrogate"], "-"),
            ("validation examples", validation_loss, _SECOND, "--"),
        ):
            there = np.isfinite(values)
            axes.plot(step[there], values[there], line, color=colour, label=label)
        if np.isfinite(validation_loss).any():
            best = int(np.nanargmin(validation_loss))
            axes.plot(step[best], validation_loss[best], "*", color=_SECOND, ms=13, mec="white", label="least: kept")
        axes.set(yscale="log", xlabel="training step", ylabel="mean squared error, standardised")
        axes.set_title(f"{title}: training of the surrogate")
        axes.legend()


def plot_loss(
    path: Path,
    title: str,
    *,
    losses: Mapping[str, Array],
    misses: Mapping[str, Array],
    unit: str,
    tolerance: float,
) -> None:
    """Loss by the route's own map, and true miss, by solver step: median and 10 % to 90 % of the targets.

    Args:
        losses, misses: by route, `(n_steps + 1, n_targets)`.
    """
    with new_figure(path, (10.5, 4.2)) as figure:
        left, right = figure.subplots(1, 2)
        _bands(left, losses, 1e-33)
        left.set(xlabel="solver step", ylabel="loss, (believed miss / span)²", title="as the route itself believes")
        _bands(right, misses, 1e-16)
        right.axhline(tolerance, color="black", lw=1, ls=":", label=f"tolerance, {tolerance:g} {unit}")
        right.set(xlabel="solver step", ylabel=_labelled("miss", unit), title="re-simulated: the truth")
        right.legend()
        last = max(_settled(values) for values in (*losses.values(), *misses.values()))
        for axes in (left, right):
            axes.set_xlim(0, 1.1 * last + 1)
        figure.suptitle(f"{title}: the answers' way to the target (median, 10 % to 90 % of targets)")


def plot_misses(path: Path, title: str, misses: Mapping[str, Array], unit: str, tolerance: float) -> None:
    """Which share of the targets is missed by at most so much; one that has no finite answer never counts.

    Args:
        misses: by route, `(n_targets,)`; zeros lie at the left edge.
    """
    positive = np.concatenate([values[np.isfinite(values) & (values > 0)] for values in misses.values()])
    lowest, highest = (positive.min(), positive.max()) if positive.size else (tolerance, tolerance)
    lowest, highest = min(lowest, tolerance) / 3, max(highest, tolerance) * 3
    with new_figure(path, (7, 4)) as figure:
        axes = figure.add_subplot()
        for route, values in misses.items():
            found = np.sort(values[np.isfinite(values)])
            shares = np.arange(1, len(found) + 1) / max(len(values), 1)
            x = np.concatenate([[lowest], np.maximum(found, lowest), [highest]])
            y = np.concatenate([[0.0], shares, shares[-1:] if len(found) else [0.0]])
            solved = (found <= tolerance).sum() / max(len(values), 1)
            label = f"{route}: {100 * solved:.4g} % solved"
            axes.plot(x, 100 * y, _LINES[route], color=COLOURS[route], drawstyle="steps-post", label=label)
        axes.axvline(tolerance, color="black", lw=1, ls=":", label=f"tolerance, {tolerance:g} {unit}")
        axes.set(xscale="log", xlim=(lowest, highest), ylim=(0, 102))
        axes.set(xlabel=_labelled("miss, re-simulated", unit), ylabel="targets missed by at most this [%]")
        axes.set_title(f"{title}: how far the answers miss")
        axes.legend(loc="lower right" if positive.size and np.median(positive) < lowest * 10 else "best")


def plot_trajectories(
    path: Path,
    title: str,
    *,
    trajectories: Mapping[str, Array],
    goals: Array,
    misses: Mapping[str, Array],
    unit: str,
) -> None:
    """What the answers do when they are simulated again, a panel a route.

    Args:
        trajectories: by route, `(n_shown, points, 2)`.
        goals: where they should end, `(n_shown, 2)`.
        misses: by route, `(n_shown,)`.
    """
    with new_figure(path, (10.5, 3.9)) as figure:
        panels = figure.subplots(1, len(trajectories), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (route, lines) in zip(panels, trajectories.items(), strict=True):
            for line in lines:
                axes.plot(line[:, 0], line[:, 1], color=COLOURS[route], lw=1.6)
            axes.plot(lines[:, -1, 0], lines[:, -1, 1], "o", color=COLOURS[route], ms=5, label="reached", zorder=3)
            axes.plot(*goals.T, "x", color="black", ms=9, mew=1.6, label="target", zorder=4, clip_on=False)
            axes.set_title(f"{route}: misses by at most {misses[route].max():.2g} {unit}")
            axes.set(xlabel=_labelled("x", unit), ylabel=_labelled("y", unit))
            axes.legend(loc="upper right")
        figure.suptitle(title)


def plot_surfaces(
    path: Path, title: str, axes: Sequence[Axis], surfaces: Sequence[Surface], target: float | None
) -> None:
    """Loss surfaces side by side, one colour scale, with the descents on them and the solutions' curve.

    Args:
        axes: the two controls.
        surfaces: what each route sees.
        target: of the outcome, to draw the curve of all solutions; None draws none.
    """
    x, y = (np.linspace(axis.lower, axis.upper, surfaces[0].loss.shape[1 - i]) for i, axis in enumerate(axes))
    worst = max(float(np.nanmax(np.where(np.isfinite(s.loss), s.loss, np.nan))) for s in surfaces)
    levels = 10.0 ** np.linspace(-5, 0, 16) * max(worst, np.finfo(float).tiny)
    halo = [withStroke(linewidth=3.5, foreground="white")]
    ticks = 10.0 ** np.arange(np.ceil(np.log10(levels[0])), np.log10(levels[-1]))
    with new_figure(path, (11, 4.8)) as figure:
        panels = figure.subplots(1, len(surfaces), sharex=True, sharey=True, squeeze=False)[0]
        for panel, surface in zip(panels, surfaces, strict=True):
            panel.grid(False)
            heights = np.clip(surface.loss, levels[0], None)
            norm = LogNorm(levels[0], levels[-1])
            drawn = panel.contourf(x, y, heights, levels, norm=norm, cmap="Greys", extend="min")
            panel.contour(x, y, heights, levels[::3], colors="#00000033", linewidths=0.6)
            if target is not None and surface.outcome is not None:
                panel.contour(x, y, surface.outcome, [target], colors=surface.colour, linewidths=1.6, linestyles="--")
                panel.plot([], [], "--", color=surface.colour, lw=1.6, label="solutions seen here")
                truth = surfaces[0]
                if surface is not truth and truth.outcome is not None:
                    panel.contour(x, y, truth.outcome, [target], colors=truth.colour, linewidths=1.1)
                    panel.plot([], [], "-", color=truth.colour, lw=1.1, label="true ones")
            if surface.paths is not None:
                ink = surface.colour
                panel.plot(
                    *surface.paths.transpose(2, 0, 1), "-", color=ink, marker=".", ms=4, path_effects=halo, zorder=3
                )
                first, last = surface.paths[0].T, surface.paths[-1].T
                panel.plot(*first, "o", color="white", mec=ink, mew=1.8, ms=7, zorder=4, label="start")
                panel.plot(*last, "*", color=ink, mec="white", mew=0.8, ms=15, zorder=5, label="end", clip_on=False)
            panel.set(title=surface.title, xlabel=axes[0].label, xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
            panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, fontsize=10, columnspacing=1.2)
        panels[0].set_ylabel(axes[1].label)
        bar = figure.colorbar(drawn, ax=list(panels), label="loss, (miss / span)²", pad=0.02)
        bar.set_ticks(ticks.tolist())
        bar.minorticks_off()
        figure.suptitle(title)


def _bands(axes: Axes, curves: Mapping[str, Array], floor: float) -> None:
    longest = max(len(values) for values in curves.values())
    for route, values in curves.items():
        shown = np.where(np.isfinite(values), np.maximum(values, floor), np.inf)
        stopped = np.repeat(shown[-1:], longest - len(shown), axis=0)
        low, middle, high = np.quantile(np.concatenate([shown, stopped]), [0.1, 0.5, 0.9], axis=1, method="nearest")
        steps = np.arange(longest)
        top = np.max(shown, initial=floor, where=np.isfinite(shown))  # a share that failed lies above all others
        low, high = np.minimum(low, top), np.minimum(high, top)
        middle = np.where(np.isfinite(middle), middle, np.nan)
        axes.fill_between(steps, low, high, color=COLOURS[route], alpha=0.2, lw=0)
        axes.plot(steps, middle, _LINES[route], color=COLOURS[route], label=route)
    axes.set_yscale("log")
    axes.legend()


def _settled(values: Array) -> int:
    """The last step that still changes the 90 % quantile visibly."""
    high = np.quantile(np.nan_to_num(values, nan=np.inf), 0.9, axis=1, method="nearest")
    moving = np.flatnonzero(~np.isclose(high, high[-1], rtol=0.05, atol=0))
    return int(moving[-1]) + 1 if len(moving) else 1


@contextmanager
def new_figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    # "default" first: a user's own matplotlibrc must not change an output.
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


def _spread(targets: Targets) -> Tensor:
    """Rows of a few targets spread over all of them, without the outermost twentieth."""
    order = targets.targets[:, 0].argsort(stable=True)
    last = len(order) - 1
    places = torch.linspace(0.05 * last, 0.95 * last, min(_SHOWN_TARGETS, len(order))).round().long()
    return order[places]


def _goals(targets: Targets, trajectories: Mapping[str, Array], rows: Tensor) -> Array:
    """Where trajectories should end, `(n_rows, 2)`; a target of one number is a place on the ground."""
    wanted = _array(targets.targets[rows])
    ends = next(iter(trajectories.values()))[:, -1]
    return wanted[:, :2] if wanted.shape[1] > 1 else np.stack([wanted[:, 0], ends[:, 1]], -1)


def _shown_target(targets: Targets, solutions: Mapping[str, Solution]) -> int:
    """Of the targets with a history, the one in the middle of them all: not at the rim, where little is to be seen."""
    kept = min(solution.history.controls.shape[1] for solution in solutions.values())
    wanted = targets.targets[:kept, 0]
    return int((wanted - targets.targets[:, 0].median()).abs().argmin())


def _first_target(task: Task, targets: Targets, solutions: Mapping[str, Solution]) -> float | None:
    return float(targets.targets[_shown_target(targets, solutions), 0]) if len(task.outcomes) == 1 else None


def _span(task: Task) -> float:
    return float((task.outcomes.upper - task.outcomes.lower).norm())


def _labelled(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def _array(values: Tensor) -> Array:
    return values.detach().double().cpu().numpy()
