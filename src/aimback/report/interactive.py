"""The figures that people can turn, enlarge and query: plain arrays in, Plotly's JSON out.

A figure is a list of panels, each a Plotly figure of its own, so that a page can put them side by side or below each
other. Colours of paper, ink and grid are left to the page, which knows whether it is dark; the same arrays give the
same text. The JSON is written out here: Plotly's own classes for it take longer to import than all figures to draw.
"""

import base64
import json
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aimback.core.box import Axis
from aimback.evaluate.tables import Array
from aimback.report.canvas import COLOURS, LINES, label_axis, label_tolerance
from aimback.report.evidence import BASINS, PAIR, find_eigenvalue_quantiles, find_error_quantiles, pick_misses
from aimback.report.sweep import DECADES, Side, Sweep
from aimback.report.text import say_amount
from aimback.report.views import (
    LOSS_FLOOR,
    MISS_FLOOR,
    Landscape,
    Surface,
    accumulate,
    choose_loss_levels,
    find_bands,
    find_last_change,
    find_miss_range,
    find_share_within,
)

Panel: TypeAlias = dict[str, Any]

_DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
_FEW = 16  # controls whose numbers can all stand below an axis
_SEEN = 201  # points along a curve: more are not told apart on a screen
_DECADES = (1, 2, 3, 5, 10, 20, 50, 100, 200)  # between two ticks
_INK = "#808080"  # read on light and on dark paper
_GREYS = [[0, "#FFFFFF"], [0.5, "#B9BDC2"], [1, "#4A5058"]]
_CIVIDIS = (
    "#00224e",
    "#123570",
    "#3b496c",
    "#575d6d",
    "#707173",
    "#8a8678",
    "#a59c74",
    "#c3b369",
    "#e1cc55",
    "#fee838",
)


def read_script() -> str:
    """Plotly's own JavaScript, whole, so that a page needs no network."""
    script = pkgutil.get_data("plotly", "package_data/plotly.min.js")
    assert script is not None
    return script.decode("utf-8")


def to_json(panels: Sequence[Panel], takeaway: str = "") -> str:
    """A figure as JSON: its panels, a list of {"data": ..., "layout": ...}, and what it comes down to."""
    return json.dumps({"panels": panels, "takeaway": takeaway}, sort_keys=True, allow_nan=False)


def draw_surfaces(landscape: Landscape) -> list[Panel]:
    """The losses with the descents on them: surfaces over two controls, curves over one."""
    if len(landscape.axes) == 1:
        return [_draw_curves(landscape)]
    return [_draw_surface(landscape, surface, choose_loss_levels(landscape)) for surface in landscape.surfaces]


def _draw_surface(landscape: Landscape, surface: Surface, levels: Array) -> Panel:
    x, y = landscape.ticks(0), landscape.ticks(1)
    loss = np.where(np.isfinite(surface.loss), surface.loss, np.nan)
    shown = loss[::2, ::2]
    first, second = landscape.axes
    deepest, greatest = float(np.log10(levels[0])), float(levels[-1])
    traces: list[Panel] = [
        {
            "type": "surface",
            "x": _encode(x[::2]),
            "y": _encode(y[::2]),
            "z": _encode(shown),
            # The height is the loss itself, the shade its logarithm: so the valley shows, too.
            "surfacecolor": _encode(np.log10(np.clip(shown, levels[0], None))),
            "cmin": deepest,
            "cmax": float(np.log10(levels[-1])),
            "colorscale": _GREYS,
            "showscale": False,
            "lighting": {"ambient": 0.75, "diffuse": 0.5, "specular": 0.05, "roughness": 0.9},
            "contours": {axis: {"highlight": False} for axis in "xyz"},
            "hovertemplate": f"{first.name} %{{x:.3g}}<br>{second.name} %{{y:.3g}}<br>loss %{{z:.3g}}<extra></extra>",
        }
    ]
    for route, paths in surface.paths.items():
        # One line of all starts, broken between them.
        broken = np.concatenate([paths, np.full((1, *paths.shape[1:]), np.nan)]).transpose(1, 0, 2).reshape(-1, 2)
        for points, mode, what, symbol in (
            (broken, "lines+markers", "descent", "circle"),
            (paths[0], "markers", "start", "circle-open"),
            (paths[-1], "markers", "end", "diamond"),
        ):
            hover = f"{route} {what}<br>{first.name} %{{x:.4g}}<br>{second.name} %{{y:.4g}}<extra></extra>"
            marker = {"color": COLOURS[route], "size": 6 if mode == "markers" else 2.5, "symbol": symbol}
            dots = _draw_dots(points[:, 0], points[:, 1], f"{route} {what}", marker, hover)
            # Above the surface, which would hide half of a mark.
            lift = (0.06 if mode == "markers" else 0.01) * greatest
            height = _encode(_find_height(x, y, loss, points) + lift)
            line = {"color": COLOURS[route], "width": 5}
            traces.append(dots | {"type": "scatter3d", "mode": mode, "line": line, "z": height})
    scene = {
        "xaxis": _axis(first.label, nticks=6),
        "yaxis": _axis(second.label, nticks=6),
        "zaxis": _axis("loss", range=[0, 1.03 * greatest], nticks=5),
        "aspectratio": {"x": 1.1, "y": 1.1, "z": 0.75},
        "camera": {"eye": {"x": -1.35, "y": -1.35, "z": 1.05}, "center": {"x": 0, "y": 0, "z": -0.22}},
    }
    return _panel(f"{surface.title}; {landscape.wanted}", traces, scene=scene, margin={"l": 0, "r": 0, "t": 26, "b": 0})


def _find_height(x: Array, y: Array, surface: Array, points: Array) -> Array:
    """The surface's height under points `(n, 2)`, bilinear; NaN where the surface or the point is."""
    place = [np.clip((points[:, i] - t[0]) / (t[1] - t[0]), 0, len(t) - 1) for i, t in enumerate((x, y))]
    there = np.isfinite(points).all(-1)
    column, row = (np.where(there, p, 0) for p in place)
    left, low = (np.minimum(p.astype(int), len(t) - 2) for p, t in ((column, x), (row, y)))
    right, up = column - left, row - low
    bottom = surface[low, left] * (1 - right) + surface[low, left + 1] * right
    top = surface[low + 1, left] * (1 - right) + surface[low + 1, left + 1] * right
    return np.asarray(np.where(there, bottom * (1 - up) + top * up, np.nan))


def _draw_curves(landscape: Landscape) -> Panel:
    x, levels = landscape.ticks(0), choose_loss_levels(landscape)
    traces = []
    for surface in landscape.surfaces:
        heights = np.clip(surface.loss, levels[0], None)
        traces.append(_draw_line(x, heights, surface.route, surface.title))
        for route, paths in surface.paths.items():
            for at, what, symbol in ((paths[0, :, 0], "start", "circle-open"), (paths[-1, :, 0], "end", "star")):
                marker = {"color": COLOURS[route], "size": 10, "symbol": symbol}
                traces.append(_draw_dots(at, np.interp(at, x, heights), f"{route} {what}", marker))
    return _panel("", traces, xaxis=_axis(landscape.axes[0].label), yaxis=_log_axis(landscape.label, levels))


def draw_sweep(sweep: Sweep) -> list[Panel]:
    """Both losses with the descents, the flights and the answers, target by target: panels with frames."""
    finite = np.concatenate([side.loss[np.isfinite(side.loss)] for side in sweep.sides])
    worst = float(finite.max(initial=np.finfo(float).tiny))
    panels = [_draw_side(sweep, side, worst) for side in sweep.sides]
    if sweep.goals is not None:
        panels.append(_draw_flights(sweep, sweep.goals))
    return [*panels, _draw_reached(sweep)]


def _draw_side(sweep: Sweep, side: Side, worst: float) -> Panel:
    frames = []
    x = np.linspace(sweep.axes[0].lower, sweep.axes[0].upper, side.loss.shape[-1])
    marker, ends = (
        {"color": COLOURS[side.route]},
        ({"symbol": "circle-open", "size": 8}, {"symbol": "star", "size": 13}),
    )
    for frame, loss in enumerate(side.loss):
        paths, heights = side.paths[:, frame], np.clip(loss, worst * 10.0**-DECADES, None)
        if len(sweep.axes) == 1:
            traces = [_draw_line(x, heights, side.route)]
            dots = [(at, np.interp(at, x, heights)) for at in (paths[0, :, 0], paths[-1, :, 0])]
        else:
            up = np.linspace(sweep.axes[1].lower, sweep.axes[1].upper, side.loss.shape[-2])
            broken = np.concatenate([paths, np.full((1, *paths.shape[1:]), np.nan)]).transpose(1, 0, 2).reshape(-1, 2)
            traces = [
                _draw_shades(x, up, heights / worst),
                _draw_line(broken[:, 0], broken[:, 1], side.route, dash="solid"),
            ]
            dots = [(paths[0, :, 0], paths[0, :, 1]), (paths[-1, :, 0], paths[-1, :, 1])]
        for (across, high), what, look in zip(dots, ("start", "end"), ends, strict=True):
            traces.append(_draw_dots(across, high, what, marker | look))
        missed = f"{side.title}: misses by {say_amount(float(side.miss[frame]), sweep.unit)}"
        frames.append({"name": sweep.captions[frame], "title": missed, "data": traces})
    if len(sweep.axes) == 1:
        axis = _log_axis(sweep.label, worst * 10.0 ** np.array([-DECADES, 0.0]))
    else:
        axis = _axis(sweep.axes[1].label, range=[sweep.axes[1].lower, sweep.axes[1].upper])
    along = _axis(sweep.axes[0].label, range=[sweep.axes[0].lower, sweep.axes[0].upper])
    return _moving(side.title, frames, xaxis=along, yaxis=axis)


def _draw_shades(x: Array, y: Array, loss: Array) -> Panel:
    """A loss as shades of a byte each, dark where it is great: a page has hundreds of them."""
    shades = np.nan_to_num(255 * (1 + np.log10(loss) / DECADES), nan=255.0).round().astype(np.uint8)
    encoded = {"dtype": "u1", "bdata": base64.b64encode(shades.tobytes()).decode("ascii")}
    return {
        "type": "heatmap",
        "x": _encode(x),
        "y": _encode(y),
        "z": encoded | {"shape": ", ".join(map(str, shades.shape))},
        "zmin": 0,
        "zmax": 255,
        "colorscale": _GREYS,
        "showscale": False,
        "zsmooth": "best",
        "hoverinfo": "skip",
    }


def _draw_flights(sweep: Sweep, goals: Array) -> Panel:
    cross = {"symbol": "x-thin", "size": 11, "line": {"color": _INK, "width": 2.5}}
    flown = [(side.route, side.flights) for side in sweep.sides if side.flights is not None]
    frames = [
        {
            "name": caption,
            "data": [
                *(_draw_line(flights[frame, :, 0], flights[frame, :, 1], route) for route, flights in flown),
                _draw_dots(goals[frame : frame + 1, 0], goals[frame : frame + 1, 1], "target", cross),
            ],
        }
        for frame, caption in enumerate(sweep.captions)
    ]
    seen = np.concatenate([*(flights.reshape(-1, 2) for _, flights in flown), goals])
    axes = {}
    for name, values in zip("xy", seen.T, strict=True):
        low, high = np.nanmin(values), np.nanmax(values)
        axes[f"{name}axis"] = _axis(name, range=[low - 0.05 * (high - low), high + 0.05 * (high - low)])
    return _moving("the answers, simulated again", frames, **axes)


def _draw_reached(sweep: Sweep) -> Panel:
    frames = []
    for frame, caption in enumerate(sweep.captions):
        traces = []
        for side in sweep.sides:
            look = {"color": COLOURS[side.route], "size": 13}
            for value, what, symbol in (
                (side.reached[frame], "simulated again", "circle"),
                (side.believed[frame], "as believed", "circle-open"),
            ):
                hover = f"{side.route}, {what}: %{{y:.3g}} {sweep.outcome.unit}<extra></extra>"
                dot = _draw_dots(
                    np.array([]), np.array([value]), f"{side.route} {what}", look | {"symbol": symbol}, hover
                )
                traces.append(dot | {"x": [side.route]})
        frames.append({"name": caption, "data": traces})
    all_of = np.concatenate([part for side in sweep.sides for part in (side.reached, side.believed)])
    most = 1.15 * max(float(np.nanmax(np.abs(all_of[np.isfinite(all_of)]), initial=0)), 1.5 * sweep.outcome.upper)
    band = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": sweep.outcome.lower, "y1": sweep.outcome.upper}
    shade = {"fillcolor": "rgba(128,128,128,0.22)", "line": {"width": 0}, "layer": "below"}
    off = _axis(label_axis(f"{sweep.outcome.name}, off the target", sweep.outcome.unit), range=[-most, most])
    routes = _axis("", type="category", range=[-0.6, len(sweep.sides) - 0.4])
    title = "believed (ring) and simulated again (dot); shaded: within the tolerance"
    return _moving(title, frames, xaxis=routes, yaxis=off, shapes=[band | shade])


def _moving(title: str, frames: Sequence[Panel], **layout: Any) -> Panel:
    """A panel with frames, of which the one in the middle is shown at first."""
    return _panel(title, frames[len(frames) // 2]["data"], **layout) | {"frames": list(frames)}


def draw_basins(picture: Mapping[str, Array], axes: Sequence[Axis]) -> list[Panel]:
    """From where in the box the targets are truly hit."""
    if len(axes) == 1:
        lines = []
        for name, label in BASINS.items():
            width = 1 if name.startswith("gradient_") else 2.5
            route, share = name.removeprefix("gradient_"), 100 * picture[name]
            lines.append(_draw_line(picture["axis_x"], share, route, label, shape="hvh", width=width))
        return [_panel("", lines, xaxis=_axis(axes[0].label), yaxis=_axis("targets hit [%]"))]
    panels = []
    for place, (name, label) in enumerate(BASINS.items()):
        heatmap = {
            "type": "heatmap",
            "x": _encode(picture["axis_x"]),
            "y": _encode(picture["axis_y"]),
            "z": _encode(100 * picture[name]),
            "zmin": 0,
            "zmax": 100,
            "colorscale": [[part / 9, colour] for part, colour in enumerate(_CIVIDIS)],
            "showscale": place == len(BASINS) - 1,  # one for all of them
            "colorbar": {"thickness": 8, "ticksuffix": " %", "nticks": 5, "outlinewidth": 0},
            "hovertemplate": f"from {axes[0].name} %{{x:.3g}}, {axes[1].name} %{{y:.3g}}<br>"
            "%{z:.3g} % of the targets hit<extra></extra>",
        }
        across, up = (_axis(axis.label, showgrid=False) for axis in axes)
        mean = 100 * float(np.nanmean(picture[name]))
        panels.append(_panel(f"{label}: {mean:.3g} %", [heatmap], xaxis=across, yaxis=up))
    return panels


def draw_misses(values: Mapping[str, Array], unit: str, tolerance: float) -> list[Panel]:
    """Which share of the targets is missed by at most so much, and how many by how much."""
    lowest, highest = find_miss_range(values, tolerance)
    edges = np.linspace(np.log10(lowest), np.log10(highest), 61)
    axis = _log_axis(label_axis("miss, re-simulated", unit), 10**edges) | {"range": [edges[0], edges[-1]]}
    shares, counts = [], []
    for route, missed in values.items():
        found, share = accumulate(missed)
        found = np.maximum(found, lowest)
        name = f"{route}: {100 * find_share_within(missed, tolerance):.4g} % solved"
        shares.append(_draw_share(found, share, route, name))
        many, _ = np.histogram(np.log10(found), edges)
        bars = _draw_line(10 ** ((edges[1:] + edges[:-1]) / 2), many, route, name, shape="hvh")
        counts.append(bars | {"fill": "tozeroy", "fillcolor": _fade(route)})
    mark = _mark("x", tolerance, unit)
    return [
        _panel("missed by at most this", shares, xaxis=axis, yaxis=_percent_axis("targets"), shapes=[mark]),
        _panel("missed by about this", counts, xaxis=axis, yaxis=_axis("targets"), shapes=[mark]),
    ]


def draw_loss(losses: Mapping[str, Array], missed: Mapping[str, Array], unit: str, tolerance: float) -> list[Panel]:
    """Loss by the route's own map, and true miss, by solver step: median and 10 % to 90 % of the targets."""
    last = 1.1 * find_last_change([*losses.values(), *missed.values()]) + 1
    shown = slice(int(last) + 2)
    panels = []
    for title, curves, floor, axis in (
        ("as the route itself believes", losses, LOSS_FLOOR, "loss"),
        ("re-simulated: the truth", missed, MISS_FLOOR, label_axis("miss", unit)),
    ):
        drawn = find_bands(curves, floor)
        traces = []
        for route, (low, middle, high) in drawn.items():
            step = np.arange(len(middle), dtype=float)[shown]
            traces.append(_draw_band(step, low[shown], high[shown], route))
            traces.append(_draw_line(step, middle[shown], route))
        up = _log_axis(axis, *(part for band in drawn.values() for part in band))
        panels.append(_panel(title, traces, xaxis=_axis("solver step", range=[0, last]), yaxis=up))
    panels[1]["layout"]["shapes"] = [_mark("y", tolerance, unit)]
    return panels


def draw_r_t(curves: Mapping[str, Array]) -> list[Panel]:
    """The published metric r_T by the number of candidates: median and quartiles of the targets."""
    counts, values = ([curve[:, part] for curve in curves.values()] for part in (0, slice(1, None)))
    most = max((float(count.max()) for count in counts if len(count)), default=1.0)
    along = _log_axis("T, candidates simulated again", *counts) | {"range": [-0.02, float(np.log10(1.05 * most))]}
    traces = []
    for route, curve in curves.items():
        count, _, low, middle, high = curve.T
        traces.append(_draw_band(count, low, high, route))
        traces.append(_draw_line(count, middle, route) | {"mode": "lines+markers"})
    return [_panel("", traces, xaxis=along, yaxis=_log_axis("r_T, least squared miss", *values))]


def draw_trajectories(
    paths: Mapping[str, Array], goals: Array, missed: Mapping[str, Array], unit: str, miss_unit: str
) -> list[Panel]:
    """What the answers do when they are simulated again, a panel a route."""
    everything = np.concatenate([*(lines.reshape(-1, 2) for lines in paths.values()), goals])
    axes = {}
    for name, values in zip("xy", everything.T, strict=True):
        seen = values[np.isfinite(values)]
        margin = 0.05 * (seen.max() - seen.min()) if seen.size else 0.0
        ends = {"range": [seen.min() - margin, seen.max() + margin]} if seen.size else {}
        axes[f"{name}axis"] = _axis(label_axis(name, unit), **ends)
    cross = {"symbol": "x-thin", "size": 10, "line": {"color": _INK, "width": 2}}
    targets = _draw_dots(goals[:, 0], goals[:, 1], "target", cross, "target %{x:.4g}<extra></extra>")
    panels = []
    for route, lines in paths.items():
        traces = []
        for (x, y), miss in zip(lines.transpose(0, 2, 1), missed[route], strict=True):
            hover = f"misses by {miss:.3g} {miss_unit}<extra></extra>"
            traces.append(_draw_line(x, y, route, dash="solid") | {"hovertemplate": hover})
        title = f"{route}: misses by at most {say_amount(float(missed[route].max()), miss_unit)}"
        panels.append(_panel(title, [*traces, targets], **axes))
    return panels


def draw_belief(picture: Mapping[str, Array], unit: str, tolerance: float) -> list[Panel]:
    """What the surrogate route believed of its answers against the truth, a dot a target."""
    believed, miss = pick_misses(picture)
    hover = "believed %{x:.3g}<br>in truth %{y:.3g}<extra></extra>"
    marker = {"color": COLOURS["surrogate"], "size": 4, "opacity": 0.6}
    dots = _draw_dots(believed, miss, "surrogate", marker, hover)
    across, up = (
        _log_axis(label_axis("believed miss", unit), believed, np.array([tolerance])),
        label_axis("miss, re-simulated", unit),
    )
    marks = [_mark(axis, tolerance, unit) for axis in "yx"]
    return [_panel("", [dots], xaxis=across, yaxis=_log_axis(up, miss), shapes=marks)]


def draw_iterations(picture: Mapping[str, Array]) -> list[Panel]:
    """Gradient descent: how many starts have truly hit by step, and how many do in the end by step size."""
    by_step, by_size = [], []
    for route in PAIR:
        curve = picture[f"curve_{route}"]
        by_step.append(_draw_line(np.arange(len(curve), dtype=float), 100 * curve, route, shape="hv"))
        by_size.append(_draw_line(picture["sizes"], 100 * picture[f"hit_{route}"], route) | {"mode": "lines+markers"})
    hit = _percent_axis("starts that truly hit")
    return [
        _panel("each at its own best step size", by_step, xaxis=_axis("step"), yaxis=hit),
        _panel("in the end, by step size", by_size, xaxis=_log_axis("step size", picture["sizes"]), yaxis=hit),
    ]


def draw_conditioning(picture: Mapping[str, Array]) -> list[Panel]:
    """Condition numbers of the loss's Hessian along the descents, and its eigenvalues at solutions."""
    conditions = [picture[f"hessian_condition_{route}"] for route in PAIR]
    curvatures = [find_eigenvalue_quantiles(np.abs(picture[f"eigenvalues_{route}"])) for route in PAIR]
    descents, solutions = [], []
    for route, condition, curvature in zip(PAIR, conditions, curvatures, strict=True):
        descents.append(_draw_share(*accumulate(condition), route))
        low, middle, high = np.maximum(curvature, 1e-18)
        dots = _draw_line(np.arange(1, len(middle) + 1, dtype=float), middle, route)
        error = {"array": _encode(high - middle), "arrayminus": _encode(middle - low), "thickness": 1.5}
        marker = {"color": COLOURS[route], "size": 10, "symbol": "circle" if route == "direct" else "diamond"}
        solutions.append(dots | {"mode": "markers", "error_y": error, "marker": marker})
    across, up = _log_axis("condition number", *conditions), _log_axis("|eigenvalue|", *curvatures)
    each = {"dtick": 1} if curvatures[0].shape[1] <= _FEW else {}
    panels = [_panel("along the descents", descents, xaxis=across, yaxis=_percent_axis("points at most so bad"))]
    if np.isfinite(curvatures).any():  # else no solution was found
        along = _axis("eigenvalue, from the flattest", **each)
        panels.append(_panel("at the solutions", solutions, xaxis=along, yaxis=up))
    return panels


def draw_gradients(picture: Mapping[str, Array]) -> list[Panel]:
    """Autograd against central differences by their width, and the angle between surrogate and true gradient."""
    scales = picture["scales"]
    low, middle, high = find_error_quantiles(picture)
    errors = [_draw_band(scales, low, high, "direct"), _draw_line(scales, middle, "direct")]
    across, up = _log_axis("width [box lengths]", scales), _log_axis("relative error", low, high)
    angles = [_draw_share(*accumulate(picture["cosine"]), "surrogate")]
    cosine = _axis("cosine of both gradients", range=[-1.02, 1.02])
    return [
        _panel("against differences, by width", errors, xaxis=across, yaxis=up),
        _panel("do both point the same way?", angles, xaxis=cosine, yaxis=_percent_axis("points with at most this")),
    ]


def draw_fidelity(picture: Mapping[str, Array], unit: str, tolerance: float) -> list[Panel]:
    """What the answers of networks miss by, against their forward error and the angle of their gradient, a dot each."""
    examples, miss = picture["examples"], np.maximum(picture["miss"], MISS_FLOOR)
    up = _log_axis(label_axis("median miss, re-simulated", unit), miss, np.array([tolerance]))
    panels: list[Panel] = []
    for title, label, off in (
        ("by the forward error", "forward error, over the spread", picture["forward_error"]),
        ("by the gradient at the answers", "1 - cosine of both gradients", 1 - picture["cosine"]),
    ):
        values, dots = np.maximum(off, MISS_FLOOR), []
        for size in np.unique(examples):
            some, name = examples == size, f"{size:,.0f} examples"
            hover = f"{name}<br>%{{x:.3g}}, missed by %{{y:.3g}} {unit}<extra></extra>"
            dots.append(_draw_dots(values[some], miss[some], name, {"color": COLOURS[name], "size": 9}, hover))
        # Colours are sizes here, which the page does not tell.
        keys = {"showlegend": not panels, "legend": {"x": 0.02, "y": 0.98}}
        marks = [_mark("y", tolerance, unit)]
        panels.append(_panel(title, dots, xaxis=_log_axis(label, values), yaxis=up, shapes=marks, **keys))
    return panels


def draw_training(step: Array, train_loss: Array, validation_loss: Array) -> list[Panel]:
    """Train and validation loss by step."""
    traces = []
    for name, values in (("training examples", train_loss), ("validation examples", validation_loss)):
        there = np.isfinite(values)
        traces.append(_draw_line(*_thin(step[there], values[there]), "surrogate", name))
    traces[1]["line"] |= {"color": _INK, "dash": "dot"}
    title, up = "training (dashed) and validation examples (dotted)", _log_axis("mean squared error", train_loss)
    return [_panel(title, traces, xaxis=_axis("training step"), yaxis=up)]


def _panel(title: str, traces: Sequence[Panel], **layout: Any) -> Panel:
    common: dict[str, Any] = {
        "template": {"data": {"scatter": [{"type": "scatter"}]}},  # none of Plotly's own
        "margin": {"l": 56, "r": 12, "t": 34 if title else 12, "b": 44},
        # Colours and dashes mean the same everywhere: a page says once which route has which.
        "showlegend": False,
    }
    if title:
        place = {"x": 0.01, "xanchor": "left", "y": 0.98, "yanchor": "top"}
        common["title"] = {"text": title, "font": {"size": 14}, **place}
    return {"data": list(traces), "layout": common | layout}


def _draw_line(x: Array, y: Array | NDArray[np.int64], route: str, name: str = "", **line: Any) -> Panel:
    return {
        "type": "scatter",
        "x": _encode(x),
        "y": _encode(y),
        "mode": "lines",
        "name": name or route,
        "line": {"color": COLOURS[route], "dash": _DASHES[LINES[route]], "width": 2, **line},
        "hovertemplate": "%{x:.4g}: %{y:.4g}<extra>" + (name or route) + "</extra>",
    }


def _draw_share(x: Array, shares: Array, route: str, name: str = "") -> Panel:
    """A share that grows at each point, drawn in per cent."""
    x, shares = _thin(x, shares)
    return _draw_line(x, 100 * shares, route, name, shape="hv")


def _draw_dots(x: Array, y: Array, name: str, marker: dict[str, Any], hover: str = "") -> Panel:
    trace = {"type": "scatter", "x": _encode(x), "y": _encode(y), "mode": "markers", "name": name, "marker": marker}
    return trace | ({"hovertemplate": hover} if hover else {})


def _draw_band(x: Array, low: Array, high: Array, route: str) -> Panel:
    # One closed outline: down one way and back the other.
    there = np.isfinite(low) & np.isfinite(high)
    x, low, high = x[there], low[there], high[there]
    return {
        "type": "scatter",
        "x": _encode(np.concatenate([x, x[::-1]])),
        "y": _encode(np.concatenate([high, low[::-1]])),
        "mode": "lines",
        "line": {"width": 0, "color": COLOURS[route]},
        "fill": "toself",
        "fillcolor": _fade(route),
        "hoverinfo": "skip",
    }


def _mark(axis: str, tolerance: float, unit: str) -> Panel:
    """A dotted line across the panel, where an axis is at the tolerance."""
    other = "y" if axis == "x" else "x"
    along = {f"{axis}0": tolerance, f"{axis}1": tolerance, f"{axis}ref": axis}
    across = {f"{other}0": 0, f"{other}1": 1, f"{other}ref": f"{other} domain"}
    label = {
        "text": label_tolerance(tolerance, unit),
        "font": {"size": 11, "color": _INK},
        "textposition": "end",
        "textangle": 0,
        "xanchor": "right",
        "yanchor": "top" if axis == "x" else "bottom",
    }
    return {"type": "line", "line": {"color": _INK, "width": 1, "dash": "dot"}, "label": label, **along, **across}


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **more}


def _log_axis(title: str, *shown: Array) -> dict[str, Any]:
    """A logarithmic axis for some values, with a few whole decades as ticks."""
    axis = _axis(title, type="log", exponentformat="power", tickangle=0)
    values = np.concatenate([np.ravel(values) for values in shown])
    values = values[np.isfinite(values) & (values > 0)]
    decades = float(np.log10(values.max() / values.min())) if values.size else 0.0
    return axis | ({"dtick": next(step for step in _DECADES if decades <= 5 * step)} if decades > 1 else {})


def _percent_axis(title: str) -> dict[str, Any]:
    return _axis(f"{title} [%]", range=[-2, 102])


def _thin(x: Array, y: Array) -> tuple[Array, Array]:
    """Points evenly taken from many, the ends among them."""
    if len(x) <= _SEEN:
        return x, y
    rows = np.unique(np.linspace(0, len(x) - 1, _SEEN).round().astype(int))
    return x[rows], y[rows]


def _fade(route: str) -> str:
    red, green, blue = (int(COLOURS[route][i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _encode(values: Array | NDArray[np.int64]) -> dict[str, str] | list[float]:
    """An array as Plotly reads it, with as many digits as a screen can show; what is not finite leaves a gap."""
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        return []
    with np.errstate(under="ignore"):
        seen = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
    encoded = {"dtype": "f4", "bdata": base64.b64encode(seen.tobytes()).decode("ascii")}
    return encoded | ({"shape": ", ".join(map(str, seen.shape))} if seen.ndim > 1 else {})
