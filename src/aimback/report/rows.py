"""The numbers of the report as tables of text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aimback.diagnose.claim import Claim
from aimback.report.costs import find_break_even, list_costs, list_prepared_routes, say_break_even
from aimback.report.result import TaskResult
from aimback.report.text import DASH, mebibytes, number, percent, say_amount
from aimback.report.verdict import lead, winner


@dataclass(frozen=True)
class Row:
    """A line of a table: what, and the text of each column."""

    label: str
    cells: Sequence[str]


@dataclass(frozen=True)
class Finding:
    """What became of one claim on every task.

    Attributes:
        key: "C1" to "C7".
        question: what the claim is about.
        claims: a task each, None where it was not examined.
    """

    key: str
    question: str
    claims: Sequence[Claim | None]


def summary(results: Sequence[TaskResult]) -> list[Row]:
    """A line a task: `summary_columns`."""
    return [
        Row(
            result.name,
            [
                winner(result) or (DASH if result.is_believed else "tie"),
                lead(result),
                *(percent(result.metrics[route].get("solved_fraction")) for route in result.routes),
                *(say_amount(result.metrics[route].get("miss_median"), result.unit) for route in result.routes),
                *(say_break_even(find_break_even(result, route)) for route in list_prepared_routes(result)),
            ],
        )
        for result in results
    ]


def summary_columns(result: TaskResult) -> dict[str, list[str]]:
    """What the columns of `summary` are, in groups: the routes of each, or none where there is one column."""
    return {
        "best route": [],
        "lead": [],
        "solved": list(result.routes),
        "median miss": list(result.routes),
        "repays from [targets]": list_prepared_routes(result),
    }


def table(result: TaskResult) -> list[Row]:
    """Route by route, every measure."""
    all_of: dict[str, dict[str, Any]] = {
        route: {**result.metrics[route], **list_costs(result, route)} for route in result.routes
    }

    def row(label: str, name: str, show: Callable[[Any], str] = number) -> Row:
        return Row(label, [show(all_of[route].get(name)) for route in result.routes])

    miss = f"miss [{result.unit}]" if result.unit else "miss"
    believed = f"believed {miss}"
    error = f"the simulator's own error{miss.removeprefix('miss')}, greatest"
    rows = [
        row("targets", "targets"),
        # Without a simulator nothing tells which are out of reach.
        *([] if result.is_believed else [row("targets within reach", "reachable_targets")]),
        row("solved, of these", "solved_fraction", percent),
        row(f"{miss}, median", "miss_median"),
        row(f"{miss}, 90 %", "miss_p90"),
        row(f"{miss}, greatest", "miss_max"),
        row(f"{believed}, median", "believed_miss_median"),
        row(f"{believed}, 90 %", "believed_miss_p90"),
        *(_tabulate_trust(row, miss) if result.is_believed else []),
        *([row(error, "simulation_error_max")] if "simulation_error_max" in result.any_metrics else []),
        *(_tabulate_bounds(row) if any("coverage" in of for of in all_of.values()) else []),
        row("distinct answers, median", "distinct_answers_median"),
        row("starts that arrive, believed", "arrived_fraction", percent),
        row("steps to tolerance, median", "steps_to_tolerance_median"),
        row("steps to tolerance, 90 %", "steps_to_tolerance_p90"),
        row("simulations", "simulations"),
        row("gradients", "gradients"),
        row("training examples", "training_examples"),
        row("generate [s]", "seconds_generate"),
        row("train [s]", "seconds_train"),
        row("solve [s]", "seconds_solve"),
        Row("break-even targets", [say_break_even(find_break_even(result, route)) for route in result.routes]),
        row("peak memory [MiB]", "peak_memory_bytes", mebibytes),
        row("device", "device", lambda device: device or DASH),
    ]
    return [one for one in rows if set(one.cells) != {DASH}] if result.is_believed else rows


def _tabulate_trust(row: Callable[..., Row], miss: str) -> list[Row]:
    """What is told of a network whose answers cannot be simulated."""
    return [
        row("believed to be hits", "believed_fraction", percent),
        row(f"{miss} on measurements not seen, root mean square", "held_out_miss_rms"),
        row(f"{miss} on measurements not seen, 90 %", "held_out_miss_p90"),
        row(f"{miss} of believed hits at most, with 90 %", "hit_miss_p90"),
        row("answers outside of the data", "outside_data_fraction", percent),
    ]


def _tabulate_bounds(row: Callable[..., Row]) -> list[Row]:
    """What calibration makes of believed hits."""
    return [
        row("certified to hit, with 90 %", "certified_fraction", percent),
        row("misses within their 90 % bounds", "coverage", percent),
    ]


def statuses(result: TaskResult) -> list[Row]:
    """How many targets ended how; statuses that no target has are left out."""
    counts = [result.metrics[route]["status"] for route in result.routes]
    names = dict.fromkeys(name for count in counts for name, many in count.items() if many)
    return [Row(name, [number(count.get(name, 0)) for count in counts]) for name in names]


def tabulate_published(result: TaskResult) -> list[Row]:
    """The metric r_T at T = 1 and T = 50, published and measured."""
    published = [Row(f"{row.method}, published", [number(row.r_1), number(row.r_50)]) for row in result.published]
    measured = [
        Row(f"{route}, measured", [number(metrics.get(name)) for name in ("r_1", "r_50")])
        for route, metrics in result.metrics.items()
    ]
    return published + measured if published else []


def findings(results: Sequence[TaskResult]) -> list[Finding]:
    """A line a claim, in the order of their keys."""
    by_task = [{claim.key: claim for claim in result.claims} for result in results]
    questions = {key: claim.question for claims in by_task for key, claim in claims.items()}
    return [Finding(key, questions[key], [claims.get(key) for claims in by_task]) for key in sorted(questions)]


def amount(claim: Claim, value: float | None) -> str:
    """ "6.8 %", or "1.3": a number as the claim counts it."""
    return percent(value) if claim.is_share else number(value)


def interval(claim: Claim) -> str:
    """ "1.7 to 2.1": the 95 % interval of the number that decides; a dash where there is none."""
    low, high = claim.number.low, claim.number.high
    return DASH if low is None or high is None else f"{amount(claim, low)} to {amount(claim, high)}"


@dataclass(frozen=True)
class Spread:
    """Where along a line the number of a claim lies, all in per cent of it.

    Attributes:
        low, high: the ends of its 95 % interval.
        seeds: the numbers of all networks, the run's own first.
        bound: what the claim is supported above.
    """

    low: float
    high: float
    seeds: Sequence[float]
    bound: float


def place_spread(claim: Claim) -> Spread | None:
    """The spread of a claim over targets and networks against its bound; None where there is no interval."""
    low, high = claim.number.low, claim.number.high
    seeds = [seed for seed in claim.number.seeds if seed is not None]
    if low is None or high is None or not seeds:
        return None
    least, greatest = min(low, claim.bound, *seeds), max(high, claim.bound, *seeds)
    width = (greatest - least) or 1.0

    def place(value: float) -> float:
        return round(5 + 90 * (value - least) / width, 1)

    return Spread(place(low), place(high), [place(seed) for seed in seeds], place(claim.bound))


def over_seeds(claim: Claim) -> str:
    """ "1.8 to 2.0": the least and the greatest number of several networks; a dash where there is one."""
    known = [seed for seed in claim.number.seeds if seed is not None]
    return DASH if len(known) < 2 else f"{amount(claim, min(known))} to {amount(claim, max(known))}"
