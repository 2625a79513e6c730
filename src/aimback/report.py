"""The verdict people can read: one page of HTML that needs no network, and the same in Markdown.

Every number comes from the files of one run; what was not measured in it is a dash.
"""

import base64
import csv
import html
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from aimback.errors import UserError
from aimback.files import sha256, write_text
from aimback.routes import ROUTES as ALL_ROUTES
from aimback.tasks.base import Task

DASH = "—"
NEVER = "never"
# Differences below these are called a tie: they are within what another seed or a busy machine makes.
SOLVED_MARGIN = 0.01
TIME_MARGIN = 1.2
LISTED = 20

CAPTIONS = {
    "surfaces": "The loss over two controls for one target, true on the left and through the network on the right: "
    "see whether the descents end on the curve of the true solutions.",
    "trajectories": "Answers to a few targets, re-simulated: see how far from its cross each one ends.",
    "loss": "The same descents twice: left what each route believes, right what is true; where the right one "
    "flattens, the route's own map is the limit and not the solver.",
    "miss": "The share of the targets missed by at most so much: further left is better, and what is left of the "
    "dotted line is solved.",
    "training": "How the network learned: two curves drawing apart would mean that it learns examples by heart, "
    "both flat that more training does not help.",
}

# The two that the page compares.
ROUTES = {name: ALL_ROUTES[name] for name in ("surrogate", "direct")}
# The stages that each route pays for, by what the seconds are called.
_STAGES = {name: {**route.fixed, "seconds_solve": route.solving} for name, route in ALL_ROUTES.items()}


@dataclass(frozen=True)
class Unsolved:
    """A target without a solution: which one, by which route, and why.

    Attributes:
        row: its line in the user's file, or its number among the drawn targets ("drawn 17").
    """

    row: str
    route: str
    status: str
    reason: str


@dataclass(frozen=True)
class TaskResult:
    """What a run found out about one task.

    Attributes:
        name: the task's name.
        unit: of the outcome, and so of every miss.
        tolerance: the miss at which a target counts as solved.
        metrics: by route, as `evaluate` wrote them.
        meters: by stage, those that are there: a stage restored from a cache has none.
        unsolved: what is not solved; invalid rows first, merely missed targets last.
        figures: PNG files, in the order to be shown.
    """

    name: str
    unit: str
    tolerance: float
    metrics: Mapping[str, Mapping[str, Any]]
    meters: Mapping[str, Mapping[str, Any]]
    unsolved: Sequence[Unsolved]
    figures: Sequence[Path]


@dataclass(frozen=True)
class Row:
    """A line of a table: what, and the text of each route."""

    label: str
    cells: Sequence[str]


def read_result(
    name: str, task: Task, *, metrics: Path, answers: Path, meters: Path, results: Path, figures: Path
) -> TaskResult:
    """Gather what the stages wrote about a task.

    Args:
        metrics: the JSON file of the evaluation.
        answers: its CSV file of answers: columns "route", "target", "line", "status", "miss", "problem".
        meters: a folder with a JSON file a stage; one that measured another result than the one that is
            there (a stage was restored from a cache since) is left out.
        results: the folder below which the metered results lie.
        figures: a folder of PNG files.

    Raises:
        UserError: a file is missing or damaged.
    """
    units = {axis.unit for axis in task.outcomes.axes}
    drawn = [figures / f"{figure}.png" for figure in CAPTIONS]
    return TaskResult(
        name=name,
        unit=units.pop() if len(units) == 1 else "",
        tolerance=task.tolerance,
        metrics=_read_json(metrics),
        meters=_read_meters(meters, results),
        unsolved=_read_unsolved(answers),
        figures=[file for file in drawn if file.is_file()],
    )


def _read_meters(folder: Path, results: Path) -> dict[str, dict[str, Any]]:
    meters = {file.stem: _read_json(file) for file in sorted(folder.glob("*.json"))}
    return {
        stage: meter
        for stage, meter in meters.items()
        if (result := results / meter["result"]).is_file() and sha256(result) == meter["result_sha256"]
    }


def write_report(results: Sequence[TaskResult], *, page: Path, markdown: Path, costs: Path) -> None:
    """Write the HTML page, the Markdown file and the costs as JSON.

    The page embeds its figures; the Markdown file links to them where they lie.
    """
    content = {
        "results": [
            {
                "name": result.name,
                "winner": winner(result),
                "verdict": verdict(result),
                "rows": table(result),
                "statuses": statuses(result),
                "unsolved": result.unsolved[:LISTED],
                "more": max(0, len(result.unsolved) - LISTED),
                "figures": [
                    {
                        "name": file.stem,
                        "caption": CAPTIONS.get(file.stem, file.stem),
                        "link": os.path.relpath(file, markdown.parent).replace(os.sep, "/"),
                        "data": base64.b64encode(file.read_bytes()).decode("ascii"),
                    }
                    for file in result.figures
                ],
            }
            for result in results
        ],
        "summary": summary(results),
        "routes": list(ROUTES),
        "rule": RULE,
    }
    write_text(page, environment(autoescape=True).get_template("report.html").render(content))
    write_text(markdown, environment(autoescape=False).get_template("report.md").render(content))
    whole = {result.name: {route: costs_of(result, route) for route in ROUTES} for result in results}
    write_text(costs, json.dumps(whole, indent=1, allow_nan=False) + "\n")


def note(result: TaskResult) -> str:
    """Verdict and table of one task in Markdown."""
    return (
        environment(autoescape=False)
        .get_template("note.md")
        .render(result={"verdict": verdict(result), "rows": table(result)}, routes=list(ROUTES), rule=RULE)
    )


def break_even_targets(fixed_seconds: float, surrogate_seconds: float, direct_seconds: float) -> float:
    """How many targets must be asked before the surrogate's fixed cost is repaid.

    Args:
        fixed_seconds: to simulate the examples and to train.
        surrogate_seconds, direct_seconds: a target, by each route.

    Returns:
        The least whole number of targets at which the surrogate has cost no more; infinity where it
        is not cheaper a target, so never repays.
    """
    saved = direct_seconds - surrogate_seconds
    # Without the last digits: 10 / (0.03 - 0.01) is not 500.00000000000006 targets, so not 501.
    return float(math.ceil(fixed_seconds / saved * (1 - 1e-12))) if saved > 0 else math.inf


def seconds_of(result: TaskResult, route: str) -> dict[str, float | None]:
    """What a route took, in seconds by stage; None where it was not measured, 0 where the route needs none."""
    return {
        name: result.meters.get(_STAGES[route][name], {}).get("seconds") if name in _STAGES[route] else 0.0
        for name in ("seconds_generate", "seconds_train", "seconds_solve")
    }


def repaid_at(result: TaskResult) -> float | None:
    """`break_even_targets` of a task; None where a stage was not measured."""
    surrogate, direct = seconds_of(result, "surrogate"), seconds_of(result, "direct")
    generate, train, invert = surrogate.values()
    optimise = direct["seconds_solve"]
    targets = _solved_for(result)
    if generate is None or train is None or invert is None or optimise is None or targets == 0:
        return None
    return break_even_targets(generate + train, invert / targets, optimise / targets)


def costs_of(result: TaskResult, route: str) -> dict[str, float | str | None]:
    """Seconds, memory and device of a route, for JSON: infinity is null, and said in words."""
    stages = [result.meters[stage] for stage in _STAGES[route].values() if stage in result.meters]
    costs: dict[str, float | str | None] = dict(seconds_of(result, route))
    costs["peak_memory_bytes"] = max((meter["peak_memory_bytes"] for meter in stages), default=None)
    costs["device"] = ", ".join(dict.fromkeys(str(meter["device"]) for meter in stages)) or None
    if route == "surrogate":
        repaid = repaid_at(result)
        costs["break_even_targets"] = None if repaid is None or math.isinf(repaid) else repaid
        costs["break_even"] = _break_even(repaid)
    return costs


def route_metrics(result: TaskResult, route: str) -> dict[str, float | None]:
    """Every number of a route under one flat name, as MLflow wants them; infinite where it is."""
    metrics: dict[str, float | None] = {}
    for name, value in result.metrics[route].items():
        if isinstance(value, Mapping):
            metrics |= {f"{name}_{part}": float(count) for part, count in value.items()}
        elif value is None or isinstance(value, int | float):
            metrics[name] = value
    costs = costs_of(result, route)
    metrics |= seconds_of(result, route)
    peak = costs["peak_memory_bytes"]
    metrics["peak_memory_bytes"] = None if peak is None else float(peak)
    if route == "surrogate":
        metrics["break_even_targets"] = repaid_at(result)
    return metrics


RULE = (
    f"The rule: the route that solves more targets wins, if by at least {100 * SOLVED_MARGIN:g} % of them. If not, "
    f"both hit equally often, and the one that took less time in all wins, if by a factor of at least {TIME_MARGIN:g}; "
    "anything else is a tie. Every miss is one of the true simulator."
)


def winner(result: TaskResult) -> str | None:
    """The route to choose, by `RULE`; None for a tie, and where neither solves anything."""
    solved = {route: result.metrics[route]["solved_fraction"] or 0.0 for route in ROUTES}
    if abs(solved["surrogate"] - solved["direct"]) >= SOLVED_MARGIN:
        return max(ROUTES, key=lambda route: solved[route])
    seconds = {route: _total(seconds_of(result, route)) for route in ROUTES}
    surrogate, direct = seconds["surrogate"], seconds["direct"]
    if not any(solved.values()) or surrogate is None or direct is None:
        return None
    if max(surrogate, direct) < TIME_MARGIN * min(surrogate, direct):
        return None
    return "surrogate" if surrogate < direct else "direct"


def verdict(result: TaskResult) -> str:
    """One sentence: who wins, by how much, at what cost."""
    best = winner(result)
    first = best or "direct"
    second = next(route for route in ROUTES if route != first)
    mine, other = result.metrics[first], result.metrics[second]
    solved = [percent(metrics["solved_fraction"]) for metrics in (mine, other)]
    targets = f"{result.metrics[first]['targets']:,} targets within {result.tolerance:g} {result.unit}".rstrip()
    opening = f"the {first} route wins: it" if best else f"a tie by the rule: the {first} route"
    return (
        f"{result.name}, {opening} solves {solved[0]} of {targets}, the {second} route {solved[1]}; "
        f"the {first} route's median miss is {_against(mine, other, 'miss_median', result.unit)}, "
        f"its simulations {_against(mine, other, 'simulations')}"
        f"{_time(result, first, second)}; {_repaid(repaid_at(result))}."
    )


def table(result: TaskResult) -> list[Row]:
    """Route by route, every measure."""
    unit = result.unit

    def row(label: str, name: str, show: Any = None) -> Row:
        return Row(label, [(show or number)(all_of[route].get(name)) for route in ROUTES])

    all_of: dict[str, dict[str, Any]] = {
        route: {**result.metrics[route], **costs_of(result, route)} for route in ROUTES
    }
    miss = f"miss [{unit}]" if unit else "miss"
    believed = f"believed {miss}"
    return [
        row("targets", "targets"),
        row("solved", "solved_fraction", percent),
        row(f"{miss}, median", "miss_median"),
        row(f"{miss}, 90 %", "miss_p90"),
        row(f"{miss}, greatest", "miss_max"),
        row(f"{believed}, median", "believed_miss_median"),
        row(f"{believed}, 90 %", "believed_miss_p90"),
        row("starts that arrive", "arrived_fraction", percent),
        row("steps to tolerance, median", "steps_to_tolerance_median"),
        row("steps to tolerance, 90 %", "steps_to_tolerance_p90"),
        row("simulations", "simulations"),
        row("gradients", "gradients"),
        row("training examples", "training_examples"),
        row("generate [s]", "seconds_generate"),
        row("train [s]", "seconds_train"),
        row("solve [s]", "seconds_solve"),
        Row("break-even targets", [_break_even(repaid_at(result)), DASH]),
        row("peak memory [MiB]", "peak_memory_bytes", _mebibytes),
        row("device", "device", lambda device: device or DASH),
    ]


def statuses(result: TaskResult) -> list[Row]:
    """How many targets ended how; statuses that no target has are left out."""
    counts = [result.metrics[route]["status"] for route in ROUTES]
    names = dict.fromkeys(name for count in counts for name, many in count.items() if many)
    return [Row(name, [number(count.get(name, 0)) for count in counts]) for name in names]


def summary(results: Iterable[TaskResult]) -> list[Row]:
    """A line a task: winner, then solved, median miss, simulations and seconds as "surrogate / direct"."""
    lines = []
    for result in results:
        both = [result.metrics[route] for route in ROUTES]
        seconds = [number(_total(seconds_of(result, route))) for route in ROUTES]
        lines.append(
            Row(
                result.name,
                [
                    winner(result) or "tie",
                    " / ".join(percent(metrics["solved_fraction"]) for metrics in both),
                    " / ".join(f"{number(metrics['miss_median'])} {result.unit}".rstrip() for metrics in both),
                    " / ".join(number(metrics["simulations"]) for metrics in both),
                    " / ".join(seconds),
                    _break_even(repaid_at(result)),
                ],
            )
        )
    return lines


def number(value: float | None) -> str:
    """Three digits that matter; a dash where nothing was measured."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(fraction: float | None) -> str:
    """A share; only what is whole is called 100 %, and only nothing 0 %."""
    if fraction is None:
        return DASH
    shown = 100 * fraction
    if 0 < fraction < 1:
        shown = min(max(shown, 0.01), 99.99)
    return f"{shown:.4g} %" if shown > 99 else f"{shown:.3g} %"


def _against(mine: Mapping[str, Any], other: Mapping[str, Any], name: str, unit: str = "") -> str:
    """ "1.2 m against 4.8 m (4 times less)"."""
    left, right = mine[name], other[name]
    words = " against ".join(f"{number(value)} {unit}".rstrip() for value in (left, right))
    return f"{words}{_factor(left, right)}"


def _factor(left: float | None, right: float | None) -> str:
    if left is None or right is None or not (0 < left < math.inf and 0 < right < math.inf):
        return ""
    factor = max(left, right) / min(left, right)
    if factor < 1.05:
        return " (about the same)"
    if factor < 10:
        times = f"{factor:.2g}"
    else:
        times = f"{factor:,.0f}" if factor < 1e5 else f"over 10^{math.floor(math.log10(factor))}"
    return f" ({times} times {'less' if left < right else 'more'})"


def _time(result: TaskResult, first: str, second: str) -> str:
    mine, other = (_total(seconds_of(result, route)) for route in (first, second))
    if mine is None or other is None:
        return ", its time not to be compared (a stage was restored from the cache and not timed)"
    return f", its time {number(mine)} s against {number(other)} s{_factor(mine, other)}"


def _repaid(targets: float | None) -> str:
    if targets is None:
        return "from how many targets on the surrogate would repay its fixed cost was not measured"
    if math.isinf(targets):
        return "the surrogate never repays its fixed cost, since it is not faster a target"
    return f"the surrogate repays its fixed cost from {number(targets)} targets on"


def _break_even(targets: float | None) -> str:
    return NEVER if targets is not None and math.isinf(targets) else number(targets)


def _total(seconds: Mapping[str, float | None]) -> float | None:
    known = [value for value in seconds.values() if value is not None]
    return sum(known) if len(known) == len(seconds) else None


def _solved_for(result: TaskResult) -> int:
    """The targets that the routes worked on: all but invalid rows."""
    metrics = result.metrics["direct"]
    return int(metrics["targets"]) - int(metrics["status"].get("invalid_input", 0))


def _mebibytes(size: float | None) -> str:
    return number(None if size is None else round(size / 2**20))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `dvc repro` to make it anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not what was written there; run `dvc repro` to make it anew")
    return content


def _read_unsolved(path: Path) -> list[Unsolved]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        unsolved = []
        for row in rows:
            if row["status"] == "solved":
                continue
            place = f"line {row['line']}" if row["line"] else f"drawn {int(row['target']) + 1}"
            invalid = bool(row["problem"])
            if invalid and row["route"] != list(ROUTES)[0]:
                continue  # said once: no route can do anything about it
            reason = row["problem"] or f"miss {number(float(row['miss'])) if row['miss'] else DASH}"
            unsolved.append(Unsolved(place, "both" if invalid else row["route"], row["status"], reason))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `dvc repro` to make it anew") from error
    # First what a person can mend, last what only says that the network is not exact.
    return sorted(unsolved, key=lambda target: (target.status != "invalid_input", target.status == "missed"))


def environment(*, autoescape: bool) -> jinja2.Environment:
    """What every template here is rendered in: HTML with `autoescape`, Markdown without; `cell` is for table cells."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aimback"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    return environment


def _cell(text: str) -> str:
    """Text inside a Markdown table: what a user's file holds must not become markup."""
    safe = html.escape(" ".join(str(text).split()), quote=False)
    # Underscores inside a name are text already.
    return re.sub(r"[\\`*\[\]|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", safe)
