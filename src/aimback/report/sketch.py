"""Figures for a notebook, which nobody writes to a file."""

import io
from collections.abc import Mapping

import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from aimback.core.problem import Solution, Status
from aimback.data.targets import Targets
from aimback.evaluate.judge import Answers
from aimback.report.canvas import COLOURS, LINES, STYLE, label_axis
from aimback.report.views import MISS_FLOOR, accumulate, find_miss_range, to_array
from aimback.tasks.base import Task


class Sketch(Figure):
    """A figure that a notebook shows, whatever its backend is."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png")
        return content.getvalue()


def sketch_answers(task: Task, targets: Targets, answers: Answers, solution: Solution) -> Sketch:
    """Where all starts of the first valid target have ended, and how far all answers miss; of one target the former."""
    many = len(answers.miss) > 1
    with style.context(["default", STYLE]):
        figure = _make_sketch(2 if many else 1)
        first, *others = [figure.add_subplot(1, 2 if many else 1, place + 1) for place in range(2 if many else 1)]
        _show_starts(first, task, answers, solution, int(targets.valid.nonzero()[0, 0]))
        for panel in others:
            _show_misses(panel, {"answers": answers.miss}, task.miss_unit, task.tolerance)
    return figure


def sketch_misses(misses: Mapping[str, Tensor], unit: str, tolerance: float) -> Sketch:
    """The share of targets that each route misses by at most so much."""
    with style.context(["default", STYLE]):
        figure = _make_sketch(1)
        _show_misses(figure.add_subplot(), misses, unit, tolerance)
    return figure


def _make_sketch(panels: int) -> Sketch:
    figure = Sketch(figsize=(5.2 * panels, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _show_starts(panel: Axes, task: Task, answers: Answers, solution: Solution, row: int) -> None:
    """Over the first two controls, or over the only one and the believed miss."""
    ends, misses = to_array(solution.controls[0]), to_array(solution.believed_miss[0])
    best, axes = to_array(answers.controls[row]), task.box.axes
    status = Status(int(answers.status[row])).name.lower()
    panel.set(xlabel=axes[0].label, title=f"where {len(ends)} starts have ended")
    if len(axes) == 1:
        panel.plot(ends[:, 0], misses.clip(MISS_FLOOR), "o", color=COLOURS["direct"])
        panel.set(ylabel="believed miss", yscale="log")
        return
    panel.plot(ends[:, 0], ends[:, 1], "o", color=COLOURS["direct"], label="starts", clip_on=False)
    panel.plot(best[0], best[1], "*", color=COLOURS["surrogate"], ms=14, label=f"answer: {status}", clip_on=False)
    panel.set(ylabel=axes[1].label, xlim=(axes[0].lower, axes[0].upper), ylim=(axes[1].lower, axes[1].upper))
    panel.legend()


def _show_misses(panel: Axes, misses: Mapping[str, Tensor], unit: str, tolerance: float) -> None:
    shown = {route: to_array(torch.where(miss == 0, MISS_FLOOR, miss)) for route, miss in misses.items()}
    for route, values in shown.items():
        ordered, share = accumulate(values)
        panel.step(ordered, 100 * share, LINES[route], where="post", color=COLOURS[route], label=route)
    panel.axvline(tolerance, color="0.4", ls=":", label="tolerance")
    panel.set(xscale="log", xlim=find_miss_range(shown, tolerance), ylim=(0, 102))
    panel.set(xlabel=label_axis("miss", unit), ylabel="share of targets [%]")
    panel.legend()
