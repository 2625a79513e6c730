"""A user's table, CSV or Parquet, whose header may tell units, read so that a bad row costs itself alone.

PyTorch is not imported: `aimback init` reads the header of a table only.
"""

import codecs
import csv
import math
import re
import reprlib
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aimback.core.errors import UserError

if TYPE_CHECKING:
    from aimback.core.box import Axis

# What other programs write between columns, and what it is called.
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Sheet:
    """A table as text.

    Attributes:
        path: where it was read.
        header: the cells of its first line; the error where it cannot be split; None of an empty file.
        rows: likewise each row below, read once and one at a time, since there may be millions.
        place: what a row is called before its number.
        first: the number of the first row.
    """

    path: Path
    header: Sequence[str] | UserError | None
    rows: Iterator[Sequence[str] | UserError]
    place: str
    first: int

    def name_row(self, index: int) -> str:
        """ "line 7"."""
        return f"{self.place} {self.first + index}"


def read_sheet(path: Path, what: str) -> Sheet:
    """Read a table whose first line names the columns.

    Args:
        what: the rows are, for messages.

    Raises:
        UserError: the file cannot be read.
    """
    path = Path(path)
    read = _read_parquet if path.suffix.lower() in _PARQUET else _read_csv
    try:
        return read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such {what}s file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _read_csv(path: Path) -> Sheet:
    rows = map(_split, _read_lines(path))
    return Sheet(path, next(rows, None), rows, "line", 2)


def _read_lines(path: Path) -> Iterator[bytes]:
    """The lines but for empty ones at the end.

    They are told apart as bytes, and no cell goes on in the next line, so that nothing in one row can spoil another.
    """
    start, empty = codecs.BOM_UTF8, []
    with path.open(encoding="latin-1") as file:  # in which every byte is a character
        for text in file:
            line, start = text.rstrip("\n").encode("latin-1").removeprefix(start), b""
            empty.append(line)
            if not re.fullmatch(rb'(?:[\s,]|"")*', line):
                yield from empty
                empty.clear()


def _read_parquet(path: Path) -> Sheet:
    try:
        import pandas as pd

        frame = pd.read_parquet(path)
    except ImportError as error:
        raise UserError(f"{path}: Parquet needs pandas and pyarrow; install them, or save it as CSV") from error
    # Text, as a CSV file has it: both are then held to the same rules, and repr keeps every bit of a float.
    rows = (
        ["" if missing else str(value) for value, missing in zip(row, gaps, strict=True)]
        for row, gaps in zip(frame.itertuples(False, None), frame.isna().itertuples(False, None), strict=True)
    )
    return Sheet(path, [str(name) for name in frame.columns], rows, "row", 1)


def _split(line: bytes) -> list[str] | UserError:
    """The cells of a line, or why it cannot be split into cells."""
    try:
        (cells,) = csv.reader([line.decode("utf-8")], strict=True)
    except UnicodeDecodeError as error:
        return UserError(f"is not text in UTF-8 (its byte {error.start + 1} is {line[error.start]:#04x})")
    except csv.Error as error:
        reason = "a quote is not closed" if str(error) == "unexpected end of data" else str(error)
        return UserError(f"is not a row of a CSV file ({reason})")
    return cells


def split_label(cell: str) -> tuple[str, str | None]:
    """The name and the unit that head a column, "distance [m]"; None where no unit is told."""
    name, unit = re.fullmatch(r"(.*?)(?:\[(.*)\])?", cell.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
    return name.strip(), unit and unit.strip()


def pick_numbers(
    sheet: Sheet, axes: Sequence["Axis"], bounded: Collection["Axis"], what: str, *, spare: bool
) -> tuple[NDArray[np.float64], list[str]]:
    """The columns of some axes as numbers, in the order of the axes.

    Columns may stand in any order. A row that cannot be used (a cell that is empty or no finite number, too few or too
    many cells, a quote that is not closed, bytes that are no text, a number outside the range of a bounded axis) is
    kept and marked.

    Args:
        bounded: those of the axes whose numbers must lie in their range.
        what: a row is, for messages.
        spare: whether there may be further columns.

    Returns:
        A number an axis for each row, `(n_rows, n_axes)`, NaN in bad ones; and for each row what is wrong, naming its
        line, or "".

    Raises:
        UserError: the header does not fit, or no row is valid.
    """
    path, allowed = sheet.path, "allowed is " + ",".join(axis.label for axis in axes)
    if spare:
        allowed = allowed.replace("allowed is", "needed is")
    if sheet.header is None:
        raise UserError(f"{path}: the file is empty; its first line must name the columns, {allowed}")
    if isinstance(sheet.header, UserError):
        raise UserError(f"{path}: its first line {sheet.header}; it must name the columns, {allowed}, in UTF-8")
    columns = _find_columns(path, sheet.header, axes, allowed, spare)
    order = [(columns.index(axis.name), axis, axis if axis in bounded else None) for axis in axes]
    values, problems = array("d"), []
    for index, cells in enumerate(sheet.rows):
        try:
            if isinstance(cells, UserError):
                raise cells
            values.extend(_read_numbers(cells, len(columns), order))
            problems.append("")
        except UserError as error:
            values.extend([math.nan] * len(order))
            problems.append(f"{sheet.name_row(index)}: {error}")
    if not problems:
        raise UserError(f"{path}: there is a header and no {what} below it")
    if all(problems):
        raise UserError(f"{path}: no row is valid; {problems[0]}")
    return np.frombuffer(values).reshape(-1, len(order)), problems


def _find_columns(
    path: Path, header: Sequence[str], axes: Sequence["Axis"], allowed: str, spare: bool
) -> list[str | None]:
    """The names in the header, once it is known to be complete; None for a column that is not asked for."""
    units = {axis.name: axis.unit for axis in axes}
    names: list[str | None] = []
    for cell in header:
        name, unit = split_label(cell)
        fits = name in units and unit in (None, units[name])
        if not fits and (separator := find_separator(cell)):
            raise UserError(f"{path}: its columns are separated by {separator}; separate them by commas, {allowed}")
        if "\0" in name:
            raise UserError(f"{path}: its first line is not text in UTF-8; save the file as CSV in UTF-8")
        if name not in units and spare:
            names.append(None)
            continue
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


def find_separator(text: str) -> str | None:
    """What seems to separate columns instead of commas, in words."""
    return next((name for mark, name in _SEPARATORS.items() if mark in text), None)


def read_number(cell: str) -> float:
    """The number in a cell; NaN where there is no finite one."""
    try:
        # Python's own float() also reads 1_000, which no other program writes or means.
        number = math.nan if "_" in cell else float(cell)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _read_numbers(cells: Sequence[str], width: int, order: Sequence[tuple[int, "Axis", "Axis | None"]]) -> list[float]:
    """A row's numbers.

    Raises:
        UserError: it cannot be used.
    """
    if len(cells) != width:
        separator = next(filter(None, map(find_separator, cells)), None)
        guess = f"separated by {separator}" if separator else "a decimal comma" if len(cells) > width else None
        found = f"{len(cells)} cell{'' if len(cells) == 1 else 's'}, the header has {width}"
        raise UserError(found + (f" ({guess}?)" if guess else ""))
    numbers = []
    for column, axis, bounds in order:
        cell = cells[column].strip()
        number = read_number(cell)
        if math.isnan(number):
            raise UserError(f"{axis.name} is {f'{reprlib.repr(cell)}, not a finite number' if cell else 'empty'}")
        if bounds is not None and not bounds.lower <= number <= bounds.upper:
            lower, upper = bounds.lower, bounds.upper
            raise UserError(f"{axis.name} {number:g} is outside the range the task was made for [{lower:g}, {upper:g}]")
        numbers.append(number)
    return numbers
