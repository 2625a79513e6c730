"""What the field has published on the same tasks, as typed rows; the numbers lie in one CSV file with their source."""

import csv
from dataclasses import dataclass
from importlib.resources import files

from aimback.core.errors import UserError


@dataclass(frozen=True)
class PublishedRow:
    """One method on one task, as published.

    Attributes:
        task, method: names; the method's as in its paper.
        r_1, r_50: the metric r_T at T = 1 and T = 50, raw units squared; None for a method with one answer only.
        source: where the numbers stand, and how exactly they can be read there.
    """

    task: str
    method: str
    r_1: float
    r_50: float | None
    source: str


def read_published() -> tuple[PublishedRow, ...]:
    """The published rows that come with this package."""
    return parse_published(files(__package__).joinpath("published.csv").read_text(encoding="utf-8"))


def parse_published(text: str) -> tuple[PublishedRow, ...]:
    """Published rows from CSV text: columns task, method, r_1, r_50, source and others; an empty cell is None.

    Raises:
        UserError: a column is missing, a number is none or is not above 0.
    """
    rows = []
    for line, row in enumerate(csv.DictReader(text.splitlines()), start=2):
        try:
            r_1, r_50 = (float(row[name]) if row[name] else None for name in ("r_1", "r_50"))
            if r_1 is None or not row["source"] or not all(value is None or value > 0 for value in (r_1, r_50)):
                raise ValueError("r_1 above 0 and source are needed")
            rows.append(PublishedRow(row["task"], row["method"], r_1, r_50, row["source"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"published line {line}: needs names, numbers above 0 and a source, got {row}") from error
    return tuple(rows)
