"""Measurements in the place of simulations: a user's table, checked, as a data set and as targets."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.errors import UserError
from aimback.data.dataset import LEAST_EXAMPLES, Dataset, split_examples
from aimback.data.sheet import pick_numbers, read_sheet
from aimback.data.targets import Targets
from aimback.runtime.project import locate_untracked
from aimback.tasks.measured import MeasuredTask


@dataclass(frozen=True)
class Measurements:
    """The rows of a table that can be learned from, in its order; float64 on the CPU.

    Attributes:
        controls: `(N, n_controls)`, inside the box.
        conditions: `(N, n_conditions)`, inside their ranges.
        outcomes: `(N, n_outcomes)`, finite.
        problems: why a row is not among them, naming its line.
        notes: what else is to be known of them, a sentence each.
    """

    controls: Tensor
    conditions: Tensor
    outcomes: Tensor
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.outcomes)

    @property
    def ranges(self) -> Tensor:
        """The least and the greatest of each outcome, `(2, n_outcomes)`."""
        return torch.stack([self.outcomes.amin(0), self.outcomes.amax(0)])

    def make_dataset(self, validation_fraction: float, generator: torch.Generator) -> Dataset:
        """All of them in random order, as `simulate_dataset` splits its examples."""
        parts = self.controls, self.conditions, self.outcomes
        return split_examples(parts, validation_fraction, generator, len(self.problems))

    def draw_targets(self, count: int, generator: torch.Generator) -> Targets:
        """Outcomes that were measured, with the conditions under which they were: `count` rows, or all of them.

        So each of them is in reach, but for what the measurement itself errs by; and the network has seen most of them.
        """
        rows = torch.randperm(len(self), generator=generator)[:count]
        lines = torch.zeros(len(rows), dtype=torch.int64)
        return Targets(self.outcomes[rows], self.conditions[rows], lines, ("",) * len(rows))


def read_measurements(task: MeasuredTask) -> Measurements:
    """Read the table of a task, CSV or Parquet; columns beside those that the task names are left alone.

    A row with a cell that is no finite number, or outside the range of a control or condition, is left out.

    Raises:
        UserError: the file cannot be read, its header does not fit, or too few of its rows can be used.
    """
    sheet = read_sheet(locate_untracked(task.data), "measurement")
    inputs = (*task.box.axes, *task.conditions.axes)
    values, problems = pick_numbers(sheet, (*inputs, *task.outcomes.axes), inputs, "measurement", spare=True)
    table = torch.from_numpy(values)[torch.tensor([not problem for problem in problems])]
    left_out = tuple(problem for problem in problems if problem)
    given = table[:, : len(inputs)]
    places = Counter(map(tuple, given.tolist()))
    if len(places) < LEAST_EXAMPLES:
        why = f"; {len(left_out)} are left out, {left_out[0]}" if left_out else ""
        raise UserError(
            f"{task.data}: has {len(places)} different rows to learn from, at least {LEAST_EXAMPLES} are needed{why}"
        )
    again = len(table) - len(places)
    notes = [f"{again} of its rows repeat the controls and conditions of others"] if again else []
    for axis, column in zip((*inputs, *task.outcomes.axes), table.T, strict=True):
        if bool((column == column[0]).all()):
            notes.append(f"{axis.name} is {float(column[0]):g} in all of its rows, so nothing is learned of it")
    controls, conditions, outcomes = table.split([len(task.box), len(task.conditions), len(task.outcomes)], dim=1)
    return Measurements(controls.clone(), conditions.clone(), outcomes.clone(), left_out, tuple(notes))
