"""What still figures are drawn on, and how the routes look in all figures; the same drawing gives the same bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aimback.core.files import write_whole
from aimback.tasks.base import TOLERANCES

_Look = TypeVar("_Look")

_DPI = 120  # of a still figure, which has more dots than a moving one
STYLE = {
    "figure.dpi": 100,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


class _Looks(dict[str, _Look]):
    """A look for each route: those of the usual routes are known, any other takes the next one of a cycle, in the
    order in which routes are first asked for."""

    def __init__(self, known: dict[str, _Look], others: list[_Look]) -> None:
        super().__init__(known)
        self._others, self._asked = others, 0

    def __missing__(self, route: str) -> _Look:
        self[route] = self._others[self._asked % len(self._others)]
        self._asked += 1
        return self[route]


# Okabe and Ito, "Color Universal Design" (2008): told apart with every common colour blindness.
COLOURS = _Looks(
    {"direct": "#0072B2", "surrogate": "#D55E00", "hybrid": "#009E73"},
    ["#CC79A7", "#E69F00", "#56B4E9", "#8A7F00", "#6A3D9A", "#7F7F7F"],
)
LINES = _Looks({"direct": "-", "surrogate": "--", "hybrid": "-."}, [":", "--", "-.", "-"])


@contextmanager
def canvas(size: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure of so many inches."""
    # "default" first: a user's own matplotlibrc must not change an output.
    with style.context(["default", STYLE]):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


@contextmanager
def new_figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure that becomes a PNG file, whole or not at all."""
    with canvas(size) as figure:
        yield figure
        figure.set_dpi(_DPI)
        engine = figure.get_layout_engine()
        assert engine is not None
        # `savefig` would draw everything a first time, unseen, to have the layout done.
        engine.execute(figure)
        figure.set_layout_engine("none")
        with write_whole(path) as temporary:
            figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})


def label_tolerance(tolerance: float, unit: str) -> str:
    """ "tolerance, 0.01 m", or "tolerance" alone where misses are counted in it."""
    return "tolerance" if unit == TOLERANCES else f"tolerance, {tolerance:g} {unit}".rstrip()


def label_axis(name: str, unit: str) -> str:
    """ "miss [m]", or "miss" where there is no unit."""
    return f"{name} [{unit}]" if unit else name
