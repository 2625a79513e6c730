"""The still figures of the claims: the arrays that `aimback.diagnose` measured, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from aimback.core.box import Axis
from aimback.data.archive import Stored
from aimback.evaluate.tables import Array
from aimback.report.canvas import COLOURS, LINES, label_axis, new_figure
from aimback.report.views import accumulate

BASINS = {
    "direct": "direct",
    "surrogate": "surrogate",
    "gradient_direct": "direct, gradient descent",
    "gradient_surrogate": "surrogate, gradient descent",
}
# The arrays of a claim's picture and their dimensions, by figure; see `aimback.diagnose`. One that has the name of its
# dimension is the axis that others are drawn over.
PICTURES: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "belief": ("C1", {"believed": ("targets",), "miss": ("targets",)}),
    "iterations": (
        "C2",
        {
            "sizes": ("sizes",),
            **dict.fromkeys(("hit_direct", "hit_surrogate"), ("sizes",)),
            **dict.fromkeys(("curve_direct", "curve_surrogate"), ("steps",)),
        },
    ),
    "basins": (
        "C5",
        {"axis_x": ("axis_x",), "axis_y": ("axis_y",), **dict.fromkeys(BASINS, ("axis_y", "axis_x"))},
    ),
    "conditioning": (
        "C6",
        {
            "hessian_condition_direct": ("points_direct",),
            "hessian_condition_surrogate": ("points_surrogate",),
            "eigenvalues_direct": ("solutions_direct", "controls"),
            "eigenvalues_surrogate": ("solutions_surrogate", "controls"),
        },
    ),
    "gradients": ("C7", {"scales": ("scales",), "relative_error": ("scales", "points"), "cosine": ("alike",)}),
}
PAIR = ("direct", "surrogate")


def declare_arrays(figure: str, controls: int) -> dict[str, Stored]:
    """What the arrays of a figure must be; with one control there is no second axis."""
    missing = () if controls > 1 else ("axis_y",)
    _, shapes = PICTURES[figure]
    kept = {name: tuple(size for size in shape if size not in missing) for name, shape in shapes.items()}
    return {name: Stored("float64", shape, finite=shape == (name,)) for name, shape in kept.items() if shape}


def plot_belief(path: Path, title: str, picture: Mapping[str, Array], unit: str, tolerance: float) -> None:
    """What the surrogate route believed of its answers against the truth, a dot a target."""
    believed, miss = pick_misses(picture)
    with new_figure(path, (6.4, 4.6)) as figure:
        axes = figure.add_subplot()
        low = believed.min(initial=tolerance) / 3, miss.min(initial=tolerance) / 3
        high = believed.max(initial=tolerance) * 3, miss.max(initial=tolerance) * 3
        axes.fill_between([low[0], tolerance], tolerance, high[1], color=COLOURS["surrogate"], alpha=0.1, lw=0)
        axes.text(low[0] * 1.5, high[1] / 1.2, "believed hit, in truth missed", va="top", color="#8A3C00", fontsize=10)
        axes.plot(believed, miss, ".", color=COLOURS["surrogate"], ms=4, alpha=0.6)
        for line in (axes.axhline, axes.axvline):
            line(tolerance, color="black", lw=1, ls=":")
        axes.set(xscale="log", yscale="log", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.set(xlabel=label_axis("believed miss", unit), ylabel=label_axis("miss, re-simulated", unit))
        axes.set_title(f"{title}: belief and truth of the surrogate route")


def pick_misses(picture: Mapping[str, Array]) -> tuple[Array, Array]:
    """Both misses of the targets that have them, `(n,)` each, at least 1e-16: zero has no logarithm."""
    believed, miss = picture["believed"], picture["miss"]
    there = np.isfinite(believed) & np.isfinite(miss)
    return np.maximum(believed[there], 1e-16), np.maximum(miss[there], 1e-16)


def plot_iterations(path: Path, title: str, picture: Mapping[str, Array]) -> None:
    """Gradient descent: how many starts have truly hit by step, and how many do in the end by step size."""
    with new_figure(path, (10.5, 4)) as figure:
        left, right = figure.subplots(1, 2)
        for route in PAIR:
            curve = picture[f"curve_{route}"]
            colour, line = COLOURS[route], LINES[route]
            left.plot(np.arange(len(curve)), 100 * curve, line, color=colour, drawstyle="steps-post", label=route)
            right.plot(picture["sizes"], 100 * picture[f"hit_{route}"], line, color=colour, marker="o")
        left.set(xlabel="step of gradient descent", ylim=(-2, 102), title="each at its own best step size")
        left.set_ylabel("starts truly within the tolerance [%]")
        right.set(xscale="log", xlabel="step size", ylim=(-2, 102), title="in the end, by step size")
        left.legend()
        figure.suptitle(f"{title}: plain gradient descent")


def plot_basins(path: Path, title: str, picture: Mapping[str, Array], axes: Sequence[Axis]) -> None:
    """From where in the box the targets are truly hit: a map each over two controls, a curve over one."""
    if len(axes) == 1:
        with new_figure(path, (8, 4)) as figure:
            panel = figure.add_subplot()
            for name, label in BASINS.items():
                route = name.removeprefix("gradient_")
                width, colour = 1.0 if name.startswith("gradient_") else 2.4, COLOURS[route]
                (line,) = panel.plot(picture["axis_x"], 100 * picture[name], LINES[route], color=colour, lw=width)
                line.set(drawstyle="steps-mid", label=label)
            panel.set(xlabel=axes[0].label, ylabel="targets hit from here [%]", ylim=(-2, 102))
            panel.set_title(f"{title}: basins")
            panel.legend()
        return
    with new_figure(path, (13, 3.9)) as figure:
        panels = figure.subplots(1, len(BASINS), sharex=True, sharey=True)
        for panel, (name, label) in zip(panels, BASINS.items(), strict=True):
            panel.grid(False)
            drawn = panel.pcolormesh(
                picture["axis_x"], picture["axis_y"], 100 * picture[name], vmin=0, vmax=100, cmap="cividis"
            )
            mean = 100 * float(np.nanmean(picture[name]))
            panel.set(title=f"{label}\n{mean:.3g} % on the whole", xlabel=axes[0].label)
            panel.title.set_fontsize(10.5)
            panel.locator_params(axis="x", nbins=4)
        panels[0].set_ylabel(axes[1].label)
        figure.colorbar(drawn, ax=list(panels), label="targets hit from here [%]", pad=0.01)
        figure.suptitle(f"{title}: from where the targets are truly hit")


def plot_conditioning(path: Path, title: str, picture: Mapping[str, Array]) -> None:
    """Condition numbers of the loss's Hessian along the descents, and its eigenvalues at solutions."""
    with new_figure(path, (10.5, 4)) as figure:
        left, right = figure.subplots(1, 2)
        for route in PAIR:
            ordered, shares = accumulate(picture[f"hessian_condition_{route}"])
            (line,) = left.plot(ordered, 100 * shares, LINES[route], color=COLOURS[route], label=route)
            line.set_drawstyle("steps-post")
            _plot_eigenvalues(right, route, picture[f"eigenvalues_{route}"])
        left.set(
            xscale="log", xlabel="condition number of the Hessian", ylabel="points at most so badly conditioned [%]"
        )
        left.set(title="along the descents", ylim=(-2, 102))
        left.legend()
        right.set(xlabel="eigenvalue of the Hessian, from the least", ylabel="of the loss, in the unit box")
        right.set_title("at the solutions")
        figure.suptitle(f"{title}: conditioning")


def eigenvalue_quantiles(values: Array) -> Array:
    """10 %, 50 %, 90 % quantile over solutions of each eigenvalue, from the least on, `(3, n_controls)`."""
    finite = np.sort(values[np.isfinite(values).all(-1)], axis=-1)
    if len(finite) == 0:
        return np.full((3, values.shape[-1]), np.nan)
    return np.asarray(np.quantile(finite, [0.1, 0.5, 0.9], axis=0))


def _plot_eigenvalues(axes: Axes, route: str, values: Array) -> None:
    low, middle, high = eigenvalue_quantiles(values)
    offset = 0.08 if route == "surrogate" else -0.08
    at = np.arange(1, len(middle) + 1) + offset
    axes.errorbar(
        at, middle, [middle - low, high - middle], fmt="o", color=COLOURS[route], capsize=4, ms=6, label=route
    )
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xticks=np.arange(1, len(middle) + 1), xlim=(0.5, len(middle) + 0.5))
    axes.set_yscale("symlog", linthresh=1e-6)


def plot_gradients(path: Path, title: str, picture: Mapping[str, Array]) -> None:
    """Autograd against central differences by their width, and the angle between surrogate and true gradient."""
    with new_figure(path, (10.5, 4)) as figure:
        left, right = figure.subplots(1, 2)
        low, middle, high = error_quantiles(picture)
        left.fill_between(picture["scales"], low, high, color=COLOURS["direct"], alpha=0.2, lw=0)
        left.plot(picture["scales"], middle, LINES["direct"], color=COLOURS["direct"], marker="o", ms=4)
        left.set(xscale="log", yscale="log", xlabel="width of the difference [box lengths]", ylabel="relative error")
        left.set_title("simulator's gradient against differences")
        ordered, shares = accumulate(picture["cosine"])
        right.plot(ordered, 100 * shares, LINES["surrogate"], color=COLOURS["surrogate"], drawstyle="steps-post")
        right.set(xlabel="cosine of surrogate's and true gradient", ylabel="points with at most this [%]")
        right.set(xlim=(-1.02, 1.02), ylim=(-2, 102), title="do both point the same way?")
        figure.suptitle(f"{title}: gradients")


def error_quantiles(picture: Mapping[str, Array]) -> Array:
    """10 %, 50 %, 90 % quantile of the relative error at each scale, `(3, k)`; NaN where none is finite."""
    quantiles = np.full((3, len(picture["scales"])), np.nan)
    for index, errors in enumerate(picture["relative_error"]):
        finite = errors[np.isfinite(errors)]
        if len(finite):
            quantiles[:, index] = np.quantile(np.maximum(finite, 1e-17), [0.1, 0.5, 0.9])
    return quantiles
