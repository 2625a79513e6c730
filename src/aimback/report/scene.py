"""One target of a task with what the routes answer: what control, target and miss mean there, before any figure."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aimback.core.box import Axis
from aimback.tasks.base import Task

_DIALS, _OUTCOMES = 4, 3  # controls and outcomes that are shown


@dataclass(frozen=True)
class Mark:
    """Something at a place along an axis.

    Attributes:
        of: a route, or "target".
        place: from 0 at the lower end to 100 at the upper one.
        value: where that is, in the axis's unit.
    """

    of: str
    place: float
    value: float


@dataclass(frozen=True)
class Dial:
    """An axis with what is marked on it.

    Attributes:
        name, unit: of the axis.
        lower, upper: what is shown of it.
        marks: what is where.
        within: where an outcome is within its tolerance: the ends, in per cent of what is shown.
    """

    name: str
    unit: str
    lower: float
    upper: float
    marks: Sequence[Mark]
    within: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scene:
    """What is seen of one target.

    Attributes:
        controls: the first ones, as the routes answer them.
        hidden: how many more there are.
        given: the conditions: name, value and unit.
        outcomes: the first ones, close to their targets, as they came out when the answers were simulated.
        further: how many more outcomes there are.
        misses: by route, and whether it is a hit.
    """

    controls: Sequence[Dial]
    hidden: int
    given: Sequence[tuple[str, float, str]]
    outcomes: Sequence[Dial]
    further: int
    misses: Mapping[str, tuple[float, bool]]


def read_scene(answers: Path, task: Task) -> Scene | None:
    """The target whose worst answer is typical of those that a route misses, or of all where none is missed.

    Args:
        answers: the table of answers; see `write_answers`.

    Returns:
        None where no target has been answered by all routes.
    """
    with answers.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["problem"]]
    by_target: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        by_target.setdefault(row["target"], {})[row["route"]] = row
    routes = {row["route"] for row in rows}
    needed = [one.label for one in (*task.box.axes, *task.outcomes.axes)]
    whole = [
        found
        for found in by_target.values()
        if found.keys() == routes
        and all(math.isfinite(_read(row, name)) for row in found.values() for name in (*needed, "miss"))
    ]
    missed = [found for found in whole if any(row["status"] == "missed" for row in found.values())]
    ranked = sorted(missed or whole, key=lambda found: max(_read(row, "miss") for row in found.values()))
    if not ranked:
        return None
    chosen = ranked[len(ranked) // 2]
    some = next(iter(chosen.values()))
    outcomes = zip(task.outcomes.axes[:_OUTCOMES], task.tolerances, strict=False)
    return Scene(
        controls=[_make_dial(one, chosen) for one in task.box.axes[:_DIALS]],
        hidden=max(0, len(task.box) - _DIALS),
        given=[(one.name, _read(some, one.label), one.unit) for one in task.conditions.axes[:4]],
        outcomes=[_make_outcome(axis, tolerance, chosen) for axis, tolerance in outcomes],
        further=max(0, len(task.outcomes) - _OUTCOMES),
        misses={route: (_read(row, "miss"), row["status"] == "solved") for route, row in chosen.items()},
    )


def _make_outcome(axis: Axis, tolerance: float, answers: Mapping[str, Mapping[str, str]]) -> Dial:
    target = _read(next(iter(answers.values())), f"wanted {axis.label}")
    reached = {route: _read(row, axis.label) for route, row in answers.items()}
    reach = 1.4 * max(tolerance, *(abs(value - target) for value in reached.values()))
    lower, upper = target - reach, target + reach
    within = (50 - 50 * tolerance / reach, 50 + 50 * tolerance / reach)
    return Dial(axis.name, axis.unit, lower, upper, _mark({"target": target, **reached}, lower, upper), within)


def _make_dial(axis: Axis, answers: Mapping[str, Mapping[str, str]]) -> Dial:
    values = {route: _read(row, axis.label) for route, row in answers.items()}
    return Dial(axis.name, axis.unit, axis.lower, axis.upper, _mark(values, axis.lower, axis.upper))


def _mark(values: Mapping[str, float], lower: float, upper: float) -> list[Mark]:
    return [Mark(of, round(100 * (value - lower) / (upper - lower), 2), value) for of, value in values.items()]


def _read(row: Mapping[str, str], name: str) -> float:
    return float(row.get(name) or "nan")
