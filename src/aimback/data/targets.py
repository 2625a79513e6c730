"""The wanted outcomes: drawn inside the reachable set, or read from a user's file."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aimback.core.errors import UserError
from aimback.core.ledger import Ledger
from aimback.data.archive import DamagedFileError, Stored, read_arrays, write_parts
from aimback.data.dataset import simulate
from aimback.data.sheet import pick_numbers, read_sheet
from aimback.tasks.base import Task

_DRAWS = 10
# Targets that are in memory at once: a file has more of them in parts, and so have the files of their answers.
PART = 65_536


@dataclass(frozen=True)
class Targets:
    """What is wanted, row by row, with what is given; float64 on the CPU.

    Attributes:
        targets: wanted outcomes, `(T, n_outcomes)`; NaN in invalid rows.
        conditions: `(T, n_conditions)`; NaN in invalid rows.
        lines: `(T,)`, int64, the row's line in the file; 0 where the target was drawn.
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
        if len(self) < 2:
            return self, torch.arange(len(self))
        asked = torch.cat([self.targets, self.conditions], dim=1)
        if any(len(column.unique()) == len(self) for column in asked.T):  # usual, and known at once
            return self, torch.arange(len(self))
        _, group = torch.unique(asked, dim=0, return_inverse=True)
        rows = torch.arange(len(self))
        first = torch.full((int(group.max()) + 1,), len(self)).scatter_reduce(0, group, rows, "amin")
        order = first.argsort()
        return self.of(first[order]), order.argsort()[group]


def join(parts: Iterable[Targets]) -> Targets:
    """Targets one after the other."""
    targets, conditions, lines, problems = zip(
        *([getattr(part, field.name) for field in fields(Targets)] for part in parts), strict=True
    )
    return Targets(torch.cat(targets), torch.cat(conditions), torch.cat(lines), tuple(itertools.chain(*problems)))


def split(targets: Targets) -> Iterator[Targets]:
    """The same in parts of `PART`, or longer ones: each has a row that can be solved for."""
    valid, first = targets.valid.cumsum(0), 0
    for last in range(PART, len(targets), PART):
        before = valid[first - 1] if first else 0
        if before < valid[last - 1] < valid[-1]:
            yield targets.of(torch.arange(first, last))
            first = last
    yield targets.of(torch.arange(first, len(targets)))


def draw_targets(
    task: Task,
    count: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    ledger: Ledger | None = None,
) -> Targets:
    """Outcomes of random controls inside the box: reachable by construction. See `draw_parts`."""
    return join(draw_parts(task, count, generator, device, dtype, ledger))


def draw_parts(
    task: Task,
    count: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    ledger: Ledger | None = None,
) -> Iterator[Targets]:
    """What `draw_targets` draws, `PART` by `PART` and the rest: the same numbers, where the task draws one by one.

    Args:
        count: how many, at least 1.
        generator: a CPU generator; the targets are a function of it alone.
        ledger: where the simulations are counted that it takes; None counts them nowhere.

    Raises:
        UserError: count below 1, or the task hardly ever draws controls inside its box with a finite outcome.
    """
    if count < 1:
        raise UserError(f"data.targets must be at least 1, got {count}")
    sizes = [min(PART, count - first) for first in range(0, count, PART)]
    kept, missing = torch.empty(0, len(task.outcomes) + len(task.conditions), dtype=torch.float64), count
    for _ in range(_DRAWS):
        given_by = generator
        if len(sizes) > 1:  # all conditions are drawn after all controls
            given_by = generator.clone_state()
            for size in sizes:
                task.draw_controls(size, given_by)
        for size in sizes:
            controls = task.draw_controls(size, generator)
            given = task.conditions.sample(size, given_by)
            (outcomes,) = simulate(task, controls, given, device, dtype)
            if ledger is not None:
                ledger.simulations += size
            fit = torch.isfinite(outcomes).all(-1) & task.box.contains(controls)
            kept = torch.cat([kept, torch.cat([outcomes, given], dim=1)[fit]])
            while len(kept) >= (wanted := min(PART, missing)):
                part, kept = kept.tensor_split([wanted])
                targets, conditions = (one.clone() for one in part.tensor_split([len(task.outcomes)], dim=1))
                yield Targets(targets, conditions, torch.zeros(wanted, dtype=torch.int64), ("",) * wanted)
                missing -= wanted
                if missing == 0:
                    return
        generator.set_state(given_by.get_state())
    missing -= len(kept)
    raise UserError(
        f"only {count - missing} of {_DRAWS * count} draws lie in the task's box and have a finite outcome; change it"
    )


def read_targets(path: Path, task: Task) -> Targets:
    """Read a user's targets: a table, CSV or Parquet, whose header names the outcomes and the conditions.

    A column is headed by its name, or by its name and unit, "distance [m]". A row that cannot be solved for is kept
    and marked, see `pick_numbers`.

    Raises:
        UserError: the file cannot be read, its header does not fit, or no row is valid.
    """
    sheet = read_sheet(path, "target")
    axes = (*task.outcomes.axes, *task.conditions.axes)
    values, problems = pick_numbers(sheet, axes, task.conditions.axes, "target", spare=False)
    table = torch.from_numpy(values)
    outcomes, lines = len(task.outcomes), torch.arange(len(values)) + sheet.first
    return Targets(table[:, :outcomes].clone(), table[:, outcomes:].clone(), lines, tuple(problems))


def save_targets(path: Path, parts: Iterable[Targets], task: Task) -> None:
    """Write `path` (.npz), whole or not at all; the same targets give the same bytes."""
    arrays = (
        {
            "targets": targets.targets.numpy(),
            "conditions": targets.conditions.numpy(),
            "lines": targets.lines.numpy(),
            "problems": np.array(targets.problems),
        }
        for targets in parts
    )
    write_parts(path, arrays, task)


def load_targets(path: Path, task: Task, part: int = 0) -> Targets:
    """Read targets of this task: the first ones, or another part.

    Raises:
        UserError: the file is missing, truncated, altered, or made for another task.
    """
    declared = {
        "targets": Stored("float64", ("rows", len(task.outcomes))),
        "conditions": Stored("float64", ("rows", len(task.conditions))),
        "lines": Stored("int64", ("rows",)),
        "problems": Stored("str", ("rows",)),
    }
    arrays = read_arrays(path, declared, task, part)
    wanted, given, lines = (torch.from_numpy(arrays[name]) for name in ("targets", "conditions", "lines"))
    targets = Targets(wanted, given, lines, tuple(arrays["problems"].tolist()))
    finite = torch.cat([wanted, given], dim=1).isfinite().all(1)
    if not targets.valid.any() or not finite[targets.valid].all():
        raise DamagedFileError(path, "its valid rows are none, or not all finite")
    return targets
