"""The figure that moves: both losses while the target sweeps through its range, with the descents on each."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from PIL import Image

from aimback.core.box import Axis
from aimback.core.files import write_whole
from aimback.core.problem import InverseProblem, Linearised
from aimback.data.targets import Targets
from aimback.evaluate.tables import Array
from aimback.report.canvas import COLOURS, LINES, canvas
from aimback.report.views import (
    evaluate,
    label_loss,
    make_unit_grid,
    name_maps,
    pick_answers,
    say_target,
    to_array,
    view_goals,
)
from aimback.solve.multistart import solve
from aimback.solve.solver import Solver
from aimback.solve.starts import draw_evenly
from aimback.tasks.base import Task

FRAMES = 36
_HOLD, _FRAME = 900, 110  # ms: the last frame, every other one
SWEPT_STARTS, _MAX_STEPS = 4, 40
SWEPT_POINTS = 61
DECADES = 5  # of the loss, that the shades tell apart
_SHADES = 15
_COLOURS = 64
_FLIGHT_POINTS = 40


@dataclass(frozen=True)
class Side:
    """One forward map during the sweep.

    Attributes:
        title: over the panel.
        route: whose colour it has.
        loss: `(FRAMES, n)` or `(FRAMES, n_y, n_x)`, a picture a target.
        paths: `(n_steps + 1, FRAMES, n_starts, 1 or 2)`.
        miss: of the best start by the true simulator, `(FRAMES,)`.
        believed, reached: the first outcome of the best start less what is wanted, by this map and by the true one.
        flights: what the best start does when it is simulated, `(FRAMES, points, 2)`; None where the task draws none.
    """

    title: str
    route: str
    loss: Array
    paths: Array
    miss: Array
    believed: Array
    reached: Array
    flights: Array | None


@dataclass(frozen=True)
class Sweep:
    """A target that moves from one end of its range to the other, and what each forward map makes of it.

    Attributes:
        axes: the one or two controls that are shown.
        sides: the true map first.
        captions: what is wanted, a frame.
        unit: of the misses.
        tolerance: the miss at which a target counts as solved.
        outcome: the first outcome, with its own tolerance as its bounds about 0.
        goals: where flights should end, `(FRAMES, 2)`; None where there are none.
        label: what the loss is, for its axis.
    """

    axes: Sequence[Axis]
    sides: Sequence[Side]
    captions: Sequence[str]
    unit: str
    tolerance: float
    outcome: Axis
    goals: Array | None
    label: str


def view_sweep(
    task: Task, surrogate: Linearised, targets: Targets, solver: Solver, generator: torch.Generator
) -> Sweep:
    """Solve both forward maps for a row of targets, from the same starts, in one call each.

    The first outcome sweeps from the 2nd to the 98th of a hundred of the task's targets; other outcomes and the
    conditions are at their medians. Controls that are not shown stand where the simulator's own descent to the middle
    target ends.
    """
    ends = targets.targets[:, 0].quantile(torch.tensor([0.02, 0.98], dtype=torch.float64))
    wanted = targets.targets.median(0).values.expand(FRAMES, -1).clone()
    wanted[:, 0] = torch.linspace(float(ends[0]), float(ends[1]), FRAMES, dtype=torch.float64)
    condition = targets.conditions.median(0).values
    starts = task.box.from_unit(draw_evenly(1, SWEPT_STARTS, len(task.box), generator)).expand(FRAMES, -1, -1)
    problem = InverseProblem(wanted, condition.expand(FRAMES, -1), task.box, task.distance, task.box.to_unit(starts))
    brief = replace(solver, max_steps=min(solver.max_steps, _MAX_STEPS))
    axes = task.box.axes[:2]
    sides: list[Side] = []
    goals, every = None, torch.arange(FRAMES)
    for title, route, forward in name_maps(task, surrogate):
        found = solve(forward, problem, brief, torch.Generator().manual_seed(generator.initial_seed()))
        answers = pick_answers(found, every)
        if not sides:
            rest = task.box.to_unit(answers[FRAMES // 2])
            controls = task.box.from_unit(make_unit_grid(rest, SWEPT_POINTS))
        outcome = evaluate(forward, controls, condition)
        each = (outcome - wanted.reshape(FRAMES, *[1] * (outcome.ndim - 1), -1)) / task.distance.scales
        paths = to_array(found.history.controls[..., : len(axes)])
        with torch.no_grad():
            true, own = (one(answers, problem.conditions) - wanted for one in (task, forward))
        flights = task.trajectory(answers, problem.conditions, _FLIGHT_POINTS)
        if flights is not None and goals is None:
            row = Targets(wanted, problem.conditions, torch.zeros(FRAMES, dtype=torch.int64), ("",) * FRAMES)
            goals = view_goals(task, row, found, to_array(flights), every)
        sides.append(
            Side(
                title,
                route,
                to_array(each.square().sum(-1)),
                paths,
                to_array(task.distance.measure(true)),
                to_array(own[:, 0]),
                to_array(true[:, 0]),
                None if flights is None else to_array(flights),
            )
        )
    given = torch.cat([wanted, problem.conditions], dim=1).tolist()
    captions = [say_target(task, row, ".2f") for row in given]
    first, tolerance = task.outcomes.axes[0], task.tolerances[0]
    within = Axis(first.name, first.unit, -tolerance, tolerance)
    return Sweep(axes, sides, captions, task.miss_unit, task.tolerance, within, goals, label_loss(task))


def plot_sweep(path: Path, title: str, sweep: Sweep) -> None:
    """Write the animation (GIF); the same sweep gives the same bytes."""
    frames = list(_frames(title, sweep))
    # One palette for all frames, from the first, the middle and the last one: colours that do not flicker.
    few = np.concatenate([frames[index] for index in (0, len(frames) // 2, -1)])
    palette = Image.fromarray(few).quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    first, *rest = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    content = io.BytesIO()
    first.save(
        content,
        format="GIF",
        save_all=True,
        append_images=rest,
        duration=[_FRAME] * len(rest) + [_HOLD],
        loop=0,
        optimize=False,
    )
    with write_whole(path) as temporary:
        temporary.write_bytes(content.getvalue())


def _frames(title: str, sweep: Sweep) -> Iterator[NDArray[np.uint8]]:
    """The pictures, `(height, width, 3)` each."""
    with canvas((8.6, 4.3)) as figure:
        panels = figure.subplots(1, len(sweep.sides), sharex=True, sharey=True)
        show = _Curve if len(sweep.axes) == 1 else _Map
        shown = [show(panel, side, sweep) for panel, side in zip(panels, sweep.sides, strict=True)]
        panels[0].set_ylabel(sweep.axes[1].label if len(sweep.axes) == 2 else sweep.label)
        heading = figure.suptitle(f"{title}: {sweep.captions[0]}")
        drawing = figure.canvas
        assert isinstance(drawing, FigureCanvasAgg)
        # What does not change is laid out and drawn once, everything else again and again.
        moving = [heading, *(artist for one in shown for artist in one.moving)]
        for one in shown:
            one.turn_to(0)
        drawing.draw()
        figure.set_layout_engine("none")
        for artist in moving:
            artist.set_animated(True)
        drawing.draw()
        still = drawing.copy_from_bbox(figure.bbox)
        for frame, caption in enumerate(sweep.captions):
            drawing.restore_region(still)
            heading.set_text(f"{title}: {caption}")
            for one in shown:
                one.turn_to(frame)
            for artist in moving:
                figure.draw_artist(artist)
            yield np.asarray(drawing.buffer_rgba())[..., :3].copy()


class _Panel:
    """One side, redrawn frame by frame."""

    def __init__(self, panel: Axes, side: Side, sweep: Sweep) -> None:
        self._side, self._unit, self._least = side, sweep.unit, 1e-3 * sweep.tolerance
        axis, colour = sweep.axes[0], COLOURS[side.route]
        panel.grid(False)
        panel.set(xlabel=axis.label, xlim=(axis.lower, axis.upper))
        finite = np.concatenate([one.loss[np.isfinite(one.loss)] for one in sweep.sides])
        self._worst = float(finite.max(initial=np.finfo(float).tiny))
        self._title = panel.set_title("\n", fontsize=11, color=colour)
        self.moving: list[Artist] = [self._title, *self._begin(panel, sweep.axes, colour)]
        (self._starts,) = panel.plot([], [], "o", color="white", mec=colour, mew=1.6, ms=6)
        (self._ends,) = panel.plot([], [], "*", color=colour, mec="white", mew=0.8, ms=14, clip_on=False)
        self.moving += [self._starts, self._ends]

    def turn_to(self, frame: int) -> None:
        """Show another target."""
        miss = self._side.miss[frame]
        shown = f"{miss:.2g} {self._unit}" if miss >= self._least else f"less than {self._least:g} {self._unit}"
        self._title.set_text(f"{self._side.title}\nmisses by {shown}".rstrip())
        loss = np.clip(self._side.loss[frame], self._worst * 10.0**-DECADES, None)
        paths = self._side.paths[:, frame]
        for dots, where in zip((self._starts, self._ends), self._turn(loss, paths), strict=True):
            dots.set_data(*where)

    def _begin(self, panel: Axes, axes: Sequence[Axis], colour: str) -> Sequence[Artist]:
        """Make what is drawn below the dots."""
        raise NotImplementedError

    def _turn(self, loss: Array, paths: Array) -> Sequence[Sequence[Array]]:
        """Show another loss, and tell the places of the starts and of the ends."""
        raise NotImplementedError


class _Map(_Panel):
    """Two controls: the loss as shades, bright where it is small."""

    def _begin(self, panel: Axes, axes: Sequence[Axis], colour: str) -> Sequence[Artist]:
        x, y = axes
        self._image: AxesImage = panel.imshow(
            np.zeros(self._side.loss.shape[1:]),
            extent=(x.lower, x.upper, y.lower, y.upper),
            origin="lower",
            aspect="auto",
            interpolation="bilinear",
            interpolation_stage="data",
            # In steps, as contours: they show the shape, and make a small file.
            cmap=colormaps["Greys"].resampled(_SHADES),
            vmin=-DECADES,
            vmax=0,
        )
        self._paths = LineCollection([], colors=colour, linewidths=1.8)
        panel.add_collection(self._paths)
        return [self._image, *panel.spines.values(), self._paths]

    def _turn(self, loss: Array, paths: Array) -> Sequence[Sequence[Array]]:
        self._image.set_data(np.log10(loss / self._worst))
        self._paths.set_segments(list(paths.transpose(1, 0, 2)))
        return paths[0].T, paths[-1].T


class _Curve(_Panel):
    """One control: the loss as a curve."""

    def _begin(self, panel: Axes, axes: Sequence[Axis], colour: str) -> Sequence[Artist]:
        self._x = np.linspace(axes[0].lower, axes[0].upper, self._side.loss.shape[1])
        panel.set(yscale="log", ylim=(self._worst * 10.0**-DECADES, self._worst * 2))
        (self._curve,) = panel.plot(self._x, np.ones_like(self._x), LINES[self._side.route], color=colour)
        return [self._curve]

    def _turn(self, loss: Array, paths: Array) -> Sequence[Sequence[Array]]:
        self._curve.set_ydata(loss)
        return [(where, np.interp(where, self._x, loss)) for where in (paths[0, :, 0], paths[-1, :, 0])]
