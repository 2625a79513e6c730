"""The contest's figures: PNG files, the same bytes for the same numbers."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from aimback.contest.published import Published
from aimback.contest.records import Contest
from aimback.contest.summary import ADJOINT, DIRECT, Law, mean_curve, over_seeds, quality_law, repaid_at
from aimback.contest.text import count, power
from aimback.report.canvas import new_figure
from aimback.report.colours import COLOURS

Array = NDArray[np.float64]

FLOOR = 1e-33  # a hit to the last bit has no logarithm
# Below it lie rounding errors: their decades are drawn smaller, so that what differs above stays legible.
_KNEE, _COMPRESSED = 1e-8, 0.2

# Okabe and Ito again; the direct route keeps its colour and is the only thick line.
_COLOURS = {
    ADJOINT: COLOURS["surrogate"],
    "no_boundary": "#E69F00",
    "hard_box": "#CC79A7",
    "second_order": "#009E73",
    DIRECT: COLOURS["direct"],
    "cma_es": "#000000",
}
_DASHES = {
    ADJOINT: "-",
    "no_boundary": (0, (5, 1.5)),
    "hard_box": (0, (1.2, 1.2)),
    "second_order": "-",
    DIRECT: "-",
    "cma_es": (0, (6, 1.5, 1.2, 1.5)),
}
_MARKERS = {"NA": "o", "cINN": "s", "INN": "^", "cVAE": "D", "MDN": "v", "Tandem": "P"}
_GREY = "#6E6E6E"
_TASK_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#000000")
_TASK_MARKERS = ("o", "s", "^", "D", "v", "P")
_PANEL = 4.3


def plot_r_t(path: Path, contest: Contest) -> None:
    """r_T against T, a panel a task: measured curves with quartile bands, published points as open markers."""
    with new_figure(path, (_PANEL * len(contest.tasks) + 0.6, 6.6)) as figure:
        panels = figure.subplots(1, len(contest.tasks), sharey=True, squeeze=False)[0]
        shown: dict[str, Line2D] = {}
        lowest, highest = [_KNEE], [1.0]
        for axes, task in zip(panels, contest.tasks, strict=True):
            for method in contest.methods:
                curve = mean_curve(contest, task, method)
                if curve is None:
                    continue
                mean, q25, q75 = (_drawable(values) for values in (curve.mean, curve.q25, curve.q75))
                candidates = np.arange(1, len(mean) + 1)
                colour, thick = _colour(method), method == DIRECT
                axes.fill_between(candidates, q25, q75, color=colour, alpha=0.18 if thick else 0.1, lw=0)
                line, dashes = 3.0 if thick else 1.7, _DASHES.get(method, "-")
                (shown[method],) = axes.plot(
                    candidates, mean, ls=dashes, color=colour, lw=line, label=method, zorder=5 if thick else 4
                )
                lowest += [float(np.nanmin(q25, initial=_KNEE)), float(np.nanmin(mean, initial=_KNEE))]
                highest += [float(np.nanmax(mean, initial=1.0))]
            for row in contest.published:
                if row.task == task:
                    name = f"{row.method}, published"
                    shown[name] = _draw_published(axes, row, name)
            axes.axhline(_KNEE, color="#9A9A9A", lw=0.8, ls=":", zorder=1)
            axes.set(xscale="log", title=task, xlabel="T, candidates re-simulated")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _knee_axis(panels[0], min(lowest), max(highest))
        panels[0].set_ylabel("r_T, raw units squared")
        small = f"below {power(_KNEE)} a decade is drawn {1 / _COMPRESSED:g} times smaller"
        zero = f"; 0 is drawn at {power(FLOOR)}" if min(lowest) <= FLOOR else ""
        figure.suptitle(f"r_T: mean over targets, band from 25 % to 75 % of them\n{small}{zero}", fontsize=11)
        _legend(figure, shown, columns=4 if len(contest.tasks) > 1 else 2)


def plot_quality(path: Path, contest: Contest) -> None:
    """r_1 against the network's validation MSE, a colour a task, beside the line on which both are equal."""
    with new_figure(path, (8.6, 5.6)) as figure:
        axes = figure.add_subplot()
        everything: list[float] = []
        for index, task in enumerate(contest.tasks):
            colour = _TASK_COLOURS[index % len(_TASK_COLOURS)]
            marker = _TASK_MARKERS[index % len(_TASK_MARKERS)]
            sweep = [(point.validation_mse, point.r_1) for point in contest.quality.get(task, ())]
            networks = contest.network_points(task, ADJOINT, ADJOINT)
            published = [
                (row.validation_mse, row.r_1)
                for row in contest.published
                if row.task == task and row.validation_mse is not None
            ]
            styles = ((sweep, marker, colour, 7.0), (networks, "*", colour, 13.0), (published, marker, "white", 9.0))
            for pairs, shape, fill, size in styles:
                usable = _usable(pairs)
                everything += [float(mse) for mse, _ in usable]
                axes.plot(*usable.T, shape, color=colour, mfc=fill, mec=colour, mew=1.3, ms=size, zorder=3, alpha=0.9)
            fitted = quality_law(contest, task)
            label = task if fitted is None else f"{task}: slope {fitted.slope:.2f}"
            axes.plot([], [], marker, color=colour, ms=7, label=label)
            if fitted is not None:
                _draw_law(axes, fitted, [mse for mse, _ in _usable([*sweep, *networks])], colour)
        if everything:
            ends = np.asarray([min(everything) / 2, max(everything) * 2])
            axes.plot(ends, ends, "--", color="black", lw=1.2, label="r_1 = MSE", zorder=2)
        else:
            axes.set(xlim=(1e-6, 1), ylim=(1e-6, 1))
            axes.annotate("nothing measured", (0.5, 0.5), xycoords="axes fraction", ha="center")
        for shape, size, fill, label in (
            ("o", 7, _GREY, "sweep of training sizes"),
            ("*", 13, _GREY, f"network of {ADJOINT}, a seed each"),
            ("o", 9, "white", "published NA"),
        ):
            axes.plot([], [], shape, color=_GREY, mfc=fill, mec=_GREY, mew=1.3, ms=size, label=label)
        axes.set(xscale="log", yscale="log", xlabel="validation MSE of the network, raw units squared")
        axes.set_ylabel("r_1, raw units squared")
        figure.suptitle("A better network hits better: r_1 follows its validation MSE")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=10)


def plot_ledger(path: Path, contest: Contest, most: int = 100_000) -> None:
    """Simulations a target against how many targets are asked, a panel a task; break-even marked.

    Args:
        most: targets at the right edge.
    """
    asked = np.logspace(0, math.log10(most), 200)
    with new_figure(path, (_PANEL * len(contest.tasks) + 0.6, 4.7)) as figure:
        panels = figure.subplots(1, len(contest.tasks), sharey=True, squeeze=False)[0]
        shown: dict[str, Line2D] = {}
        for axes, task in zip(panels, contest.tasks, strict=True):
            for (fixed, each), methods in _priced(contest, task).items():
                if fixed + each <= 0:
                    continue
                leader = methods[0]
                label = " = ".join(methods)
                (shown[label],) = axes.plot(
                    asked,
                    fixed / asked + each,
                    ls=_DASHES.get(leader, "-"),
                    color=_colour(leader),
                    lw=3.0 if leader == DIRECT else 1.9,
                    label=label,
                )
            _mark_break_even(axes, contest, task, most)
            axes.set(xscale="log", yscale="log", xlim=(1, most), title=task, xlabel="targets asked")
        panels[0].set_ylabel("simulations a target, examples shared")
        figure.suptitle("What a target costs in simulations, the network's examples shared among all targets")
        _legend(figure, shown, columns=3 if len(contest.tasks) > 1 else 1)


def _draw_published(axes: Axes, row: Published, name: str) -> Line2D:
    """Open markers at T = 1 and 50, joined: what lies between was not read off."""
    adjoint = row.method == "NA"
    colour = COLOURS["surrogate"] if adjoint else _GREY
    candidates, values = ([1, 50], [row.r_1, row.r_50]) if row.r_50 is not None else ([1], [row.r_1])
    (line,) = axes.plot(
        candidates,
        np.asarray(values, dtype=float),
        ls=(0, (3, 2.5)),
        lw=1.3 if adjoint else 0.9,
        color=colour,
        marker=_MARKERS.get(row.method, "X"),
        ms=9 if adjoint else 7,
        mfc="white",
        mec=colour,
        mew=1.8 if adjoint else 1.1,
        label=name,
        zorder=6 if adjoint else 3,
        clip_on=False,
    )
    return line


def _draw_law(axes: Axes, fitted: Law, qualities: Sequence[float], colour: str) -> None:
    ends = np.asarray([min(qualities), max(qualities)])
    axes.plot(ends, fitted.factor * ends**fitted.slope, "-", color=colour, lw=1.2, alpha=0.6)


def _mark_break_even(axes: Axes, contest: Contest, task: str, most: int) -> None:
    """A dot where the network has repaid its examples, in the mean over seeds; in words where it never does."""
    direct = over_seeds(contest, task, DIRECT, "simulations_per_target").mean
    repaid = repaid_at(contest, task, ADJOINT)
    if direct is None or not repaid:
        return
    even = sum(repaid) / len(repaid)
    if even > most:
        words = "never repaid" if math.isinf(even) else f"repaid from {count(round(even))} targets on"
        axes.annotate(words, (0.97, 0.94), xycoords="axes fraction", ha="right", va="top", fontsize=10)
        return
    axes.plot([even], [direct], "o", color="white", mec="black", mew=1.8, ms=9, zorder=6)
    words = f"break-even:\n{count(round(even))} target{'' if round(even) == 1 else 's'}"
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    beside = axes.annotate(words, (even, direct), xytext=(-9, -9), textcoords="offset points", fontsize=10, bbox=paper)
    beside.set_horizontalalignment("right")
    beside.set_verticalalignment("top")


def _priced(contest: Contest, task: str) -> dict[tuple[float, float], list[str]]:
    """Methods by what they cost: simulations once, and simulations a target; equal prices are one line."""
    priced: dict[tuple[float, float], list[str]] = {}
    for method in contest.methods:
        fixed = over_seeds(contest, task, method, "training_examples").mean
        each = over_seeds(contest, task, method, "simulations_per_target").mean
        if fixed is not None and each is not None:
            priced.setdefault((fixed, each), []).append(method)
    return priced


def _knee_axis(axes: Axes, lowest: float, highest: float) -> None:
    """Logarithmic, with the decades below the knee compressed."""
    knee = math.log10(_KNEE)

    def forward(values: Array) -> Array:
        decades = np.log10(np.maximum(values, FLOOR * 1e-6)) - knee
        return np.where(decades < 0, decades * _COMPRESSED, decades)

    def inverse(places: Array) -> Array:
        decades = np.where(places < 0, places / _COMPRESSED, places)
        return np.power(10.0, np.clip(decades + knee, -300, 300))

    axes.set_yscale("function", functions=(forward, inverse))
    top, bottom = math.ceil(math.log10(highest)), min(math.floor(math.log10(lowest)), int(knee) - 1)
    ticks = [10.0**decade for decade in range(int(knee), top + 1)]
    ticks += [10.0**decade for decade in range(int(knee) - 4, bottom - 1, -4)]
    axes.yaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$10^{{{round(math.log10(value))}}}$"))
    axes.set_ylim(10.0 ** (bottom - (1 if bottom < knee - 1 else 0)), 2 * 10.0**top)


def _legend(figure: Figure, shown: dict[str, Line2D], columns: int) -> None:
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=columns, fontsize=10)


def _drawable(values: Array) -> Array:
    """Not below the floor; what is not finite is left out of the line."""
    return np.where(np.isfinite(values), np.maximum(values, FLOOR), np.nan)


def _usable(pairs: Sequence[tuple[float, float]]) -> Array:
    """Finite pairs above 0, `(n, 2)`: only they have a place on logarithmic axes."""
    table = np.asarray(pairs, dtype=float).reshape(-1, 2)
    good: NDArray[np.bool_] = np.isfinite(table).all(1) & (table > 0).all(1)
    usable: Array = table[good]
    return usable


def _colour(method: str) -> str:
    return _COLOURS.get(method, _GREY)
