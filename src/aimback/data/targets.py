"""The wanted outcomes: drawn inside the reachable set, or read from a user's file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aimback.core.errors import UserError
from aimback.core.ledger import Ledger
from aimback.data.archive import DamagedFileError, Stored, read_arrays, write_arrays
from aimback.data.dataset import simulate
from aimback.data.sheet import pick_numbers, read_sheet
from aimback.tasks.base import Task

_DRAWS = 10


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
    """Read a user's targets: a table, CSV or Parquet, whose header names the outcomes and the conditions.

    A column is headed by its name, or by its name and unit, "distance [m]". A row that cannot be solved for is kept
    and marked, see `pick_numbers`.

    Raises:
        UserError: the file cannot be read, its header does not fit, or no row is valid.
    """
    sheet = read_sheet(path, "target")
    axes = (*task.outcomes.axes, *task.conditions.axes)
    values, problems = pick_numbers(sheet, axes, task.conditions.axes, "target", spare=False)
    table = torch.tensor(values, dtype=torch.float64)
    split, lines = len(task.outcomes), torch.arange(len(values)) + sheet.first
    return Targets(table[:, :split].clone(), table[:, split:].clone(), lines, tuple(problems))


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
