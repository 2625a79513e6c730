"""What is measured of the routes, as the page's calculator needs it to tell of a simulator of other speed."""

from collections.abc import Sequence
from typing import Any

from aimback.report.costs import find_solved_share, list_seconds, share_seconds
from aimback.report.result import TaskResult

# Tolerances that can be chosen, as multiples of the task's own.
_FACTORS = (1e-6, 1e-3, 0.1, 0.5, 1.0, 2.0, 10.0)


def list_demands(results: Sequence[TaskResult]) -> dict[str, Any]:
    """By task and route, simulations before the first target and a further target, seconds besides, and solved shares.

    A route that was not timed is left out, and so is a task that has no simulator.
    """
    return {
        result.name: {
            "unit": result.unit,
            "tolerance": result.tolerance,
            "factors": _FACTORS,
            "controls": len(result.scene.controls) + result.scene.hidden if result.scene else 1,
            "routes": found,
        }
        for result in results
        if not result.is_believed and (found := {route: _list_demand(result, route) for route in _list_timed(result)})
    }


def _list_timed(result: TaskResult) -> list[str]:
    return [route for route in result.routes if None not in list_seconds(result, route).values()]


def _list_demand(result: TaskResult, route: str) -> dict[str, Any]:
    metrics, misses = result.metrics[route], result.misses.get(route, ())
    prepared = result.prepared.get(route, 0)
    targets = max(int(metrics["reachable_targets"]), 1)
    kind = result.routes[route].kind
    # What a simulator takes itself is in the seconds of the routes that solve through it, and is asked for anew.
    within = {
        factor: sum(miss <= factor * result.tolerance for miss in misses) / (result.listed * targets)
        for factor in _FACTORS
    }
    return {
        "kind": kind,
        "prepared": prepared,
        "each": (metrics["simulations"] - prepared) / targets,
        "differentiated": result.routes[route].learns_jacobians if kind == "surrogate" else metrics["gradients"] > 0,
        "seconds_train": list_seconds(result, route)["seconds_train"],
        "seconds_each": share_seconds(result, route) if kind == "surrogate" else 0.0,
        "solved": [*({**within, 1.0: find_solved_share(result, route)}.values())],
    }
