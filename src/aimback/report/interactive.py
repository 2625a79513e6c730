"""The figures that people can turn, enlarge and query: plain arrays in, Plotly's JSON out.

A figure is a list of panels, each a Plotly figure of its own, so that a page can put them side by side or below each
other. Colours of paper, ink and grid are left to the page, which knows whether it is dark; the same arrays give the
same text.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs
from plotly.utils import PlotlyJSONEncoder

from aimback.core.box import Axis
from aimback.evaluate.tables import Array
from aimback.report.canvas import COLOURS, LINES, label_axis
from aimback.report.evidence import (
    BASINS,
    PAIR,
    cumulative,
    eigenvalue_quantiles,
    error_quantiles,
    pick_misses,
)
from aimback.report.stills import LOSS_FLOOR, MISS_FLOOR, loss_levels, miss_range
from aimback.report.views import Landscape, Surface, bands, find_last_change, rank_misses

Panels: TypeAlias = list[go.Figure]

_DASHES = {"-": "solid", "--": "dash", "-.": "dashdot"}
_SEEN = 201  # points along a curve: more are not told apart on a screen
_DECADES = (1, 2, 3, 5, 10, 20, 50, 100, 200)  # between two ticks
_INK = "#808080"  # read on light and on dark paper


def script() -> str:
    """Plotly's own JavaScript, whole, so that a page needs no network."""
    return str(get_plotlyjs())


def to_json(panels: Panels) -> str:
    """The panels as JSON: a list of {"data": ..., "layout": ...}."""
    return json.dumps([panel.to_dict() for panel in panels], cls=PlotlyJSONEncoder, sort_keys=True)


def draw_surfaces(landscape: Landscape) -> Panels:
    """The losses with the descents on them: surfaces over two controls, curves over one."""
    if len(landscape.axes) == 1:
        return [_curves(landscape)]
    levels = loss_levels(landscape)
    return [_surface(landscape, surface, levels) for surface in landscape.surfaces]


def _surface(landscape: Landscape, surface: Surface, levels: Array) -> go.Figure:
    x, y = landscape.ticks(0), landscape.ticks(1)
    loss = np.where(np.isfinite(surface.loss), surface.loss, np.nan)
    thin = (slice(None, None, 2),) * 2
    first, second = landscape.axes
    panel = _panel(
        f"{surface.title}; {landscape.wanted}",
        scene={
            "xaxis": {"title": {"text": first.label}, "nticks": 6},
            "yaxis": {"title": {"text": second.label}, "nticks": 6},
            "zaxis": {"title": {"text": ""}, "range": [0, float(levels[-1])], "nticks": 5},
            "aspectratio": {"x": 1.1, "y": 1.1, "z": 0.75},
            "camera": {"eye": {"x": -1.22, "y": -1.22, "z": 1.0}, "center": {"x": 0, "y": 0, "z": -0.18}},
        },
    )
    panel.add_trace(
        go.Surface(
            x=_encode(x[::2]),
            y=_encode(y[::2]),
            z=_encode(loss[thin]),
            # The height is the loss itself, the shade its logarithm: so the valley shows, too.
            surfacecolor=_encode(np.log10(np.clip(loss[thin], levels[0], None))),
            cmin=float(np.log10(levels[0])),
            cmax=float(np.log10(levels[-1])),
            colorscale=[[0, "#FFFFFF"], [0.5, "#B9BDC2"], [1, "#4A5058"]],
            showscale=False,
            lighting={"ambient": 0.75, "diffuse": 0.5, "specular": 0.05, "roughness": 0.9},
            contours={axis: {"highlight": False} for axis in "xyz"},
            hovertemplate=f"{first.name} %{{x:.3g}}<br>{second.name} %{{y:.3g}}<br>loss %{{z:.3g}}<extra></extra>",
        )
    )
    lift = 0.008 * float(levels[-1])
    for route, paths in surface.paths.items():
        # One line of all starts, broken between them.
        broken = np.concatenate([paths, np.full((1, *paths.shape[1:]), np.nan)]).transpose(1, 0, 2).reshape(-1, 2)
        for points, mode, name, symbol in (
            (broken, "lines+markers", f"{route} descent", "circle"),
            (paths[0], "markers", f"{route} start", "circle-open"),
            (paths[-1], "markers", f"{route} end", "diamond"),
        ):
            size = 6 if mode == "markers" else 2.5
            panel.add_trace(
                go.Scatter3d(
                    x=_encode(points[:, 0]),
                    y=_encode(points[:, 1]),
                    z=_encode(_height(x, y, loss, points) + lift),
                    mode=mode,
                    name=name,
                    line={"color": COLOURS[route], "width": 5},
                    marker={"color": COLOURS[route], "size": size, "symbol": symbol},
                    hovertemplate=f"{name}<br>{first.name} %{{x:.4g}}<br>{second.name} %{{y:.4g}}<extra></extra>",
                )
            )
    return panel


def _height(x: Array, y: Array, surface: Array, points: Array) -> Array:
    """The surface's height under points `(n, 2)`, bilinear; NaN where the surface or the point is."""
    place = [np.clip((points[:, i] - t[0]) / (t[1] - t[0]), 0, len(t) - 1) for i, t in enumerate((x, y))]
    there = np.isfinite(points).all(-1)
    column, row = (np.where(there, p, 0) for p in place)
    left, low = (np.minimum(p.astype(int), len(t) - 2) for p, t in ((column, x), (row, y)))
    right, up = column - left, row - low
    bottom = surface[low, left] * (1 - right) + surface[low, left + 1] * right
    top = surface[low + 1, left] * (1 - right) + surface[low + 1, left + 1] * right
    return np.asarray(np.where(there, bottom * (1 - up) + top * up, np.nan))


def _curves(landscape: Landscape) -> go.Figure:
    x, floor = landscape.ticks(0), loss_levels(landscape)[0]
    panel = _panel(
        "",
        xaxis={"title": {"text": landscape.axes[0].label}},
        yaxis=_log("loss, (miss / span)²", loss_levels(landscape)),
    )
    for surface in landscape.surfaces:
        heights = np.clip(surface.loss, floor, None)
        panel.add_trace(_line(x, heights, surface.route, surface.title))
        for route, paths in surface.paths.items():
            for at, name, symbol in ((paths[0, :, 0], "start", "circle-open"), (paths[-1, :, 0], "end", "star")):
                marker = {"color": COLOURS[route], "size": 10, "symbol": symbol}
                panel.add_trace(
                    go.Scatter(
                        x=_encode(at),
                        y=_encode(np.interp(at, x, heights)),
                        mode="markers",
                        name=f"{route} {name}",
                        marker=marker,
                    )
                )
    return panel


def draw_basins(picture: Mapping[str, Array], axes: Sequence[Axis]) -> Panels:
    """From where in the box the targets are truly hit."""
    if len(axes) == 1:
        panel = _panel("", xaxis={"title": {"text": axes[0].label}}, yaxis={"title": {"text": "targets hit [%]"}})
        for name, label in BASINS.items():
            line = _line(picture["axis_x"], 100 * picture[name], name.removeprefix("gradient_"), label)
            line.line.shape, line.line.width = "hvh", 1 if name.startswith("gradient_") else 2.5
            panel.add_trace(line)
        return [panel]
    panels = []
    for name, label in BASINS.items():
        mean = 100 * float(np.nanmean(picture[name]))
        panel = _panel(
            f"{label}: {mean:.3g} %",
            xaxis={"title": {"text": axes[0].label}, "showgrid": False},
            yaxis={"title": {"text": axes[1].label}, "showgrid": False},
        )
        panel.add_trace(
            go.Heatmap(
                x=_encode(picture["axis_x"]),
                y=_encode(picture["axis_y"]),
                z=_encode(100 * picture[name]),
                zmin=0,
                zmax=100,
                colorscale="Cividis",
                colorbar={"thickness": 8, "ticksuffix": " %", "nticks": 5, "outlinewidth": 0},
                hovertemplate=f"from {axes[0].name} %{{x:.3g}}, {axes[1].name} %{{y:.3g}}<br>"
                "%{z:.3g} % of the targets hit<extra></extra>",
            )
        )
        panels.append(panel)
    return panels


def draw_misses(values: Mapping[str, Array], unit: str, tolerance: float) -> Panels:
    """Which share of the targets is missed by at most so much, and how many by how much."""
    lowest, highest = miss_range(values, tolerance)
    edges = np.linspace(np.log10(lowest), np.log10(highest), 61)
    axis = _log(label_axis("miss, re-simulated", unit), 10**edges) | {"range": [edges[0], edges[-1]]}
    shares = _panel("missed by at most this", xaxis=axis, yaxis=_percent("targets"))
    counts = _panel("missed by about this", xaxis=axis, yaxis={"title": {"text": "targets"}})
    for route, missed in values.items():
        found, share, solved = rank_misses(missed, tolerance)
        name = f"{route}: {100 * solved:.4g} % solved"
        shares.add_trace(_steps(*_thin(np.maximum(found, lowest), share), route, name))
        many, _ = np.histogram(np.log10(np.maximum(found, lowest)), edges)
        bars = _line(10 ** ((edges[1:] + edges[:-1]) / 2), many, route, route)
        bars.line.shape, bars.fill, bars.fillcolor = "hvh", "tozeroy", _pale(route)
        counts.add_trace(bars)
    for panel in (shares, counts):
        panel.add_vline(tolerance, line={"color": _INK, "width": 1, "dash": "dot"})
    return [shares, counts]


def draw_loss(losses: Mapping[str, Array], missed: Mapping[str, Array], unit: str, tolerance: float) -> Panels:
    """Loss by the route's own map, and true miss, by solver step: median and 10 % to 90 % of the targets."""
    last = 1.1 * find_last_change([*losses.values(), *missed.values()]) + 1
    panels = []
    for title, curves, floor, axis in (
        ("as the route itself believes", losses, LOSS_FLOOR, "loss"),
        ("re-simulated: the truth", missed, MISS_FLOOR, label_axis("miss", unit)),
    ):
        drawn = bands(curves, floor)
        steps = {"title": {"text": "solver step"}, "range": [0, last]}
        panel = _panel(title, xaxis=steps, yaxis=_log(axis, *(part for band in drawn.values() for part in band)))
        for route, (low, middle, high) in drawn.items():
            shown = slice(int(last) + 2)
            step = np.arange(len(middle), dtype=float)[shown]
            _add_band(panel, step, low[shown], high[shown], route)
            panel.add_trace(_line(step, middle[shown], route))
        panels.append(panel)
    panels[1].add_hline(tolerance, line={"color": _INK, "width": 1, "dash": "dot"})
    return panels


def draw_r_t(curves: Mapping[str, Array]) -> Panels:
    """The published metric r_T by the number of candidates: mean, and quartiles of the targets."""
    counts, values = ([curve[:, part] for curve in curves.values()] for part in (0, slice(1, None)))
    most = max((float(count.max()) for count in counts if len(count)), default=1.0)
    along = _log("T, candidates simulated again", *counts) | {"range": [-0.02, float(np.log10(1.05 * most))]}
    panel = _panel("", xaxis=along, yaxis=_log("r_T, least squared miss", *values))
    for route, curve in curves.items():
        count, mean, low, high = curve.T
        _add_band(panel, count, low, high, route)
        panel.add_trace(_line(count, mean, route))
        panel.data[-1].mode = "lines+markers"
    return [panel]


def draw_trajectories(paths: Mapping[str, Array], goals: Array, missed: Mapping[str, Array], unit: str) -> Panels:
    """What the answers do when they are simulated again, a panel a route."""
    everything = np.concatenate([*(lines.reshape(-1, 2) for lines in paths.values()), goals])
    low, high = np.nanmin(everything, axis=0), np.nanmax(everything, axis=0)
    margin = 0.05 * (high - low)
    panels = []
    for route, lines in paths.items():
        panel = _panel(
            f"{route}: misses by at most {missed[route].max():.2g} {unit}".rstrip(),
            xaxis={"title": {"text": label_axis("x", unit)}, "range": [low[0] - margin[0], high[0] + margin[0]]},
            yaxis={"title": {"text": label_axis("y", unit)}, "range": [low[1] - margin[1], high[1] + margin[1]]},
        )
        for line, miss in zip(lines, missed[route], strict=True):
            shot = _line(line[:, 0], line[:, 1], route)
            shot.line.dash, shot.hovertemplate = "solid", f"misses by {miss:.3g} {unit}<extra></extra>"
            panel.add_trace(shot)
        cross = {"symbol": "x-thin", "size": 10, "line": {"color": _INK, "width": 2}}
        panel.add_trace(
            go.Scatter(
                x=_encode(goals[:, 0]),
                y=_encode(goals[:, 1]),
                mode="markers",
                marker=cross,
                name="target",
                hovertemplate="target %{x:.4g}<extra></extra>",
            )
        )
        panels.append(panel)
    return panels


def draw_belief(picture: Mapping[str, Array], unit: str, tolerance: float) -> Panels:
    """What the surrogate route believed of its answers against the truth, a dot a target."""
    believed, miss = pick_misses(picture)
    panel = _panel(
        "",
        xaxis=_log(label_axis("believed miss", unit), believed),
        yaxis=_log(label_axis("miss, re-simulated", unit), miss),
    )
    panel.add_trace(
        go.Scatter(
            x=_encode(believed),
            y=_encode(miss),
            mode="markers",
            name="surrogate",
            marker={"color": COLOURS["surrogate"], "size": 4, "opacity": 0.6},
            hovertemplate="believed %{x:.3g}<br>in truth %{y:.3g}<extra></extra>",
        )
    )
    panel.add_hline(tolerance, line={"color": _INK, "width": 1, "dash": "dot"})
    panel.add_vline(tolerance, line={"color": _INK, "width": 1, "dash": "dot"})
    return [panel]


def draw_iterations(picture: Mapping[str, Array]) -> Panels:
    """Gradient descent: how many starts have truly hit by step, and how many do in the end by step size."""
    left = _panel(
        "each at its own best step size", xaxis={"title": {"text": "step"}}, yaxis=_percent("starts that truly hit")
    )
    right = _panel(
        "in the end, by step size", xaxis=_log("step size", picture["sizes"]), yaxis=_percent("starts that truly hit")
    )
    for route in PAIR:
        curve = picture[f"curve_{route}"]
        left.add_trace(_steps(np.arange(len(curve), dtype=float), curve, route))
        right.add_trace(_line(picture["sizes"], 100 * picture[f"hit_{route}"], route))
        right.data[-1].mode = "lines+markers"
    return [left, right]


def draw_conditioning(picture: Mapping[str, Array]) -> Panels:
    """Condition numbers of the loss's Hessian along the descents, and its eigenvalues at solutions."""
    conditions = [picture[f"hessian_condition_{route}"] for route in PAIR]
    curvatures = {route: eigenvalue_quantiles(np.abs(picture[f"eigenvalues_{route}"])) for route in PAIR}
    left = _panel(
        "along the descents",
        xaxis=_log("condition number", *conditions),
        yaxis=_percent("points at most so bad"),
    )
    right = _panel(
        "at the solutions",
        xaxis={"title": {"text": "eigenvalue, from the flattest"}, "dtick": 1},
        yaxis=_log("|eigenvalue|", *curvatures.values()),
    )
    for route, condition in zip(PAIR, conditions, strict=True):
        left.add_trace(_steps(*_thin(*cumulative(condition)), route))
        low, middle, high = np.maximum(curvatures[route], 1e-18)
        dots = _line(np.arange(1, len(middle) + 1, dtype=float), middle, route)
        dots.error_y = {"array": _encode(high - middle), "arrayminus": _encode(middle - low), "thickness": 1.5}
        dots.mode, dots.marker = "markers", {"color": COLOURS[route], "size": 10, "symbol": _symbol(route)}
        right.add_trace(dots)
    return [left, right]


def draw_gradients(picture: Mapping[str, Array]) -> Panels:
    """Autograd against central differences by their width, and the angle between surrogate and true gradient."""
    low, middle, high = error_quantiles(picture)
    left = _panel(
        "against differences, by width",
        xaxis=_log("width [box lengths]", picture["scales"]),
        yaxis=_log("relative error", low, high),
    )
    _add_band(left, picture["scales"], low, high, "direct")
    left.add_trace(_line(picture["scales"], middle, "direct"))
    right = _panel(
        "do both point the same way?",
        xaxis={"title": {"text": "cosine of both gradients"}, "range": [-1.02, 1.02]},
        yaxis=_percent("points with at most this"),
    )
    right.add_trace(_steps(*_thin(*cumulative(picture["cosine"])), "surrogate"))
    return [left, right]


def draw_training(step: Array, train_loss: Array, validation_loss: Array) -> Panels:
    """Train and validation loss by step."""
    panel = _panel(
        "training (dashed) and validation examples (dotted)",
        xaxis={"title": {"text": "training step"}},
        yaxis=_log("mean squared error", train_loss),
    )
    for name, values in (("training", train_loss), ("validation", validation_loss)):
        there = np.isfinite(values)
        panel.add_trace(_line(*_thin(step[there], values[there]), "surrogate", f"{name} examples"))
    panel.data[1].line.update({"color": _INK, "dash": "dot"})
    return [panel]


def _panel(title: str, **layout: Any) -> go.Figure:
    common: dict[str, Any] = {
        "template": {},
        "margin": {"l": 56, "r": 12, "t": 34 if title else 12, "b": 44},
        # Colours and dashes mean the same everywhere: a page says once which route has which.
        "showlegend": False,
    }
    if title:
        common["title"] = {
            "text": title,
            "font": {"size": 14},
            "x": 0.01,
            "xanchor": "left",
            "y": 0.98,
            "yanchor": "top",
        }
    if "scene" in layout:
        common["margin"] = {"l": 0, "r": 0, "t": 26, "b": 0}
    return go.Figure(layout=common | layout)


def _line(x: Array, y: Array, route: str, name: str = "") -> go.Scatter:
    return go.Scatter(
        x=_encode(x),
        y=_encode(y),
        mode="lines",
        name=name or route,
        line={"color": COLOURS[route], "dash": _DASHES[LINES[route]], "width": 2},
        hovertemplate="%{x:.4g}: %{y:.4g}<extra>" + (name or route) + "</extra>",
    )


def _steps(x: Array, shares: Array, route: str, name: str = "") -> go.Scatter:
    """A share that grows at each point, drawn in per cent."""
    line = _line(x, 100 * shares, route, name)
    line.line.shape = "hv"
    return line


def _thin(x: Array, y: Array) -> tuple[Array, Array]:
    """Points evenly taken from many, the ends among them."""
    if len(x) <= _SEEN:
        return x, y
    rows = np.unique(np.linspace(0, len(x) - 1, _SEEN).round().astype(int))
    return x[rows], y[rows]


def _add_band(panel: go.Figure, x: Array, low: Array, high: Array, route: str) -> None:
    # One closed outline: down one way and back the other.
    there = np.isfinite(low) & np.isfinite(high)
    x, low, high = x[there], low[there], high[there]
    panel.add_trace(
        go.Scatter(
            x=_encode(np.concatenate([x, x[::-1]])),
            y=_encode(np.concatenate([high, low[::-1]])),
            mode="lines",
            line={"width": 0, "color": COLOURS[route]},
            fill="toself",
            fillcolor=_pale(route),
            hoverinfo="skip",
        )
    )


def _log(title: str, *shown: Array) -> dict[str, Any]:
    """A logarithmic axis for some values, with a few whole decades as ticks."""
    axis: dict[str, Any] = {"title": {"text": title}, "type": "log", "exponentformat": "power", "tickangle": 0}
    values = np.concatenate([np.ravel(values) for values in shown])
    values = values[np.isfinite(values) & (values > 0)]
    decades = float(np.log10(values.max() / values.min())) if values.size else 0.0
    return axis | ({"dtick": next(step for step in _DECADES if decades <= 5 * step)} if decades > 1 else {})


def _percent(title: str) -> dict[str, Any]:
    return {"title": {"text": f"{title} [%]"}, "range": [-2, 102]}


def _symbol(route: str) -> str:
    return {"direct": "circle", "surrogate": "diamond"}.get(route, "square")


def _pale(route: str) -> str:
    red, green, blue = (int(COLOURS[route][i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _encode(values: Array | NDArray[np.int64]) -> NDArray[np.float32]:
    """As many digits as a screen can show; what is not finite leaves a gap."""
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(under="ignore"):
        return np.where(np.isfinite(values), values, np.nan).astype(np.float32)
