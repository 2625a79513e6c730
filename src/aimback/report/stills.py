"""The still figures of a task and of its claims. Plain arrays in, PNG files out; they know nothing of tasks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import ScalarFormatter

from aimback.core.box import Axis
from aimback.evaluate.tables import Array
from aimback.report import evidence, views
from aimback.report.canvas import COLOURS, LINES, label_axis, label_tolerance, new_figure
from aimback.report.evidence import PAIR
from aimback.report.views import Landscape, Surface

_SECOND = "#5B6570"
_HALO = [withStroke(linewidth=3.5, foreground="white")]
_PERCENT = (-2, 102)


def plot_training(path: Path, title: str, step: Array, train_loss: Array, validation_loss: Array) -> None:
    """Train and validation loss by step; an empty cell is a NaN and leaves no gap."""
    with _open_panels(path, (7, 4), f"{title}: training of the surrogate") as (axes,):
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
        axes.legend()


def plot_loss(
    path: Path, title: str, losses: Mapping[str, Array], misses: Mapping[str, Array], unit: str, tolerance: float
) -> None:
    """Loss by the route's own map, and true miss, by solver step: median and 10 % to 90 % of the targets.

    Args:
        losses, misses: by route, `(n_steps + 1, n_targets)`.
    """
    heading = f"{title}: the answers' way to the target (median, 10 % to 90 % of targets)"
    last = 1.1 * views.find_last_change([*losses.values(), *misses.values()]) + 1
    with _open_panels(path, (10.5, 4.2), heading, 2) as (left, right):
        for axes, curves, floor in ((left, losses, views.LOSS_FLOOR), (right, misses, views.MISS_FLOOR)):
            for route, (low, middle, high) in views.find_bands(curves, floor).items():
                _draw_band(axes, np.arange(len(middle), dtype=float), low, middle, high, route)
            axes.set(yscale="log", xlabel="solver step", xlim=(0, last))
        left.set(ylabel="loss, (believed miss / span)²", title="as the route itself believes")
        left.legend()
        right.axhline(tolerance, color="black", lw=1, ls=":", label=label_tolerance(tolerance, unit))
        right.set(ylabel=label_axis("miss", unit), title="re-simulated: the truth")
        right.legend()


def plot_misses(path: Path, title: str, misses: Mapping[str, Array], unit: str, tolerance: float) -> None:
    """Which share of the targets is missed by at most so much; one that has no finite answer never counts.

    Args:
        misses: by route, `(n_targets,)`; zeros lie at the left edge.
    """
    lowest, highest = views.find_miss_range(misses, tolerance)
    with _open_panels(path, (7, 4), f"{title}: how far the answers miss") as (axes,):
        for route, values in misses.items():
            found, shares = views.accumulate(values)
            x = np.concatenate([[lowest], np.maximum(found, lowest), [highest]])
            y = np.concatenate([[0.0], shares, shares[-1:] if len(found) else [0.0]])
            label = f"{route}: {100 * views.find_share_within(values, tolerance):.4g} % solved"
            _draw_line(axes, x, 100 * y, route, drawstyle="steps-post", label=label)
        axes.axvline(tolerance, color="black", lw=1, ls=":", label=label_tolerance(tolerance, unit))
        axes.set(xscale="log", xlim=(lowest, highest), ylim=(0, 102))
        axes.set(xlabel=label_axis("miss, re-simulated", unit), ylabel="targets missed by at most this [%]")
        axes.legend()


def plot_r_t(path: Path, title: str, curves: Mapping[str, Array]) -> None:
    """The published metric r_T by the number of candidates: median and quartiles of the targets.

    Args:
        curves: by route, `(n_candidates, 5)`: T, mean, lower quartile, median and upper quartile.
    """
    with _open_panels(path, (7, 4), f"{title}: the best of T candidates (median, quartiles of targets)") as (axes,):
        for route, curve in curves.items():
            count, _, low, middle, high = curve.T
            _draw_band(axes, count, low, middle, high, route, marker="o" if len(count) == 1 else None)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set(yscale="log", xlabel="T, candidates simulated again", ylabel="r_T, least squared miss")
        axes.legend()


def plot_trajectories(
    path: Path,
    title: str,
    trajectories: Mapping[str, Array],
    goals: Array,
    misses: Mapping[str, Array],
    unit: str,
    miss_unit: str,
) -> None:
    """What the answers do when they are simulated again, a panel a route.

    Args:
        trajectories: by route, `(n_shown, points, 2)`.
        goals: where they should end, `(n_shown, 2)`.
        misses: by route, `(n_shown,)`, in `miss_unit`; all else is in `unit`.
    """
    heading, count = f"{title}: {len(goals)} answers, simulated again", len(trajectories)
    with _open_panels(path, (5.25 * max(count, 2), 3.9), heading, count, sharex=True, sharey=True) as panels:
        for axes, (route, lines) in zip(panels, trajectories.items(), strict=True):
            for line in lines:
                axes.plot(line[:, 0], line[:, 1], color=COLOURS[route], lw=1.6)
            axes.plot(lines[:, -1, 0], lines[:, -1, 1], "o", color=COLOURS[route], ms=5, label="reached", zorder=3)
            axes.plot(*goals.T, "x", color="black", ms=9, mew=1.6, label="target", zorder=4, clip_on=False)
            axes.set_title(f"{route}: misses by at most {misses[route].max():.2g} {miss_unit}".rstrip())
            axes.set(xlabel=label_axis("x", unit), ylabel=label_axis("y", unit))
            axes.legend(loc="upper right")


def plot_surfaces(path: Path, title: str, landscape: Landscape) -> None:
    """The losses with the descents on them: maps side by side over two controls, curves over one."""
    plot = _plot_curves if len(landscape.axes) == 1 else _plot_maps
    plot(path, f"{title}: {landscape.wanted}", landscape)


def _plot_maps(path: Path, title: str, landscape: Landscape) -> None:
    x, y = landscape.ticks(0), landscape.ticks(1)
    levels = views.choose_loss_levels(landscape)
    ticks = 10.0 ** np.arange(np.ceil(np.log10(levels[0])), np.log10(levels[-1]))
    truth, target = landscape.surfaces[0], landscape.target
    with _open_panels(path, (11, 4.8), title, len(landscape.surfaces), sharex=True, sharey=True) as panels:
        for panel, surface in zip(panels, landscape.surfaces, strict=True):
            panel.grid(False)
            heights = np.clip(surface.loss, levels[0], None)
            norm = LogNorm(levels[0], levels[-1])
            drawn = panel.contourf(x, y, heights, levels, norm=norm, cmap="Greys", extend="min")
            panel.contour(x, y, heights, levels[::3], colors="#00000033", linewidths=0.6)
            if _crosses(surface, target):
                ink = COLOURS[surface.route]
                panel.contour(x, y, surface.outcome, [target], colors=ink, linewidths=1.6, linestyles="--")
            if surface is not truth and _crosses(truth, target):
                panel.contour(x, y, truth.outcome, [target], colors=COLOURS[truth.route], linewidths=1.1)
            for route, paths in surface.paths.items():
                colour = COLOURS[route]
                panel.plot(*paths.transpose(2, 0, 1), color=colour, marker=".", ms=4, path_effects=_HALO, zorder=3)
                panel.plot(*paths[0].T, "o", color="white", mec=colour, mew=1.8, ms=7, zorder=4)
                panel.plot(*paths[-1].T, "*", color=colour, mec="white", mew=0.8, ms=15, zorder=5, clip_on=False)
            panel.set(title=surface.title, xlabel=landscape.axes[0].label, xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        panels[0].set_ylabel(landscape.axes[1].label)
        figure = _get_figure(panels)
        bar = figure.colorbar(drawn, ax=list(panels), label=landscape.label, pad=0.02)
        bar.set_ticks(ticks.tolist())
        bar.minorticks_off()
        figure.legend(
            handles=_make_keys(landscape), loc="outside lower center", ncols=7, fontsize=10, columnspacing=1.4
        )


def _make_keys(landscape: Landscape) -> list[Line2D]:
    """What lines and markers mean, said once for all panels."""
    routes = dict.fromkeys(route for surface in landscape.surfaces for route in surface.paths)
    start = Line2D([], [], ls="", marker="o", color="white", mec="black", mew=1.8, ms=7, label="start")
    end = Line2D([], [], ls="", marker="*", color="black", ms=13, label="end")
    keys = [*(Line2D([], [], color=COLOURS[route], marker=".", label=route) for route in routes), start, end]
    if any(_crosses(surface, landscape.target) for surface in landscape.surfaces):
        keys.append(Line2D([], [], color="black", ls="--", lw=1.6, label="solutions seen here"))
        keys.append(Line2D([], [], color=COLOURS[landscape.surfaces[0].route], lw=1.1, label="true solutions"))
    return keys


def _crosses(surface: Surface, target: float | None) -> bool:
    """Whether some point of the surface is a solution, so that there is a curve to draw."""
    if target is None or surface.outcome is None:
        return False
    seen = surface.outcome[np.isfinite(surface.outcome)]
    return bool((seen <= target).any() and (seen >= target).any())


def _plot_curves(path: Path, title: str, landscape: Landscape) -> None:
    x, floor = landscape.ticks(0), views.choose_loss_levels(landscape)[0]
    with _open_panels(path, (9, 4.4), title) as (axes,):
        for surface in landscape.surfaces:
            heights = np.clip(surface.loss, floor, None)
            _draw_line(axes, x, heights, surface.route, label=surface.title)
            for route, paths in surface.paths.items():
                for at, what, marker, size in ((paths[0, :, 0], "start", "o", 7), (paths[-1, :, 0], "end", "*", 14)):
                    height, colour = np.interp(at, x, heights), COLOURS[route]
                    label = f"{route} {what}"
                    axes.plot(at, height, marker, color=colour, mec="white", ms=size, label=label, zorder=4)
        axes.set(yscale="log", xlabel=landscape.axes[0].label, ylabel=landscape.label, xlim=(x[0], x[-1]))
        axes.legend(fontsize=10, ncols=2)


def plot_belief(path: Path, title: str, picture: Mapping[str, Array], unit: str, tolerance: float) -> None:
    """What the surrogate route believed of its answers against the truth, a dot a target."""
    believed, miss = evidence.pick_misses(picture)
    low, high = zip(*(views.find_miss_range({"": values}, tolerance) for values in (believed, miss)), strict=True)
    with _open_panels(path, (6.4, 4.6), f"{title}: belief and truth of the surrogate route") as (axes,):
        axes.fill_between([low[0], tolerance], tolerance, high[1], color=COLOURS["surrogate"], alpha=0.1, lw=0)
        axes.text(low[0] * 1.5, high[1] / 1.2, "believed hit, in truth missed", va="top", color="#8A3C00", fontsize=10)
        axes.plot(believed, miss, ".", color=COLOURS["surrogate"], ms=4, alpha=0.6)
        for line in (axes.axhline, axes.axvline):
            line(tolerance, color="black", lw=1, ls=":")
        axes.set(xscale="log", yscale="log", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.set(xlabel=label_axis("believed miss", unit), ylabel=label_axis("miss, re-simulated", unit))


def plot_iterations(path: Path, title: str, picture: Mapping[str, Array]) -> None:
    """Gradient descent: how many starts have truly hit by step, and how many do in the end by step size."""
    with _open_panels(path, (10.5, 4), f"{title}: plain gradient descent", 2) as (left, right):
        for route in PAIR:
            curve = picture[f"curve_{route}"]
            _draw_line(
                left, np.arange(len(curve), dtype=float), 100 * curve, route, drawstyle="steps-post", label=route
            )
            _draw_line(right, picture["sizes"], 100 * picture[f"hit_{route}"], route, marker="o")
        left.set(xlabel="step of gradient descent", ylim=_PERCENT, title="each at its own best step size")
        left.set_ylabel("starts truly within the tolerance [%]")
        right.set(xscale="log", xlabel="step size", ylim=_PERCENT, title="in the end, by step size")
        left.legend()


def plot_basins(path: Path, title: str, picture: Mapping[str, Array], axes: Sequence[Axis]) -> None:
    """From where in the box the targets are truly hit: a map each over two controls, a curve over one."""
    if len(axes) == 1:
        with _open_panels(path, (8, 4), f"{title}: basins") as (panel,):
            for name, label in evidence.BASINS.items():
                route, width = name.removeprefix("gradient_"), 1.0 if name.startswith("gradient_") else 2.4
                share = 100 * picture[name]
                _draw_line(panel, picture["axis_x"], share, route, lw=width, drawstyle="steps-mid", label=label)
            panel.set(xlabel=axes[0].label, ylabel="targets hit from here [%]", ylim=_PERCENT)
            panel.legend()
        return
    heading = f"{title}: from where the targets are truly hit"
    with _open_panels(path, (13, 3.9), heading, len(evidence.BASINS), sharex=True, sharey=True) as panels:
        for panel, (name, label) in zip(panels, evidence.BASINS.items(), strict=True):
            panel.grid(False)
            share = 100 * picture[name]
            drawn = panel.pcolormesh(picture["axis_x"], picture["axis_y"], share, vmin=0, vmax=100, cmap="cividis")
            mean = 100 * float(np.nanmean(picture[name]))
            panel.set(title=f"{label}\n{mean:.3g} % on the whole", xlabel=axes[0].label)
            panel.title.set_fontsize(10.5)
            panel.locator_params(axis="x", nbins=4)
        panels[0].set_ylabel(axes[1].label)
        figure = _get_figure(panels)
        figure.colorbar(drawn, ax=list(panels), label="targets hit from here [%]", pad=0.01)


def plot_conditioning(path: Path, title: str, picture: Mapping[str, Array]) -> None:
    """Condition numbers of the loss's Hessian along the descents, and its eigenvalues at solutions."""
    with _open_panels(path, (10.5, 4), f"{title}: conditioning", 2) as (left, right):
        for route, offset in zip(PAIR, (-0.08, 0.08), strict=True):
            ordered, shares = views.accumulate(picture[f"hessian_condition_{route}"])
            _draw_line(left, ordered, 100 * shares, route, drawstyle="steps-post", label=route)
            low, middle, high = evidence.find_eigenvalue_quantiles(picture[f"eigenvalues_{route}"])
            at, error, colour = np.arange(1, len(middle) + 1), [middle - low, high - middle], COLOURS[route]
            right.errorbar(at + offset, middle, error, fmt="o", color=colour, capsize=4, ms=6, label=route)
            right.axhline(0, color="black", lw=0.8)
            right.set(xticks=at, xlim=(0.5, len(at) + 0.5))
            right.set_yscale("symlog", linthresh=1e-6)
        left.set(xscale="log", xlabel="condition number of the Hessian", ylim=_PERCENT, title="along the descents")
        left.set_ylabel("points at most so badly conditioned [%]")
        left.legend()
        right.set(xlabel="eigenvalue of the Hessian, from the least", ylabel="of the loss, in the unit box")
        right.set_title("at the solutions")


def plot_gradients(path: Path, title: str, picture: Mapping[str, Array]) -> None:
    """Autograd against central differences by their width, and the angle between surrogate and true gradient."""
    with _open_panels(path, (10.5, 4), f"{title}: gradients", 2) as (left, right):
        low, middle, high = evidence.find_error_quantiles(picture)
        _draw_band(left, picture["scales"], low, middle, high, "direct", marker="o", ms=4)
        left.set(xscale="log", yscale="log", xlabel="width of the difference [box lengths]", ylabel="relative error")
        left.set_title("simulator's gradient against differences")
        ordered, shares = views.accumulate(picture["cosine"])
        _draw_line(right, ordered, 100 * shares, "surrogate", drawstyle="steps-post")
        right.set(xlabel="cosine of surrogate's and true gradient", ylabel="points with at most this [%]")
        right.set(xlim=(-1.02, 1.02), ylim=_PERCENT, title="do both point the same way?")


@contextmanager
def _open_panels(
    path: Path, size: tuple[float, float], title: str, count: int = 1, **shared: Any
) -> Iterator[Sequence[Axes]]:
    """Panels side by side in a figure that becomes a PNG file; its title is above them all where each has one."""
    with new_figure(path, size) as figure:
        panels = figure.subplots(1, count, squeeze=False, **shared)[0]
        yield panels
        if panels[0].get_title():
            figure.suptitle(title)
        else:
            panels[0].set_title(title)


def _get_figure(panels: Sequence[Axes]) -> Figure:
    figure = panels[0].get_figure(root=True)
    assert figure is not None
    return figure


def _draw_line(axes: Axes, x: Array, y: Array, route: str, **style: Any) -> None:
    axes.plot(x, y, LINES[route], color=COLOURS[route], **style)


def _draw_band(axes: Axes, x: Array, low: Array, middle: Array, high: Array, route: str, **style: Any) -> None:
    axes.fill_between(x, low, high, color=COLOURS[route], alpha=0.2, lw=0)
    _draw_line(axes, x, middle, route, label=route, **style)
