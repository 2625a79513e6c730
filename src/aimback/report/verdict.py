"""Which route to choose, by a stated rule, in short sentences."""

import math
from collections import Counter

from aimback.core.duration import duration
from aimback.report.costs import (
    SOLVED_MARGIN,
    find_break_even,
    find_solved_share,
    list_prepared_routes,
    share_seconds,
    solves_as_many,
    sum_fixed_seconds,
    sum_seconds,
)
from aimback.report.result import TaskResult
from aimback.report.text import about, count_noun, factor, join_names, percent, say_amount
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


def choose(result: TaskResult) -> str:
    """The answer in a sentence: which route, and why; or why there is none."""
    if _reachable(result) == 0:
        return "Nothing to compare: no target is valid and within reach."
    if result.is_believed:
        return "No route is known to be better: there is no simulator."
    first, *others = ranking(result)
    if not others:
        share = percent(find_solved_share(result, first))
        return f"The {first} route alone solves {share} of {describe_targets(result)}."
    if winner(result) is None:
        front = _front(result)
        alike = f"{join_names(front)} hit equally often, and none is {TIME_MARGIN:g} times faster"
        return f"A tie by the rule: {alike if find_solved_share(result, first) else 'no route solves any target'}."
    second = others[0]
    if second in _front(result):
        times = factor(sum_seconds(result, first), sum_seconds(result, second))
        many = count_noun(_reachable(result), "target")
        return (
            f"Choose {first}: for {many}, preparation included, it is {times} times "
            f"faster than {second}, which hits equally often (within {100 * SOLVED_MARGIN:g} %)."
        )
    ahead = find_solved_share(result, first) - find_solved_share(result, second)
    return f"Choose {first}: it solves {percent(ahead)} more of the targets than {second}, the next best."


def list_reasons(result: TaskResult) -> list[str]:
    """What the answer rests on, and when another route would be better: short sentences, the first route first."""
    if _reachable(result) == 0:
        return _left_out(result)
    if result.is_believed:
        return [line for route in result.routes for line in _say_trust(result, route)] + _left_out(result)
    order = ranking(result)
    shares = [f"{route} {percent(find_solved_share(result, route))}" for route in order]
    misses = [f"{route} {say_amount(result.metrics[route]['miss_median'], result.unit)}" for route in order]
    spent = [f"{route} {about(result.metrics[route]['simulations'])}" for route in order]
    return [
        *([f"Solved of {describe_targets(result)}: {join_names(shares)}."] if len(order) > 1 else []),
        f"The median miss: {join_names(misses)}.",
        *_say_times(result, order),
        f"Simulations: {join_names(spent)}.",
        *list_remarks(result),
    ]


def list_remarks(result: TaskResult) -> list[str]:
    """Those of the reasons that no table of numbers tells: when another route would be better, and what to know."""
    order = ranking(result)
    lines = [
        *(_say_rounds(result, route) for route in result.rounds),
        *(_say_bounds(result, route) for route in result.routes if "coverage" in result.metrics[route]),
        *(_say_repayment(result, route) for route in list_prepared_routes(result) if len(order) > 1),
        *_left_out(result),
        *advise_starts(result),
    ]
    return [*lines, *([f"{result.caution[0].upper()}{result.caution[1:]}."] if result.caution else [])]


def verdict(result: TaskResult) -> str:
    """The answer and its reasons, a line each."""
    return "\n".join([f"{result.name}: {choose(result)}", *list_reasons(result)])


def advise_starts(result: TaskResult) -> list[str]:
    """Two sentences on the best route that would likely solve more targets with more starts; none where none would.

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
            f"More starts would likely help {route}: it solves {known} with {starts} of them.",
            f"With starts.number={2 * int(number)} it would solve perhaps {percent(round(expected, 2))}.",
        ]
    return []


def name_rows(result: TaskResult) -> list[str]:
    """The rows that no route can do anything about, a few by their numbers."""
    invalid = [target.reason for target in result.unsolved if target.status == "invalid_input"]
    lines = [f"{result.name}: invalid: {reason}" for reason in invalid[:NAMED]]
    if len(invalid) > NAMED:
        lines.append(f"{result.name}: and {len(invalid) - NAMED} more invalid rows")
    missed = Counter(target.row for target in result.unsolved)
    # A row that some route solves all the same is not out of reach.
    out = [
        row
        for row in dict.fromkeys(target.row for target in result.unsolved if target.status == "unreachable")
        if missed[row] == len(result.routes)
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


def describe_targets(result: TaskResult) -> str:
    """ "1,000 targets within 0.01 m": those that can be solved, and what counts as solved."""
    reachable = _reachable(result)
    noun = "target" if reachable == result.any_metrics["targets"] else "reachable target"
    return f"{count_noun(reachable, noun)} within {_tolerance(result)}"


def _left_out(result: TaskResult) -> list[str]:
    """The sentence on the rows that are not counted; none where all are."""
    metrics = result.any_metrics
    invalid = int(metrics["status"].get("invalid_input", 0))
    out = int(metrics["targets"]) - invalid - _reachable(result)
    parts = [f"{count_noun(out, 'target')} out of reach"] if out else []
    parts += [f"{count_noun(invalid, 'invalid row')}"] if invalid else []
    return [f"Not counted: {join_names(parts)}."] if parts else []


def _say_trust(result: TaskResult, route: str) -> list[str]:
    """What a network believes, and what that is worth by the data that it has not seen."""
    mine = result.metrics[route]
    network = "The network" if len(result.routes) == 1 else f"The network of {route}"
    names = ("held_out_miss_rms", "held_out_miss_p90", "hit_miss_p90")
    errs, most, hit = (say_amount(mine[name], result.unit) for name in names)
    outside = round(mine["outside_data_fraction"] * _reachable(result))
    told = [
        f"{network} believes that it hits {percent(mine['believed_fraction'])} of {describe_targets(result)}.",
        f"On measurements that it has not seen it errs by {errs}, nine times in ten by less than {most}.",
    ]
    if mine["hit_miss_p90"] is not None:
        told.append(f"Nine of ten answers that it calls a hit are within {hit} of the target.")
    if outside:
        lie = "answer lies" if outside == 1 else "answers lie"
        told.append(f"{outside:,} {lie} outside of the data, where none of this holds.")
    return told


def _say_times(result: TaskResult, order: list[str]) -> list[str]:
    """What a target takes, and what is paid once before the first one."""
    each = {route: share_seconds(result, route) for route in order}
    times = [f"{route} {duration(seconds)}" for route, seconds in each.items() if seconds is not None]
    lines = [f"A target takes {join_names(times)}."] if times else []
    once = {route: sum_fixed_seconds(result, route) for route in list_prepared_routes(result)}
    paid = [f"{route} {duration(seconds)}" for route, seconds in once.items() if seconds is not None]
    lines += [f"Paid once, before the first target: {join_names(paid)}."] if paid else []
    missing = [route for route in order if each[route] is None or once.get(route, 0.0) is None]
    return [*lines, *([f"Restored from a cache, and so not timed: {join_names(missing)}."] if missing else [])]


def _say_rounds(result: TaskResult, route: str) -> str:
    """What a route has bought while it solved, and what it knows by that."""
    rounds = result.rounds[route]
    many, bought = count_noun(len(rounds["round"]), "round"), count_noun(int(rounds["simulations"].sum()), "answer")
    known = int(rounds["solved_targets"][-1])
    return f"In {many} {route} has simulated {bought}; {known:,} hit. Learning from them is in its time to solve."


def _say_bounds(result: TaskResult, route: str) -> str:
    """How many answers are certified, and for which targets that holds."""
    return (
        f"{percent(result.metrics[route]['certified_fraction'])} of the answers of {route} are certified to hit, with "
        "90 %. That is void for targets that do not come from where the task draws its own."
    )


def _say_repayment(result: TaskResult, route: str) -> str:
    """From when on a route with a fixed cost is the better one than the direct route."""
    targets = find_break_even(result, route)
    if not solves_as_many(result, route):
        return f"{route.capitalize()} solves fewer, however many targets there are."
    if targets is None:
        return f"From how many targets on {route} would be cheaper was not measured."
    if math.isinf(targets):
        return f"{route.capitalize()} is not faster, however many targets there are."
    return f"{route.capitalize()} is cheaper from about {about(targets)} targets on: what was paid before is repaid."


def _tolerance(result: TaskResult) -> str:
    return "the tolerances of its outcomes" if result.unit == TOLERANCES else say_amount(result.tolerance, result.unit)
