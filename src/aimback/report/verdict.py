"""Which route to choose, by a stated rule, in one sentence."""

import math
from collections.abc import Mapping
from typing import Any

from aimback.report.costs import prepared_routes, repaid_at, total_seconds
from aimback.report.result import TaskResult
from aimback.report.text import factor, listed, number, percent
from aimback.routes import ROUTES

# Differences below these are called a tie: they are within what another seed or a busy machine makes.
SOLVED_MARGIN = 0.01
TIME_MARGIN = 1.2

RULE = (
    f"The rule: the route that solves most targets wins, if it is ahead of all others by at least "
    f"{100 * SOLVED_MARGIN:g} % of them. If not, those within that margin hit equally often, and of these the one that "
    f"took least time in all wins, if by a factor of at least {TIME_MARGIN:g}; anything else is a tie. "
    "Every miss is one of the true simulator."
)


def winner(result: TaskResult) -> str | None:
    """The route to choose, by `RULE`; None for a tie, and where none solves anything."""
    front = _front(result)
    if len(front) == 1:
        return front[0]
    seconds = {route: total_seconds(result, route) for route in front}
    timed = sorted(value for value in seconds.values() if value is not None)
    if len(timed) < len(front) or not any(_solved(result, route) for route in front):
        return None
    if timed[1] < TIME_MARGIN * timed[0]:
        return None
    return next(route for route in front if seconds[route] == timed[0])


def ranking(result: TaskResult) -> list[str]:
    """The routes from best to worst: the winner, those that hit equally often by time, the others by solved targets."""
    best, front = winner(result), _front(result)

    def place(route: str) -> tuple[float, ...]:
        seconds = total_seconds(result, route)
        hits = 0.0 if route in front else -_solved(result, route)
        return route != best, route not in front, hits, math.inf if seconds is None else seconds

    return sorted(ROUTES, key=place)


def verdict(result: TaskResult) -> str:
    """One sentence: who wins, by how much, at what cost."""
    best = winner(result)
    first, second, *rest = ranking(result)
    mine, other = result.metrics[first], result.metrics[second]
    opening = f"the {first} route wins: it" if best else f"a tie by the rule: the {first} route"
    targets = f"{mine['targets']:,} targets within {result.tolerance:g} {result.unit}".rstrip()
    solved = listed(
        [f"the {route} route {percent(result.metrics[route]['solved_fraction'])}" for route in (second, *rest)]
    )
    whose = f"the {first} route's" if not rest else f"against the {second} route, the next best, its"
    return (
        f"{result.name}, {opening} solves {percent(mine['solved_fraction'])} of {targets}, {solved}; "
        f"{whose} median miss is {_against(mine, other, 'miss_median', result.unit)}, "
        f"its simulations {_against(mine, other, 'simulations')}"
        f"{_time(result, first, second)}; {_repaid(result)}."
    )


def lead(result: TaskResult) -> str:
    """By how much the first route is ahead of the second, in the terms of the rule that decided."""
    first, second, *_ = ranking(result)
    if winner(result) is None:
        return "within the margins"
    ahead = _solved(result, first) - _solved(result, second)
    if ahead >= SOLVED_MARGIN:
        return f"{percent(ahead)} more targets solved than {second}"
    times = factor(total_seconds(result, first), total_seconds(result, second))
    return f"{times} times faster than {second}"


def _front(result: TaskResult) -> list[str]:
    """The routes that hit as often as the best one, by `SOLVED_MARGIN`."""
    best = max(_solved(result, route) for route in ROUTES)
    return [route for route in ROUTES if best - _solved(result, route) < SOLVED_MARGIN]


def _solved(result: TaskResult, route: str) -> float:
    return float(result.metrics[route]["solved_fraction"] or 0.0)


def _against(mine: Mapping[str, Any], other: Mapping[str, Any], name: str, unit: str = "") -> str:
    """ "1.2 m against 4.8 m (4 times less)"."""
    left, right = mine[name], other[name]
    words = " against ".join(f"{number(value)} {unit}".rstrip() for value in (left, right))
    return f"{words}{_compared(left, right)}"


def _compared(left: float | None, right: float | None) -> str:
    times = factor(left, right)
    if not times or left is None or right is None:
        return ""
    if max(left, right) < 1.05 * min(left, right):
        return " (about the same)"
    return f" ({times} times {'less' if left < right else 'more'})"


def _time(result: TaskResult, first: str, second: str) -> str:
    mine, other = (total_seconds(result, route) for route in (first, second))
    if mine is None or other is None:
        return ", its time not to be compared (a stage was restored from the cache and not timed)"
    return f", its time {number(mine)} s against {number(other)} s{_compared(mine, other)}"


def _repaid(result: TaskResult) -> str:
    return ", ".join(_repaid_by(route, repaid_at(result, route)) for route in prepared_routes())


def _repaid_by(route: str, targets: float | None) -> str:
    if targets is None:
        return f"from how many targets on the {route} route would repay its fixed cost was not measured"
    if math.isinf(targets):
        return f"the {route} route never repays its fixed cost, since it is not faster a target"
    return f"the {route} route repays its fixed cost from {number(targets)} targets on"
