"""Which route to choose, by a stated rule, in a few plain sentences."""

import math

from aimback.report.costs import (
    SOLVED_MARGIN,
    find_break_even,
    find_solved_share,
    list_prepared_routes,
    share_seconds,
    solves_as_many,
    sum_seconds,
)
from aimback.report.result import TaskResult
from aimback.report.text import count_noun, factor, join_names, number, percent
from aimback.tasks.base import TOLERANCES

TIME_MARGIN = 1.2  # a lesser factor is within what a busy machine makes
GAINED = 3  # targets; what one or two do may be chance
NAMED = 5  # rows that the console names

RULE = (
    f"The rule: the route that solves most targets wins, if it is ahead of all others by at least "
    f"{100 * SOLVED_MARGIN:g} % of them. If not, those within that margin hit equally often, and of these the one that "
    f"took least time in all wins, if by a factor of at least {TIME_MARGIN:g}; anything else is a tie. "
    "Every miss is one of the true simulator."
)

TRUST = (
    "There is no simulator, so no answer was simulated again, and no route is known to be better. What a network errs "
    "by is measured on rows that it has not learned from, a fifth of the data at a time; nine of ten new measurements "
    "from where the data come from are within its bound. An answer lies outside of the data where it is farther from "
    "the nearest rows than 99 % of the rows are. A search seeks the rim of the box, and the places where a network "
    "errs, more than chance does: measure some of the answers."
)


def winner(result: TaskResult) -> str | None:
    """The route to choose, by `RULE`; None for a tie, and where none solves anything, or none can be simulated."""
    if result.is_believed:
        return None
    front = _front(result)
    if len(front) == 1:
        return front[0]
    seconds = {route: sum_seconds(result, route) for route in front}
    timed = sorted(value for value in seconds.values() if value is not None)
    if len(timed) < len(front) or not any(find_solved_share(result, route) for route in front):
        return None
    if timed[1] < TIME_MARGIN * timed[0]:
        return None
    return next(route for route in front if seconds[route] == timed[0])


def ranking(result: TaskResult) -> list[str]:
    """The routes from best to worst: the winner, those that hit equally often by time, the others by solved targets."""
    best, front = winner(result), _front(result)

    def place(route: str) -> tuple[float, ...]:
        seconds = sum_seconds(result, route)
        hits = 0.0 if route in front else -find_solved_share(result, route)
        return route != best, route not in front, hits, math.inf if seconds is None else seconds

    return sorted(result.routes, key=place)


def verdict(result: TaskResult) -> str:
    """Who wins, by how much, at what cost, or how far to trust the networks; a sentence a line."""
    reachable = _reachable(result)
    if reachable == 0:
        return f"{result.name}, nothing to compare: no target is valid and within reach.{_left_out(result)}"
    if result.is_believed:
        return "\n".join(_say_trust(result, route) for route in result.routes)
    best = winner(result)
    first, *others = ranking(result)
    mine = result.metrics[first]
    opening = f"the {first} route wins: it" if best else f"a tie by the rule: the {first} route"
    whole = reachable == mine["targets"]
    targets = f"{count_noun(reachable, 'target' if whole else 'reachable target')} within {_tolerance(result)}"
    share = percent(mine["solved_fraction"])
    if not others:
        miss, spent = _amount(result, mine["miss_median"]), count_noun(mine["simulations"], "simulation")
        alone = f"{result.name}, the {first} route alone solves {share} of {targets}.{_left_out(result)}"
        return "\n".join([alone, f"Its median miss is {miss}; it takes {spent}.", *advise_starts(result)])
    second, *rest = others
    other = result.metrics[second]
    solved = join_names([f"the {route} route {percent(result.metrics[route]['solved_fraction'])}" for route in others])
    whose = f"The {first} route's" if not rest else f"Against the {second} route, the next best, its"
    lines = [
        f"{result.name}, {opening} solves {share} of {targets}, {solved}.{_left_out(result)}",
        f"{whose} median miss is {_misses(result, first, second)}, "
        f"its simulations are {_against(mine['simulations'], other['simulations'])}, "
        f"{_time(result, first, second)}.",
        *(f"{_repaid_by(result, route)}." for route in list_prepared_routes(result)),
        *advise_starts(result),
    ]
    if result.caution:
        lines.append(f"{result.caution[0].upper()}{result.caution[1:]}.")
    return "\n".join(lines)


def advise_starts(result: TaskResult) -> list[str]:
    """A sentence on the best route that would likely solve more targets with more starts; none where none would.

    It stands where the last doubling of the starts has brought `SOLVED_MARGIN` of the targets and at least
    `GAINED` of them. What the next one would bring is guessed as the lesser of two: that its gain is to the last as the
    last is to the one before, at most the same, or that it leaves the same share of what is left as the last one did.
    """
    for route in ranking(result):
        shares = list((result.metrics[route].get("solved_by_starts") or {}).items())
        if len(shares) < 3:
            continue
        (_, quarter), (_, half), (number, whole) = shares[-3:]
        gain, before = whole - half, half - quarter
        if gain < SOLVED_MARGIN or round(gain * _reachable(result)) < GAINED:
            continue
        alike = gain * min(1.0, gain / before) if before > 0 else gain
        expected = whole + min(alike, gain * (1 - whole) / (1 - half))
        if expected - whole < SOLVED_MARGIN:
            continue
        known = join_names([percent(share) for _, share in shares[-3:]])
        starts = join_names([many for many, _ in shares[-3:]])
        return [
            f"More starts would likely help the {route} route: it solves {known} of the targets with {starts} of them, "
            f"so with starts.number={2 * int(number)} perhaps {percent(round(expected, 2))}."
        ]
    return []


def name_rows(result: TaskResult) -> list[str]:
    """The rows that no route can do anything about, a few by their numbers."""
    invalid = [target.reason for target in result.unsolved if target.status == "invalid_input"]
    lines = [f"{result.name}: invalid: {reason}" for reason in invalid[:NAMED]]
    if len(invalid) > NAMED:
        lines.append(f"{result.name}: and {len(invalid) - NAMED} more invalid rows")
    missed = [target.row for target in result.unsolved]
    # A row that some route solves all the same is not out of reach.
    out = [
        row
        for row in dict.fromkeys(target.row for target in result.unsolved if target.status == "unreachable")
        if missed.count(row) == len(result.routes)
    ]
    if out:
        more = [f"{len(out) - NAMED} more"] if len(out) > NAMED else []
        lines.append(f"{result.name}: out of reach: {join_names([*out[:NAMED], *more])}")
    return lines


def lead(result: TaskResult) -> str:
    """By how much the first route is ahead of the second, in the terms of the rule that decided."""
    if result.is_believed:
        return "nothing to compare by, for there is no simulator"
    first, *others = ranking(result)
    if not others:
        return "it is the only one"
    if winner(result) is None:
        return "within the margins"
    second = others[0]
    ahead = find_solved_share(result, first) - find_solved_share(result, second)
    if ahead >= SOLVED_MARGIN:
        return f"{percent(ahead)} more targets solved than {second}"
    times = factor(sum_seconds(result, first), sum_seconds(result, second))
    return f"{times} times faster in all than {second}"


def _front(result: TaskResult) -> list[str]:
    """The routes that hit as often as the best one, by `SOLVED_MARGIN`."""
    best = max(find_solved_share(result, route) for route in result.routes)
    return [route for route in result.routes if best - find_solved_share(result, route) < SOLVED_MARGIN]


def _reachable(result: TaskResult) -> int:
    """The targets that can be solved, as far as is known."""
    return int(result.any_metrics["reachable_targets"])


def _left_out(result: TaskResult) -> str:
    """The sentence on the rows that are not counted; "" where all are."""
    metrics = result.any_metrics
    invalid = int(metrics["status"].get("invalid_input", 0))
    out = int(metrics["targets"]) - invalid - _reachable(result)
    parts = [f"{count_noun(out, 'target')} out of reach"] if out else []
    parts += [f"{count_noun(invalid, 'invalid row')}"] if invalid else []
    return f" Not counted: {join_names(parts)}." if parts else ""


def _say_trust(result: TaskResult, route: str) -> str:
    """What a network believes, and what that is worth by the data that it has not seen."""
    mine = result.metrics[route]
    whose = "the network" if len(result.routes) == 1 else f"the network of the route {route}"
    names = ("held_out_miss_rms", "held_out_miss_p90", "hit_miss_p90")
    errs, most, hit = (_amount(result, mine[name]) for name in names)
    many = _reachable(result)
    outside = round(mine["outside_data_fraction"] * many)
    told = [
        f"{result.name}: {whose} believes that it hits {percent(mine['believed_fraction'])} of "
        f"{count_noun(many, 'target')} within {_tolerance(result)}",
        f"on measurements that it has not seen it errs by {errs} (90 %: {most})",
    ]
    if mine["hit_miss_p90"] is not None:
        told[-1] += f", so an answer that it calls a hit is within {hit} of the target with 90 %"
    if outside:
        lie = "answer lies" if outside == 1 else "answers lie"
        told.append(f"{outside:,} {lie} outside of the data, where that does not hold")
    return f"{'; '.join(told)}.{_left_out(result)}"


def _tolerance(result: TaskResult) -> str:
    return "the tolerances of its outcomes" if result.unit == TOLERANCES else _amount(result, result.tolerance)


def _amount(result: TaskResult, value: float | None) -> str:
    return f"{number(value)} {result.unit}".rstrip()


def _misses(result: TaskResult, first: str, second: str) -> str:
    """A factor between two misses says something only where one of them is no hit: within the tolerance a solver may
    stop, or go on to rounding."""
    mine, other = (result.metrics[route]["miss_median"] for route in (first, second))
    words = f"{_amount(result, mine)} against {_amount(result, other)}"
    if mine is not None and other is not None and max(mine, other) <= result.tolerance:
        return f"{words} (both are hits; how far beyond the tolerance a route refines is its solver's setting)"
    return f"{words}{_compare(mine, other)}"


def _against(mine: float | None, other: float | None, unit: str = "") -> str:
    """ "1.2 s against 4.8 s (4 times less)"."""
    words = " against ".join(f"{number(value)} {unit}".rstrip() for value in (mine, other))
    return f"{words}{_compare(mine, other)}"


def _compare(left: float | None, right: float | None) -> str:
    times = factor(left, right)
    if not times or left is None or right is None:
        return ""
    if max(left, right) < 1.05 * min(left, right):
        return " (about the same)"
    return f" ({times} times {'less' if left < right else 'more'})"


def _time(result: TaskResult, first: str, second: str) -> str:
    mine, other = (sum_seconds(result, route) for route in (first, second))
    if mine is None or other is None:
        return "its time is not to be compared (a stage was restored from the cache and not timed)"
    words = f"its time in all is {_against(mine, other, 's')}"
    each, others = (share_seconds(result, route) for route in (first, second))
    if each is None or others is None:
        return words
    return f"{words}, and a target alone takes it {_against(1000 * each, 1000 * others, 'ms')}"


def _repaid_by(result: TaskResult, route: str) -> str:
    targets = find_break_even(result, route)
    if not solves_as_many(result, route):
        return f"The {route} route never repays its fixed cost, since it does not solve as many"
    if targets is None:
        return f"From how many targets on the {route} route would repay its fixed cost was not measured"
    if math.isinf(targets):
        return f"The {route} route never repays its fixed cost, since it is not faster a target"
    return f"The {route} route repays its fixed cost from {number(targets)} targets on"
