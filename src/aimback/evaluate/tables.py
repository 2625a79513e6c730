"""The tables of results, written and read in one place: answers.csv, distinct.csv, curves.csv, r_t.csv and
history.csv."""

import contextlib
import csv
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aimback.core.errors import UserError
from aimback.core.files import write_table, write_whole
from aimback.core.problem import Status
from aimback.data.targets import Targets
from aimback.evaluate.distinct import DistinctAnswers
from aimback.evaluate.judge import Answers
from aimback.tasks.base import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

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


class Table:
    """A table of results that grows block by block, see `open_table`."""

    def __init__(self, lines: IO[str], rest: IO[bytes]) -> None:
        self._lines, self._rest = csv.writer(lines, lineterminator="\n"), rest
        self._blocks: parquet.ParquetWriter | None = None

    def add(self, block: "pa.Table", *, shown: bool = True) -> None:
        """Write some rows, which have the same columns every time; `shown` tells whether they come into the CSV too."""
        from pyarrow import parquet

        if self._blocks is None:
            texts = [field.name for field in block.schema if field.type == "string"]
            kinds = {"compression": "zstd", "use_dictionary": texts, "write_page_checksum": True}
            self._blocks = parquet.ParquetWriter(self._rest, block.schema, **kinds)
            self._lines.writerow(block.column_names)
        self._blocks.write_table(block)
        if shown:  # Python writes a float with all the digits that it takes, and no more
            self._lines.writerows(zip(*(column.to_pylist() for column in block.columns), strict=True))

    def close(self) -> None:
        if self._blocks is not None:
            self._blocks.close()


@contextlib.contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Write a table as Parquet, and at `path`, beside it, the rows that are to be shown as CSV; with full precision,
    both whole or not at all."""
    with (
        write_whole(path) as shown,
        write_whole(path.with_suffix(".parquet")) as whole,
        shown.open("w", encoding="utf-8", newline="") as lines,
        whole.open("wb") as rest,
    ):
        table = Table(lines, rest)
        yield table
        table.close()


def list_answers(
    task: Task,
    targets: Targets,
    route: str,
    answers: Answers,
    further: Mapping[str, Tensor] | None = None,
    first: int = 0,
) -> "pa.Table":
    """A route's rows of answers.csv, one a target.

    Args:
        further: what else is told of each target, `(n_targets,)` by column.
        first: the number of the first target.
    """
    drawn = targets.lines == 0
    columns = {
        "route": [route] * len(targets),
        "target": torch.arange(first, first + len(targets)),
        "line": targets.lines,
        "status": [Status(status).name.lower() for status in answers.status.tolist()],
        **dict(zip(name_numbers(task), list_numbers(targets, answers).T, strict=True)),
        **_list_costs(task, answers.controls),
        **(further or {}),
        "problem": targets.problems,
    }
    return _make_block(columns, {"line": drawn})


def list_distinct(task: Task, route: str, answers: DistinctAnswers, first: int = 0) -> "pa.Table":
    """A route's rows of distinct.csv, one an answer.

    Where targets are measured, the standard deviations of the controls follow, and the names of those that the target
    leaves undetermined, see `Uncertainty`.
    """
    labels, found = [axis.label for axis in task.box.axes], answers.uncertainty
    columns: dict[str, Tensor | Sequence[str]] = {
        "route": [route] * len(answers),
        "target": answers.target + first,
        "number": answers.number,
        **dict(zip(labels, answers.controls.T, strict=True)),
        "miss": answers.miss,
        **_list_costs(task, answers.controls),
    }
    if found is not None:
        columns |= {f"sd_{label}": column for label, column in zip(labels, found.deviations.T, strict=True)}
        flags = found.undetermined.tolist()
        columns["undetermined"] = [" ".join(itertools.compress(task.box.names, row)) for row in flags]
    return _make_block(columns, {})


def _make_block(columns: Mapping[str, Tensor | Sequence[str]], empty: Mapping[str, Tensor]) -> "pa.Table":
    """Rows of a table, by column; cells are empty where they are NaN, or where that is told."""
    import pyarrow as pa  # takes a while to import

    def make(name: str, column: Tensor | Sequence[str]) -> pa.Array:
        if not isinstance(column, Tensor):
            return pa.array(column, pa.string())
        return pa.array(column.contiguous().numpy(), mask=empty.get(name, column.isnan()).numpy())

    return pa.table({name: make(name, column) for name, column in columns.items()})


def name_numbers(task: Task) -> list[str]:
    """What the columns of `list_numbers` are."""
    wanted = [f"wanted {axis.label}" for axis in task.outcomes.axes]
    others = [axis.label for axis in (*task.conditions.axes, *task.box.axes, *task.outcomes.axes)]
    return [*wanted, *others, "miss", "believed_miss"]


def list_numbers(targets: Targets, answers: Answers) -> Tensor:
    """What was wanted and what came of it, a row a target, `(n_targets, n_columns)`; NaN where there is nothing."""
    misses = torch.stack([answers.miss, answers.believed_miss], dim=1)
    return torch.cat([targets.targets, targets.conditions, answers.controls, answers.outcome, misses], dim=1)


def _list_costs(task: Task, controls: Tensor) -> dict[str, Tensor]:
    """The column of costs, where the task has a preference; NaN for rows of NaN."""
    known = controls.isfinite().all(-1)
    found = task.compute_costs(controls[known])
    if found is None:
        return {}
    costs = torch.full((len(controls),), torch.nan, dtype=torch.float64)
    costs[known] = found
    return {"cost": costs}


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
