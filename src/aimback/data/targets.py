"""The wanted outcomes: drawn inside the reachable set, or read from a user's CSV file."""

import codecs
import csv
import math
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aimback.core.box import Axis
from aimback.core.errors import UserError
from aimback.core.ledger import Ledger
from aimback.data.archive import DamagedFileError, Stored, read_arrays, write_arrays
from aimback.data.dataset import simulate
from aimback.tasks.base import Task

_DRAWS = 10
# What other programs write between columns, and what it is called.
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Targets:
    """What is wanted, row by row, with what is given; float64 on the CPU.

    Attributes:
        targets: wanted outcomes, `(T, n_outcomes)`; NaN in invalid rows.
        conditions: `(T, n_conditions)`; NaN in invalid rows.
        lines: `(T,)`, int64, the row's line in the CSV file; 0 where the target was drawn.
        problems: why a row is invalid, naming its line; "" where it is valid.
    """

    targets: Tensor
    conditions: Tensor
    lines: Tensor
    problems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def valid(self) -> Tensor:
        """Which rows can be solved for, `(T,)`."""
        return torch.tensor([not problem for problem in self.problems])

    def only_valid(self) -> "Targets":
        """The rows that can be solved for, in their order."""
        return self.of(self.valid.nonzero()[:, 0])

    def first(self, count: int) -> "Targets":
        """The first rows, or all where there are no more."""
        return self.of(torch.arange(min(count, len(self))))

    def of(self, rows: Tensor) -> "Targets":
        """Some of the rows, by number."""
        problems = tuple(self.problems[row] for row in rows.tolist())
        return Targets(self.targets[rows], self.conditions[rows], self.lines[rows], problems)

    def once(self) -> tuple["Targets", Tensor]:
        """The rows without those that ask again what an earlier one asks, and for each row its place among them."""
        asked = torch.cat([self.targets, self.conditions], dim=1)
        _, group = torch.unique(asked, dim=0, return_inverse=True)
        rows = torch.arange(len(self))
        first = torch.full((int(group.max()) + 1,), len(self)).scatter_reduce(0, group, rows, "amin")
        order = first.argsort()
        return self.of(first[order]), order.argsort()[group]


def draw_targets(
    task: Task,
    count: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    ledger: Ledger | None = None,
) -> Targets:
    """Outcomes of random controls inside the box: reachable by construction.

    Args:
        count: how many, at least 1.
        generator: a CPU generator; the targets are a function of it alone.
        ledger: where the simulations are counted that it takes; None counts them nowhere.

    Raises:
        UserError: count below 1, or the task hardly ever draws controls inside its box with a finite outcome.
    """
    if count < 1:
        raise UserError(f"data.targets must be at least 1, got {count}")
    targets, conditions = [], []
    missing = count
    for _ in range(_DRAWS):
        controls = task.draw_controls(count, generator)
        given = task.conditions.sample(count, generator)
        outcomes = simulate(task, controls, given, device, dtype)
        if ledger is not None:
            ledger.simulations += count
        fit = torch.isfinite(outcomes).all(-1) & task.box.contains(controls)
        targets.append(outcomes[fit][:missing])
        conditions.append(given[fit][:missing])
        missing -= len(targets[-1])
        if missing == 0:
            lines = torch.zeros(count, dtype=torch.int64)
            return Targets(torch.cat(targets), torch.cat(conditions), lines, ("",) * count)
    raise UserError(
        f"only {count - missing} of {_DRAWS * count} draws lie in the task's box and have a finite outcome; change it"
    )


def read_targets(path: Path, task: Task) -> Targets:
    """Read a user's targets: a CSV file whose header names the outcomes and the conditions.

    A column is headed by its name, or by its name and unit, "distance [m]". Columns may stand in
    any order. Every line below the header is a row; a row that cannot be solved for (a cell that is
    empty or no finite number, too few or too many cells, a quote that is not closed, bytes that are no
    text, a condition outside the range the task was made for) is kept and marked.

    Raises:
        UserError: the file cannot be read, its header does not fit, or no row is valid.
    """
    lines = _read_lines(path)
    axes = (*task.outcomes.axes, *task.conditions.axes)
    allowed = "allowed is " + ",".join(axis.label for axis in axes)
    if not lines:
        raise UserError(f"{path}: the file is empty; its first line must name the columns, {allowed}")
    columns = _find_columns(path, lines[0], axes, allowed)
    if len(lines) == 1:
        raise UserError(f"{path}: there is a header and no target below it")

    bounded = [axis if axis in task.conditions.axes else None for axis in axes]
    order = list(zip([columns.index(axis.name) for axis in axes], axes, bounded, strict=True))
    values, problems = [], []
    for number, line in enumerate(lines[1:], 2):
        try:
            values.append(_read_numbers(_read_cells(line), order))
            problems.append("")
        except UserError as error:
            values.append([math.nan] * len(order))
            problems.append(f"line {number}: {error}")
    if all(problems):
        raise UserError(f"{path}: no row is valid; {problems[0]}")
    table = torch.tensor(values, dtype=torch.float64)
    split = len(task.outcomes)
    return Targets(table[:, :split].clone(), table[:, split:].clone(), torch.arange(2, len(lines) + 1), tuple(problems))


def save_targets(path: Path, targets: Targets, task: Task) -> None:
    """Write `path` (.npz), whole or not at all; the same targets give the same bytes."""
    arrays = {
        "targets": targets.targets.numpy(),
        "conditions": targets.conditions.numpy(),
        "lines": targets.lines.numpy(),
        "problems": np.array(targets.problems),
    }
    write_arrays(path, arrays, task)


def load_targets(path: Path, task: Task) -> Targets:
    """Read targets of this task.

    Raises:
        UserError: the file is missing, truncated, altered, or made for another task.
    """
    declared = {
        "targets": Stored("float64", ("rows", len(task.outcomes))),
        "conditions": Stored("float64", ("rows", len(task.conditions))),
        "lines": Stored("int64", ("rows",)),
        "problems": Stored("str", ("rows",)),
    }
    arrays = read_arrays(path, declared, task)
    wanted, given, lines = (torch.from_numpy(arrays[name]) for name in ("targets", "conditions", "lines"))
    targets = Targets(wanted, given, lines, tuple(arrays["problems"].tolist()))
    finite = torch.cat([wanted, given], dim=1).isfinite().all(1)
    if not targets.valid.any() or not finite[targets.valid].all():
        raise DamagedFileError(path, "its valid rows are none, or not all finite")
    return targets


def _read_lines(path: Path) -> list[bytes]:
    """The lines of a file, without empty ones at its end.

    They are told apart as bytes, and no cell goes on in the next line, so that nothing in one row can spoil another.
    """
    try:
        lines = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such targets file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    while lines and re.fullmatch(rb'(?:[\s,]|"")*', lines[-1]):
        lines.pop()
    return lines


def _read_cells(line: bytes) -> list[str]:
    """The cells of a line.

    Raises:
        UserError: it cannot be split into cells.
    """
    try:
        (cells,) = csv.reader([line.decode("utf-8")], strict=True)
    except UnicodeDecodeError as error:
        raise UserError(f"is not text in UTF-8 (its byte {error.start + 1} is {line[error.start]:#04x})") from None
    except csv.Error as error:
        reason = "a quote is not closed" if str(error) == "unexpected end of data" else str(error)
        raise UserError(f"is not a row of a CSV file ({reason})") from None
    return cells


def _find_columns(path: Path, header: bytes, axes: Sequence[Axis], allowed: str) -> list[str]:
    """The names in the header, once it is known to be complete."""
    units = {axis.name: axis.unit for axis in axes}
    try:
        cells = _read_cells(header)
    except UserError as error:
        raise UserError(f"{path}: its first line {error}; it must name the columns, {allowed}, in UTF-8") from None
    names = []
    for cell in cells:
        name, unit = re.fullmatch(r"(.*?)(?:\[(.*)\])?", cell.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
        name, unit = name.strip(), unit and unit.strip()
        fits = name in units and unit in (None, units[name])
        if not fits and (separator := _find_separator(cell)):
            raise UserError(f"{path}: its columns are separated by {separator}; separate them by commas, {allowed}")
        if "\0" in name:
            raise UserError(f"{path}: its first line is not text in UTF-8; save the file as CSV in UTF-8")
        if name not in units:
            raise UserError(f"{path}: unknown column {reprlib.repr(name)}; {allowed}, separated by commas")
        if name in names:
            raise UserError(f"{path}: column '{name}' is there twice; {allowed}")
        if not fits:
            found = reprlib.repr(unit)[1:-1]
            raise UserError(f"{path}: column '{name}' is in [{found}], the task has it in [{units[name]}]")
        names.append(name)
    missing = [name for name in units if name not in names]
    if missing:
        raise UserError(f"{path}: column '{missing[0]}' is missing; {allowed}")
    return names


def _find_separator(text: str) -> str | None:
    """What seems to separate columns instead of commas, in words."""
    return next((name for mark, name in _SEPARATORS.items() if mark in text), None)


def _read_numbers(cells: Sequence[str], order: Sequence[tuple[int, Axis, Axis | None]]) -> list[float]:
    """The row's numbers in the task's order.

    Raises:
        UserError: it cannot be solved for.
    """
    if len(cells) != len(order):
        separator = next(filter(None, map(_find_separator, cells)), None)
        guess = f"separated by {separator}" if separator else "a decimal comma" if len(cells) > len(order) else None
        found = f"{len(cells)} cell{'' if len(cells) == 1 else 's'}, the header has {len(order)}"
        raise UserError(found + (f" ({guess}?)" if guess else ""))
    numbers = []
    for column, axis, bounds in order:
        cell = cells[column].strip()
        try:
            # Python's own float() also reads 1_000, which no other program writes or means.
            number = math.nan if "_" in cell else float(cell)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{axis.name} is {f'{reprlib.repr(cell)}, not a finite number' if cell else 'empty'}")
        if bounds is not None and not bounds.lower <= number <= bounds.upper:
            lower, upper = bounds.lower, bounds.upper
            raise UserError(f"{axis.name} {number:g} is outside the range the task was made for [{lower:g}, {upper:g}]")
        numbers.append(number)
    return numbers
