"""The still figures of what the routes did. Plain arrays in, PNG files out; they know nothing of tasks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import ScalarFormatter

from aimback.evaluate.tables import Array
from aimback.report.canvas import COLOURS, LINES, label_axis, new_figure
from aimback.report.views import Landscape, Surface, accumulate, bands, find_last_change, find_share_within

_SECOND = "#5B6570"
_HALO = [withStroke(linewidth=3.5, foreground="white")]
LOSS_FLOOR, MISS_FLOOR = 1e-33, 1e-16  # a hit to the last bit has no logarithm


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
    path: Path, title: str, losses: Mapping[str, Array], misses: Mapping[str, Array], unit: str, tolerance: float
) -> None:
    """Loss by the route's own map, and true miss, by solver step: median and 10 % to 90 % of the targets.

    Args:
        losses, misses: by route, `(n_steps + 1, n_targets)`.
    """
    with new_figure(path, (10.5, 4.2)) as figure:
        left, right = figure.subplots(1, 2)
        _bands(left, losses, LOSS_FLOOR)
        left.set(xlabel="solver step", ylabel="loss, (believed miss / span)²", title="as the route itself believes")
        _bands(right, misses, MISS_FLOOR)
        right.axhline(tolerance, color="black", lw=1, ls=":", label=f"tolerance, {tolerance:g} {unit}".rstrip())
        right.set(xlabel="solver step", ylabel=label_axis("miss", unit), title="re-simulated: the truth")
        right.legend()
        for axes in (left, right):
            axes.set_xlim(0, 1.1 * find_last_change([*losses.values(), *misses.values()]) + 1)
        figure.suptitle(f"{title}: the answers' way to the target (median, 10 % to 90 % of targets)")


def plot_misses(path: Path, title: str, misses: Mapping[str, Array], unit: str, tolerance: float) -> None:
    """Which share of the targets is missed by at most so much; one that has no finite answer never counts.

    Args:
        misses: by route, `(n_targets,)`; zeros lie at the left edge.
    """
    lowest, highest = miss_range(misses, tolerance)
    with new_figure(path, (7, 4)) as figure:
        axes = figure.add_subplot()
        for route, values in misses.items():
            found, shares = accumulate(values)
            x = np.concatenate([[lowest], np.maximum(found, lowest), [highest]])
            y = np.concatenate([[0.0], shares, shares[-1:] if len(found) else [0.0]])
            label = f"{route}: {100 * find_share_within(values, tolerance):.4g} % solved"
            axes.plot(x, 100 * y, LINES[route], color=COLOURS[route], drawstyle="steps-post", label=label)
        axes.axvline(tolerance, color="black", lw=1, ls=":", label=f"tolerance, {tolerance:g} {unit}".rstrip())
        axes.set(xscale="log", xlim=(lowest, highest), ylim=(0, 102))
        axes.set(xlabel=label_axis("miss, re-simulated", unit), ylabel="targets missed by at most this [%]")
        axes.set_title(f"{title}: how far the answers miss")
        axes.legend()


def miss_range(misses: Mapping[str, Array], tolerance: float) -> tuple[float, float]:
    """The ends of a logarithmic axis that shows every miss, and the tolerance."""
    positive = np.concatenate([values[np.isfinite(values) & (values > 0)] for values in misses.values()])
    lowest, highest = (positive.min(), positive.max()) if positive.size else (tolerance, tolerance)
    return min(lowest, tolerance) / 3, max(highest, tolerance) * 3


def plot_r_t(path: Path, title: str, curves: Mapping[str, Array]) -> None:
    """The published metric r_T by the number of candidates: mean, and quartiles of the targets.

    Args:
        curves: by route, `(n_candidates, 4)`: T, mean, lower and upper quartile.
    """
    with new_figure(path, (7, 4)) as figure:
        axes = figure.add_subplot()
        for route, curve in curves.items():
            count, mean, low, high = curve.T
            axes.fill_between(count, low, high, color=COLOURS[route], alpha=0.2, lw=0)
            marker = "o" if len(count) == 1 else None
            axes.plot(count, mean, LINES[route], color=COLOURS[route], marker=marker, label=route)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set(yscale="log", xlabel="T, candidates simulated again", ylabel="r_T, least squared miss")
        axes.set_title(f"{title}: the best of T candidates (mean, quartiles of targets)")
        axes.legend()


def plot_trajectories(
    path: Path, title: str, trajectories: Mapping[str, Array], goals: Array, misses: Mapping[str, Array], unit: str
) -> None:
    """What the answers do when they are simulated again, a panel a route.

    Args:
        trajectories: by route, `(n_shown, points, 2)`.
        goals: where they should end, `(n_shown, 2)`.
        misses: by route, `(n_shown,)`.
    """
    with new_figure(path, (5.25 * max(len(trajectories), 2), 3.9)) as figure:
        panels = figure.subplots(1, len(trajectories), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (route, lines) in zip(panels, trajectories.items(), strict=True):
            for line in lines:
                axes.plot(line[:, 0], line[:, 1], color=COLOURS[route], lw=1.6)
            axes.plot(lines[:, -1, 0], lines[:, -1, 1], "o", color=COLOURS[route], ms=5, label="reached", zorder=3)
            axes.plot(*goals.T, "x", color="black", ms=9, mew=1.6, label="target", zorder=4, clip_on=False)
            axes.set_title(f"{route}: misses by at most {misses[route].max():.2g} {unit}".rstrip())
            axes.set(xlabel=label_axis("x", unit), ylabel=label_axis("y", unit))
            axes.legend(loc="upper right")
        figure.suptitle(f"{title}: {len(goals)} answers, simulated again")


def plot_surfaces(path: Path, title: str, landscape: Landscape) -> None:
    """The losses with the descents on them: maps side by side over two controls, curves over one."""
    if len(landscape.axes) == 1:
        _plot_curves(path, title, landscape)
    else:
        _plot_maps(path, title, landscape)


def _plot_maps(path: Path, title: str, landscape: Landscape) -> None:
    x, y = landscape.ticks(0), landscape.ticks(1)
    levels = loss_levels(landscape)
    ticks = 10.0 ** np.arange(np.ceil(np.log10(levels[0])), np.log10(levels[-1]))
    truth = landscape.surfaces[0]
    with new_figure(path, (11, 4.8)) as figure:
        panels = figure.subplots(1, len(landscape.surfaces), sharex=True, sharey=True, squeeze=False)[0]
        for panel, surface in zip(panels, landscape.surfaces, strict=True):
            panel.grid(False)
            heights = np.clip(surface.loss, levels[0], None)
            norm = LogNorm(levels[0], levels[-1])
            drawn = panel.contourf(x, y, heights, levels, norm=norm, cmap="Greys", extend="min")
            panel.contour(x, y, heights, levels[::3], colors="#00000033", linewidths=0.6)
            ink = COLOURS[surface.route]
            if _crosses(surface, landscape.target):
                panel.contour(x, y, surface.outcome, [landscape.target], colors=ink, linewidths=1.6, linestyles="--")
            if surface is not truth and _crosses(truth, landscape.target):
                colour = COLOURS[truth.route]
                panel.contour(x, y, truth.outcome, [landscape.target], colors=colour, linewidths=1.1)
            for route, paths in surface.paths.items():
                colour = COLOURS[route]
                panel.plot(*paths.transpose(2, 0, 1), color=colour, marker=".", ms=4, path_effects=_HALO, zorder=3)
                panel.plot(*paths[0].T, "o", color="white", mec=colour, mew=1.8, ms=7, zorder=4)
                panel.plot(*paths[-1].T, "*", color=colour, mec="white", mew=0.8, ms=15, zorder=5, clip_on=False)
            panel.set(title=surface.title, xlabel=landscape.axes[0].label, xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        panels[0].set_ylabel(landscape.axes[1].label)
        bar = figure.colorbar(drawn, ax=list(panels), label="loss, (miss / span)²", pad=0.02)
        bar.set_ticks(ticks.tolist())
        bar.minorticks_off()
        figure.legend(handles=_keys(landscape), loc="outside lower center", ncols=7, fontsize=10, columnspacing=1.4)
        figure.suptitle(f"{title}: {landscape.wanted}")


def _keys(landscape: Landscape) -> list[Line2D]:
    """What lines and markers mean, said once for all panels."""
    routes = dict.fromkeys(route for surface in landscape.surfaces for route in surface.paths)
    start = Line2D([], [], ls="", marker="o", color="white", mec="black", mew=1.8, ms=7, label="start")
    end = Line2D([], [], ls="", marker="*", color="black", ms=13, label="end")
    keys = [*(Line2D([], [], color=COLOURS[route], marker=".", label=route) for route in routes), start, end]
    if any(_crosses(surface, landscape.target) for surface in landscape.surfaces):
        keys.append(Line2D([], [], color="black", ls="--", lw=1.6, label="solutions seen here"))
        keys.append(Line2D([], [], color=COLOURS[landscape.surfaces[0].route], lw=1.1, label="true solutions"))
    return keys


def _plot_curves(path: Path, title: str, landscape: Landscape) -> None:
    x, floor = landscape.ticks(0), loss_levels(landscape)[0]
    with new_figure(path, (9, 4.4)) as figure:
        axes = figure.add_subplot()
        for surface in landscape.surfaces:
            heights = np.clip(surface.loss, floor, None)
            colour = COLOURS[surface.route]
            axes.plot(x, heights, LINES[surface.route], color=colour, label=surface.title)
            for route, paths in surface.paths.items():
                for at, marker, size in ((paths[0, :, 0], "o", 7), (paths[-1, :, 0], "*", 14)):
                    label = f"{route} {'start' if marker == 'o' else 'end'}"
                    height, colour = np.interp(at, x, heights), COLOURS[route]
                    axes.plot(at, height, marker, color=colour, mec="white", ms=size, label=label, zorder=4)
        axes.set(yscale="log", xlabel=landscape.axes[0].label, ylabel="loss, (miss / span)²", xlim=(x[0], x[-1]))
        axes.set_title(f"{title}: {landscape.wanted}")
        axes.legend(fontsize=10, ncols=2)


def loss_levels(landscape: Landscape) -> Array:
    """Sixteen losses, the same ratio apart: five decades up to the greatest finite one."""
    worst = max(
        float(surface.loss[np.isfinite(surface.loss)].max(initial=LOSS_FLOOR)) for surface in landscape.surfaces
    )
    return np.asarray(10.0 ** np.linspace(-5, 0, 16) * worst)


def _crosses(surface: Surface, target: float | None) -> bool:
    """Whether some point of the surface is a solution, so that there is a curve to draw."""
    if target is None or surface.outcome is None:
        return False
    seen = surface.outcome[np.isfinite(surface.outcome)]
    return bool((seen <= target).any() and (seen >= target).any())


def _bands(axes: Axes, curves: Mapping[str, Array], floor: float) -> None:
    for route, (low, middle, high) in bands(curves, floor).items():
        steps = np.arange(len(middle))
        axes.fill_between(steps, low, high, color=COLOURS[route], alpha=0.2, lw=0)
        axes.plot(steps, middle, LINES[route], color=COLOURS[route], label=route)
    axes.set_yscale("log")
    axes.legend()
