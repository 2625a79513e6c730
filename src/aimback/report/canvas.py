"""What every still figure is drawn on; the same drawing gives the same bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aimback.core.files import write_whole

Array = NDArray[np.float64]

_STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 120,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


@contextmanager
def canvas(size: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure of so many inches."""
    # "default" first: a user's own matplotlibrc must not change an output.
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


@contextmanager
def new_figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure that becomes a PNG file, whole or not at all."""
    with canvas(size) as figure:
        yield figure
        with write_whole(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


def labelled(name: str, unit: str) -> str:
    """ "miss [m]", or "miss" where there is no unit."""
    return f"{name} [{unit}]" if unit else name
