"""What the routes cost, and from how many targets on a fixed cost is repaid."""

import math
from collections.abc import Collection, Mapping

from aimback.report.result import TaskResult
from aimback.report.text import NEVER, number

# A route whose share of solved targets is less than this behind another's solves as many: the rest is within what
# another seed makes.
SOLVED_MARGIN = 0.01

_SECONDS = ("seconds_generate", "seconds_train", "seconds_solve")


def break_even_targets(fixed_seconds: float, route_seconds: float, direct_seconds: float) -> float:
    """How many targets must be asked before a route's fixed cost is repaid.

    Args:
        fixed_seconds: paid once, to simulate the examples and to train.
        route_seconds, direct_seconds: a target, by that route and by the direct one.

    Returns:
        The least whole number of targets at which the route has cost no more; infinity where it
        is not cheaper a target, so never repays.
    """
    saved = direct_seconds - route_seconds
    # Without the last digits: 10 / (0.03 - 0.01) is not 500.00000000000006 targets, so not 501.
    return float(math.ceil(fixed_seconds / saved * (1 - 1e-12))) if saved > 0 else math.inf


def list_prepared_routes(result: TaskResult) -> list[str]:
    """The routes that pay something once, before the first target."""
    return [name for name, route in result.routes.items() if route.fixed]


def list_seconds(result: TaskResult, route: str) -> dict[str, float | None]:
    """What a route took, in seconds by stage; None where it was not measured, 0 where the route needs none."""
    stages = _stages(result, route)
    return {name: result.meters.get(stages[name], {}).get("seconds") if name in stages else 0.0 for name in _SECONDS}


def sum_seconds(result: TaskResult, route: str) -> float | None:
    """All stages of a route; None where one was not measured."""
    return _add_up(list_seconds(result, route).values())


def sum_fixed_seconds(result: TaskResult, route: str) -> float | None:
    """What a route takes once, before the first target; None where a stage was not measured."""
    once = list_seconds(result, route)
    del once["seconds_solve"]
    return _add_up(once.values())


def _add_up(seconds: Collection[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None


def share_seconds(result: TaskResult, route: str) -> float | None:
    """What a further target costs a route, once all is prepared; None where that was not measured."""
    seconds, targets = list_seconds(result, route)["seconds_solve"], _count_targets(result)
    return None if seconds is None or targets == 0 else seconds / targets


def find_solved_share(result: TaskResult, route: str) -> float:
    """Of the targets that can be solved, the share that the route does."""
    return float(result.metrics[route]["solved_fraction"] or 0.0)


def solves_as_many(result: TaskResult, route: str) -> bool:
    """Whether a route solves as many targets as the direct one, within `SOLVED_MARGIN`, and any at all."""
    share = find_solved_share(result, route)
    return share > 0 and (result.direct is None or find_solved_share(result, result.direct) - share < SOLVED_MARGIN)


def find_break_even(result: TaskResult, route: str) -> float | None:
    """`break_even_targets` of a route against the direct one: infinite where it does not solve as many, for no number
    of worse answers repays a cost; None where there is nothing to repay, or no direct route, or a stage was not
    measured."""
    if not result.routes[route].fixed or result.direct is None:
        return None
    if not solves_as_many(result, route):
        return math.inf
    own, direct = share_seconds(result, route), share_seconds(result, result.direct)
    fixed = sum_fixed_seconds(result, route)
    return None if fixed is None or own is None or direct is None else break_even_targets(fixed, own, direct)


def say_break_even(targets: float | None) -> str:
    """`find_break_even` for a table."""
    return NEVER if targets is not None and math.isinf(targets) else number(targets)


def list_costs(result: TaskResult, route: str) -> dict[str, float | str | None]:
    """Seconds, memory and device of a route, for JSON: infinity is null, and said in words."""
    stages = [result.meters[stage] for stage in _stages(result, route).values() if stage in result.meters]
    costs: dict[str, float | str | None] = dict(list_seconds(result, route))
    costs["peak_memory_bytes"] = max((meter["peak_memory_bytes"] for meter in stages), default=None)
    costs["device"] = ", ".join(dict.fromkeys(str(meter["device"]) for meter in stages)) or None
    if result.routes[route].fixed:
        repaid = find_break_even(result, route)
        costs["break_even_targets"] = None if repaid is None or math.isinf(repaid) else repaid
        costs["break_even"] = say_break_even(repaid)
    return costs


def list_metrics(result: TaskResult, route: str) -> dict[str, float | None]:
    """Every number of a route under one flat name, as MLflow wants them; infinite where it is."""
    metrics: dict[str, float | None] = {}
    for name, value in result.metrics[route].items():
        if isinstance(value, Mapping):
            metrics |= {f"{name}_{part}": float(count) for part, count in value.items()}
        elif value is None or isinstance(value, int | float):
            metrics[name] = value
    metrics |= list_seconds(result, route)
    peak = list_costs(result, route)["peak_memory_bytes"]
    metrics["peak_memory_bytes"] = None if peak is None else float(peak)
    if result.routes[route].fixed:
        metrics["break_even_targets"] = find_break_even(result, route)
    return metrics


def _stages(result: TaskResult, route: str) -> dict[str, str]:
    """The meters of all that a route pays for, by what their seconds are called."""
    return {**result.routes[route].fixed, "seconds_solve": result.routes[route].solving}


def _count_targets(result: TaskResult) -> int:
    """The targets that the routes worked on: all but invalid rows."""
    metrics = result.any_metrics
    return int(metrics["targets"]) - int(metrics["status"].get("invalid_input", 0))
