"""The arrays of the claims' figures, as `aimback.diagnose` measured them, and what of them is drawn."""

from collections.abc import Mapping

import numpy as np

from aimback.data.archive import Stored
from aimback.evaluate.tables import Array

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
    "fidelity": ("C9", dict.fromkeys(("examples", "forward_error", "cosine", "miss"), ("networks",))),
}
PAIR = ("direct", "surrogate")


def declare_arrays(figure: str, controls: int) -> dict[str, Stored]:
    """What the arrays of a figure must be; with one control there is no second axis."""
    missing = () if controls > 1 else ("axis_y",)
    _, shapes = PICTURES[figure]
    kept = {name: tuple(size for size in shape if size not in missing) for name, shape in shapes.items()}
    return {name: Stored("float64", shape, finite=shape == (name,)) for name, shape in kept.items() if shape}


def pick_misses(picture: Mapping[str, Array]) -> tuple[Array, Array]:
    """Both misses of the targets that have them, `(n,)` each, at least 1e-16: zero has no logarithm."""
    believed, miss = picture["believed"], picture["miss"]
    there = np.isfinite(believed) & np.isfinite(miss)
    return np.maximum(believed[there], 1e-16), np.maximum(miss[there], 1e-16)


def find_eigenvalue_quantiles(values: Array) -> Array:
    """10 %, 50 %, 90 % quantile over solutions of each eigenvalue, from the least on, `(3, n_controls)`."""
    finite = np.sort(values[np.isfinite(values).all(-1)], axis=-1)
    if len(finite) == 0:
        return np.full((3, values.shape[-1]), np.nan)
    return np.asarray(np.quantile(finite, [0.1, 0.5, 0.9], axis=0))


def find_error_quantiles(picture: Mapping[str, Array]) -> Array:
    """10 %, 50 %, 90 % quantile of the relative error at each scale, `(3, k)`; NaN where none is finite."""
    quantiles = np.full((3, len(picture["scales"])), np.nan)
    for index, errors in enumerate(picture["relative_error"]):
        finite = errors[np.isfinite(errors)]
        if len(finite):
            quantiles[:, index] = np.quantile(np.maximum(finite, 1e-17), [0.1, 0.5, 0.9])
    return quantiles
