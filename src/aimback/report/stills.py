"""The interactive figures as still ones: the same panels, drawn side by side into a PNG file.

It knows of Plotly's words what `aimback.report.interactive` uses. What is three-dimensional there is a map here.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MultipleLocator
from numpy.typing import NDArray

from aimback.report.canvas import new_figure
from aimback.report.interactive import Panel

_HEIGHT, _WIDTH, _LEAST_WIDTH = 4.2, 4.4, 7.0  # inches, of a panel and of a figure
_LINES = {"solid": "-", "dash": "--", "dashdot": "-.", "dot": ":"}
_STEPS = {"hv": "steps-post", "hvh": "steps-mid"}
_SYMBOLS = {"circle": "o", "circle-open": "o", "diamond": "D", "star": "*", "x-thin": "x"}
_LEVELS = 16


def plot_panels(path: Path, title: str, panels: Sequence[Panel]) -> None:
    """Draw panels side by side under a title; the same panels give the same bytes."""
    with new_figure(path, (max(_LEAST_WIDTH, _WIDTH * len(panels)), _HEIGHT)) as figure:
        figure.suptitle(title)
        # Values that no screen could tell apart from the rim of an axis may overflow on the way there.
        with np.errstate(all="ignore"):
            for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
                _draw_panel(figure, axes, panel)
        named = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
        keys = {label: handle for handle, label in named}
        if keys:
            columns = max(2, min(len(keys), round(figure.get_figwidth() / 2)))
            figure.legend([*keys.values()], [*keys], loc="outside lower center", ncols=columns, fontsize=9)


def _draw_panel(figure: Figure, axes: Axes, panel: Panel) -> None:
    layout = panel["layout"]
    title = layout.get("title", {}).get("text", "")
    axes.set_title(title.replace("; ", "\n"), fontsize=10.5)
    scene = layout.get("scene", layout)
    for place, trace in enumerate(panel["data"]):
        if trace["type"] in ("heatmap", "surface"):
            _draw_map(figure, axes, trace)
        else:
            _draw_scatter(axes, trace, zorder=2 + place / 100)
    for shape in layout.get("shapes", ()):
        _draw_shape(axes, shape)
    for name in "xy":
        axis = scene.get(f"{name}axis", {})
        axes.set(**{f"{name}label": axis.get("title", {}).get("text", "")})
        is_log = axis.get("type") == "log"
        if is_log:
            axes.set(**{f"{name}scale": "log"})
            if name == "x":  # where more are labelled they run into each other
                axes.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
        elif "dtick" in axis:
            getattr(axes, f"{name}axis").set_major_locator(MultipleLocator(axis["dtick"]))
        if "range" in axis:
            ends = [10.0**end for end in axis["range"]] if is_log else axis["range"]
            axes.set(**{f"{name}lim": ends})


def _draw_scatter(axes: Axes, trace: Mapping[str, Any], zorder: float) -> None:
    x, y = (_decode(trace[name]) for name in "xy")
    mode, line, marker = trace.get("mode", "lines"), trace.get("line", {}), trace.get("marker", {})
    label = trace.get("name") if trace.get("hoverinfo") != "skip" else None
    if trace.get("fill") == "toself":
        axes.fill(x, y, **_read_fill(trace), zorder=zorder)
        return
    steps = _STEPS.get(line.get("shape", ""), "default")
    if trace.get("fill") == "tozeroy":
        axes.fill_between(x, y, step="mid", **_read_fill(trace), zorder=zorder)
    style: dict[str, Any] = {"ls": "", "zorder": zorder}
    if "lines" in mode:
        style |= {"ls": _LINES[line.get("dash", "solid")], "lw": 0.8 * min(line.get("width", 2), 3), "drawstyle": steps}
    if "markers" in mode:
        style |= _read_marker(marker)
    axes.plot(x, y, color=marker.get("color", line.get("color", "black")), label=label, **style)
    if "error_y" in trace:
        spread = [_decode(trace["error_y"][end]) for end in ("arrayminus", "array")]
        axes.errorbar(x, y, spread, fmt="none", ecolor=marker.get("color"), capsize=4, zorder=zorder)


def _read_marker(marker: Mapping[str, Any]) -> dict[str, Any]:
    symbol = marker.get("symbol", "circle")
    look = {"marker": _SYMBOLS[symbol], "ms": 0.75 * marker.get("size", 6), "alpha": marker.get("opacity", 1.0)}
    if symbol == "circle-open":
        look |= {"mfc": "white", "mew": 1.6}
    if symbol == "x-thin":
        look |= {"mew": 1.6, "mec": marker["line"]["color"]}
    return look


def _read_fill(trace: Mapping[str, Any]) -> dict[str, Any]:
    *colour, alpha = (float(part) for part in trace["fillcolor"].removeprefix("rgba(").rstrip(")").split(","))
    return {"color": [part / 255 for part in colour], "alpha": alpha, "lw": 0}


def _draw_map(figure: Figure, axes: Axes, trace: Mapping[str, Any]) -> None:
    """A surface by the shades that it has there, in steps, so that its shape shows."""
    is_surface = trace["type"] == "surface"
    x, y, z = (_decode(trace[name]) for name in ("x", "y", "surfacecolor" if is_surface else "z"))
    low, high = (trace[name] for name in (("cmin", "cmax") if is_surface else ("zmin", "zmax")))
    shades = LinearSegmentedColormap.from_list("", [(place, to_rgba(colour)) for place, colour in trace["colorscale"]])
    axes.grid(False)
    if is_surface:
        axes.contourf(x, y, z, np.linspace(low, high, _LEVELS), cmap=shades, extend="both")
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        return
    drawn = axes.pcolormesh(x, y, z, cmap=shades, norm=Normalize(low, high))
    if trace.get("showscale", True):
        figure.colorbar(drawn, ax=axes, format=f"{{x:g}}{trace['colorbar']['ticksuffix']}", aspect=30)


def _draw_shape(axes: Axes, shape: Mapping[str, Any]) -> None:
    across = shape["xref"] == "x"
    draw = axes.axvline if across else axes.axhline
    draw(shape["x0" if across else "y0"], color="black", lw=1, ls=":", label=shape["label"]["text"])


def _decode(values: Any) -> NDArray[np.float64]:
    """An array as `interactive` has written it down."""
    if not isinstance(values, Mapping):
        return np.asarray(values, dtype=np.float64)
    flat = np.frombuffer(base64.b64decode(values["bdata"]), dtype=np.dtype(values["dtype"])).astype(np.float64)
    return flat.reshape([int(size) for size in values["shape"].split(",")]) if "shape" in values else flat
