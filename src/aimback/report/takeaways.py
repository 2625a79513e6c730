"""What each figure shows, in one sentence with its numbers; the same arrays as for drawing it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aimback.core.box import Axis
from aimback.evaluate.tables import Array
from aimback.report.evidence import PAIR, find_error_quantiles, pick_misses
from aimback.report.sweep import FRAMES, Sweep
from aimback.report.text import count_noun, join_names, number, percent, say_amount
from aimback.report.views import Landscape, find_share_within


def tell_surfaces(landscape: Landscape) -> str:
    true, learned = (surface.loss for surface in landscape.surfaces[:2])
    known = np.isfinite(true) & np.isfinite(learned)
    share = _greatest(np.abs(true[known] - learned[known])) / max(_greatest(true), np.finfo(float).tiny)
    return f"The two losses differ by at most {percent(share)} of the greatest one."


def tell_sweep(sweep: Sweep) -> str:
    told = [f"by {say_amount(_greatest(side.miss), sweep.unit)} {_through(side.route)}" for side in sweep.sides]
    return f"Over {FRAMES} targets the answers miss by at most this: {join_names(told)}."


def tell_trajectories(
    paths: Mapping[str, Array], goals: Array, missed: Mapping[str, Array], unit: str, miss_unit: str
) -> str:
    told = [f"{route} by {say_amount(_greatest(misses), miss_unit)}" for route, misses in missed.items()]
    return f"Of {count_noun(len(goals), 'target')} the worst answer misses: {join_names(told)}."


def tell_loss(losses: Mapping[str, Array], missed: Mapping[str, Array], unit: str, tolerance: float) -> str:
    told = [f"{route} {say_amount(_middle(misses[-1]), unit)}" for route, misses in missed.items()]
    return f"In the end half of the answers miss by less than this: {join_names(told)}."


def tell_r_t(curves: Mapping[str, Array]) -> str:
    told = [
        f"{route} {number(curve[0, 3])} and {number(curve[-1, 3])}" for route, curve in curves.items() if len(curve)
    ]
    most = max((int(curve[-1, 0]) for curve in curves.values() if len(curve)), default=1)
    return f"The median with one candidate and with {most}: {join_names(told)}."


def tell_misses(values: Mapping[str, Array], unit: str, tolerance: float) -> str:
    told = [f"{route} {percent(find_share_within(missed, tolerance))}" for route, missed in values.items()]
    return f"Within the tolerance of {say_amount(tolerance, unit)}: {join_names(told)}."


def tell_training(step: Array, train_loss: Array, validation_loss: Array) -> str:
    if not np.isfinite(validation_loss).any():
        return ""
    best = int(np.nanargmin(validation_loss))
    return (
        f"The least error on validation examples, {number(float(validation_loss[best]))} of their variance, came "
        f"after {number(int(step[best]))} steps."
    )


def tell_belief(picture: Mapping[str, Array], unit: str, tolerance: float) -> str:
    believed, miss = pick_misses(picture)
    hits = believed <= tolerance
    return f"Of {count_noun(int(hits.sum()), 'believed hit')} {int((miss[hits] > tolerance).sum()):,} truly miss."


def tell_iterations(picture: Mapping[str, Array]) -> str:
    told = [f"{percent(_greatest(picture[f'hit_{route}']))} {_through(route)}" for route in PAIR]
    return f"At its best step size the starts that truly hit are {join_names(told)}."


def tell_basins(picture: Mapping[str, Array], axes: Sequence[Axis]) -> str:
    told = [f"{percent(float(np.nanmean(picture[route])))} {_through(route)}" for route in PAIR]
    return f"Of all pairs of a start and a target, {join_names(told)} end in a hit."


def tell_conditioning(picture: Mapping[str, Array]) -> str:
    told = [f"{number(_middle(picture[f'hessian_condition_{route}']))} {_through(route)}" for route in PAIR]
    return f"The median condition number along the descents is {join_names(told)}."


def tell_gradients(picture: Mapping[str, Array]) -> str:
    _, middle, _ = find_error_quantiles(picture)
    cosine = _finite(picture["cosine"])
    alike = percent(float((cosine > 0.9).mean())) if cosine.size else number(None)
    return (
        f"The simulator's gradient agrees with differences to {number(_least(middle))} at best; the network's points "
        f"the same way (cosine above 0.9) at {alike} of the points."
    )


def tell_fidelity(picture: Mapping[str, Array], unit: str, tolerance: float) -> str:
    examples = picture["examples"]
    told = []
    for size in np.unique(examples)[[0, -1]]:
        error, miss = (_middle(picture[name][examples == size]) for name in ("forward_error", "miss"))
        told.append(f"{percent(error)} and {say_amount(miss, unit)} with {number(size)}")
    return f"The forward error and the median miss: {join_names(told)} examples."


def _through(route: str) -> str:
    return {"direct": "through the simulator", "surrogate": "through the network"}.get(route, f"by {route}")


def _finite(values: Any) -> Array:
    return np.asarray(values[np.isfinite(values)])


def _greatest(values: Array) -> float:
    return float(_finite(values).max(initial=0.0))


def _least(values: Array) -> float:
    finite = _finite(values)
    return float(finite.min()) if finite.size else float("nan")


def _middle(values: Array) -> float:
    """The median, of which what failed is the greatest part."""
    ordered = np.sort(np.nan_to_num(values, nan=np.inf, posinf=np.inf))
    return float(ordered[(len(ordered) - 1) // 2]) if len(ordered) else float("nan")
