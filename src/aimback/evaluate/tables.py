"""The tables of results, written and read in one place: answers.csv, distinct.csv, curves.csv, r_t.csv and
history.csv."""

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aimback.core.errors import UserError
from aimback.core.files import write_table
from aimback.core.problem import Status
from aimback.data.targets import Targets
from aimback.evaluate.distinct import DistinctAnswers
from aimback.evaluate.judge import Answers
from aimback.tasks.base import Task

Array: TypeAlias = NDArray[np.float64]

CURVE_COLUMNS = ("route", "step", "loss", "miss", "miss_p10", "miss_p90")
R_T_COLUMNS = ("route", "T", "mean", "q25", "median", "q75")
_ANSWER_COLUMNS = ("route", "target", "line", "status", "miss", "problem")


@dataclass(frozen=True)
class AnswerRow:
    """What became of one target by one route.

    Attributes:
        target: its number, from 0.
        line: of the user's file; None for a drawn target.
        miss: NaN where there is none.
        problem: why the row is invalid; "" where it is not.
    """

    route: str
    target: int
    line: int | None
    status: str
    miss: float
    problem: str


def write_answers(
    path: Path,
    task: Task,
    targets: Targets,
    answers: Mapping[str, Answers],
    further: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Write every route's answers as a CSV table, a row a target and route, with full precision.

    Args:
        further: by route, what else is told of each target, `(n_targets,)` by column; the same columns for all routes.
    """
    more = further or {route: {} for route in answers}
    header = ["route", "target", "line", "status", *name_numbers(task)]
    header += [*(["cost"] if _has_costs(task) else []), *next(iter(more.values())), "problem"]
    rows: list[Sequence[object]] = []
    for route, answer in answers.items():
        told = [column[:, None] for column in more[route].values()]
        table = torch.cat([list_numbers(targets, answer), *_list_costs(task, answer.controls), *told], dim=1).tolist()
        for index, (line, status) in enumerate(zip(targets.lines.tolist(), answer.status.tolist(), strict=True)):
            numbers = ["" if math.isnan(number) else repr(number) for number in table[index]]
            rows.append([route, index, line or "", Status(status).name.lower(), *numbers, targets.problems[index]])
    write_table(path, header, rows)


def name_numbers(task: Task) -> list[str]:
    """What the columns of `list_numbers` are."""
    wanted = [f"wanted {axis.label}" for axis in task.outcomes.axes]
    others = [axis.label for axis in (*task.conditions.axes, *task.box.axes, *task.outcomes.axes)]
    return [*wanted, *others, "miss", "believed_miss"]


def list_numbers(targets: Targets, answers: Answers) -> Tensor:
    """What was wanted and what came of it, a row a target, `(n_targets, n_columns)`; NaN where there is nothing."""
    misses = torch.stack([answers.miss, answers.believed_miss], dim=1)
    return torch.cat([targets.targets, targets.conditions, answers.controls, answers.outcome, misses], dim=1)


def write_distinct(path: Path, task: Task, distinct: Mapping[str, DistinctAnswers]) -> None:
    """Write every route's distinct answers as a CSV table, a row an answer, with full precision.

    Where targets are measured, the standard deviations of the controls follow, and the names of those that the target
    leaves undetermined, see `Uncertainty`.
    """
    header = ["route", "target", "number", *(axis.label for axis in task.box.axes), "miss"]
    header += ["cost"] if _has_costs(task) else []
    header += [] if task.sigmas is None else [*(f"sd_{axis.label}" for axis in task.box.axes), "undetermined"]
    rows: list[Sequence[object]] = []
    for route, answers in distinct.items():
        parts = [answers.controls, answers.miss[:, None], *_list_costs(task, answers.controls)]
        table = torch.cat(parts, dim=1).tolist()
        names: list[list[str]] = [[]] * len(table)
        if answers.uncertainty is not None:
            deviations = answers.uncertainty.deviations.tolist()
            table = [[*row, *more] for row, more in zip(table, deviations, strict=True)]
            names = [
                [" ".join(itertools.compress(task.box.names, flags))]
                for flags in answers.uncertainty.undetermined.tolist()
            ]
        numbers = zip(answers.target.tolist(), answers.number.tolist(), table, names, strict=True)
        rows += [
            [route, target, number, *("" if math.isnan(value) else repr(value) for value in row), *name]
            for target, number, row, name in numbers
        ]
    write_table(path, header, rows)


def _has_costs(task: Task) -> bool:
    return task.compute_costs(torch.zeros(0, len(task.box), dtype=torch.float64)) is not None


def _list_costs(task: Task, controls: Tensor) -> list[Tensor]:
    """The column of costs, where the task has a preference: `(n, 1)`, NaN for rows of NaN."""
    known = controls.isfinite().all(-1)
    found = task.compute_costs(controls[known])
    if found is None:
        return []
    costs = torch.full((len(controls), 1), torch.nan, dtype=torch.float64)
    costs[known, 0] = found
    return [costs]


def write_r_t(path: Path, curves: Mapping[str, Tensor]) -> None:
    """Write the metric r_T of every route, `(n_candidates, 4)` each; a cell is empty where it is infinite."""
    rows = [
        (route, count, *("" if math.isinf(value) else value for value in row))
        for route, curve in curves.items()
        for count, row in enumerate(curve.tolist(), 1)
    ]
    write_table(path, R_T_COLUMNS, rows)


def read_answers(path: Path) -> list[AnswerRow]:
    """The rows of answers.csv, without what was computed beside the miss.

    Raises:
        UserError: as for every table, the file is missing or damaged.
    """
    return [
        AnswerRow(
            row["route"],
            int(row["target"]),
            int(row["line"]) if row["line"] else None,
            row["status"],
            _number(row["miss"]),
            row["problem"],
        )
        for row in _rows(path, _ANSWER_COLUMNS)
    ]


def read_by_route(path: Path, columns: Sequence[str]) -> dict[str, Array]:
    """Numbers by route, `(n_rows, n_columns - 1)`, NaN where a cell is empty; `columns` are those of the table."""
    found: dict[str, list[list[float]]] = {}
    for row in _rows(path, columns):
        found.setdefault(row[columns[0]], []).append([_number(row[column]) for column in columns[1:]])
    return {route: np.array(rows) for route, rows in found.items()}


def read_columns(path: Path) -> dict[str, Array]:
    """A table of numbers alone, by column; NaN where a cell is empty."""
    rows = _rows(path, ())
    return {name: np.array([_number(row[name]) for row in rows]) for name in rows[0]} if rows else {}


def _rows(path: Path, columns: Sequence[str]) -> list[Mapping[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, restkey="")
            if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
                raise ValueError(f"there is no column {missing[0]!r}")
            rows: list[Mapping[str, str]] = list(reader)
        for row in rows:
            if None in row.values() or "" in row:
                raise ValueError("a row has another number of cells than the header")
            for column in columns:
                if column not in ("route", "line", "status", "problem"):
                    _number(row[column])
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `dvc repro` to make it anew") from error
    return rows


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan
