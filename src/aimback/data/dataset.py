"""The simulated examples a surrogate learns from: draw, simulate, split, save, load."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aimback.core.errors import UserError, is_out_of_memory
from aimback.core.problem import ForwardMap
from aimback.data.archive import DamagedFileError, Stored, read_arrays, write_arrays
from aimback.tasks.base import Task

LEAST_EXAMPLES = 10
# Small enough that a full reduction inside a simulator does not depend on the number of threads.
CHUNK = 32768


@dataclass(frozen=True)
class Dataset:
    """Simulated examples, float64 on the CPU, in random order.

    Attributes:
        controls: `(N, n_controls)`.
        conditions: `(N, n_conditions)`.
        outcomes: `(N, n_outcomes)`, finite.
        n_validation: the last this many rows are for validation, never for training.
        n_left_out: examples asked for whose outcome was not finite; they are not among the rows.
    """

    controls: Tensor
    conditions: Tensor
    outcomes: Tensor
    n_validation: int
    n_left_out: int = 0

    def __len__(self) -> int:
        return len(self.outcomes)

    @property
    def n_training(self) -> int:
        return len(self) - self.n_validation

    def first(self, examples: int) -> "Dataset":
        """The same with only the first so many training rows; every validation row stays."""
        left = self.n_training - examples
        controls, conditions, outcomes = (
            torch.cat([part[:examples], part[self.n_training :]])
            for part in (self.controls, self.conditions, self.outcomes)
        )
        return Dataset(controls, conditions, outcomes, self.n_validation, self.n_left_out + left)

    def add(self, controls: Tensor, conditions: Tensor, outcomes: Tensor) -> "Dataset":
        """The same with further training rows, `(n, ...)` each; those without a finite outcome are left out."""
        finite, own = torch.isfinite(outcomes).all(-1), (self.controls, self.conditions, self.outcomes)
        controls, conditions, outcomes = (
            torch.cat([old[: self.n_training], new[finite], old[self.n_training :]])
            for old, new in zip(own, (controls, conditions, outcomes), strict=True)
        )
        return Dataset(controls, conditions, outcomes, self.n_validation, self.n_left_out + int((~finite).sum()))


def simulate(
    task: ForwardMap,
    controls: Tensor,
    conditions: Tensor,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    chunk: int = CHUNK,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Outcomes of many controls, chunk by chunk, `(N, n_outcomes)`, float64 on the CPU.

    Args:
        device, dtype: what the simulator computes on and in.
        chunk: rows simulated at once; halved wherever the device has not the memory for them.
        progress: called after every chunk with the number of rows just simulated.
    """
    outcomes: list[Tensor] = []
    first = 0
    chunk = min(chunk, getattr(task, "rows_at_once", None) or chunk)
    with torch.no_grad():
        while first < len(controls) or not outcomes:
            some, given = (part[first : first + chunk].to(device, dtype) for part in (controls, conditions))
            try:
                outcome = task(some, given).to("cpu", torch.float64)
            except RuntimeError as error:
                chunk = len(some) // 2
                if chunk == 0 or not is_out_of_memory(error):
                    raise
                continue  # a row alone is the same as in company
            outcomes.append(outcome)
            first += len(some)
            if progress is not None:
                progress(len(some))
    return torch.cat(outcomes)


def simulate_dataset(
    task: Task,
    examples: int,
    validation_fraction: float,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    chunk: int = CHUNK,
    progress: Callable[[int], None] | None = None,
) -> Dataset:
    """Draw controls and conditions, simulate them, and set some apart for validation.

    Args:
        examples: how many to simulate, at least `LEAST_EXAMPLES`.
        validation_fraction: share set apart, in (0, 1); at least one example on either side.
        generator: a CPU generator; the examples are a function of it alone.

    Raises:
        UserError: too few examples asked for, or too few with a finite outcome.
    """
    if examples < LEAST_EXAMPLES:
        raise UserError(f"data.examples must be at least {LEAST_EXAMPLES}, got {examples}")
    if not 0 < validation_fraction < 1:
        raise UserError(f"data.validation_fraction must lie between 0 and 1, got {validation_fraction:g}")
    controls = task.draw_controls(examples, generator)
    conditions = task.conditions.sample(examples, generator)
    with task.watch_failures():
        outcomes = simulate(task, controls, conditions, device, dtype, chunk, progress)

    finite = torch.isfinite(outcomes).all(-1)
    kept = int(finite.sum())
    if kept < LEAST_EXAMPLES:
        raise UserError(
            f"only {kept} of {examples} simulated examples have a finite outcome, at least {LEAST_EXAMPLES} are "
            "needed; narrow the task's box or raise data.examples"
        )
    return split_examples(
        controls[finite], conditions[finite], outcomes[finite], validation_fraction, generator, examples - kept
    )


def split_examples(
    controls: Tensor,
    conditions: Tensor,
    outcomes: Tensor,
    validation_fraction: float,
    generator: torch.Generator,
    n_left_out: int,
) -> Dataset:
    """Examples in random order, `(N, ...)` each, some set apart for validation, at least one on either side."""
    order = torch.randperm(len(outcomes), generator=generator)
    n_validation = min(max(round(validation_fraction * len(outcomes)), 1), len(outcomes) - 1)
    return Dataset(controls[order], conditions[order], outcomes[order], n_validation, n_left_out)


def save_dataset(path: Path, dataset: Dataset, task: Task) -> None:
    """Write `path` (.npz), whole or not at all; the same data set gives the same bytes."""
    arrays = {
        "controls": dataset.controls.numpy(),
        "conditions": dataset.conditions.numpy(),
        "outcomes": dataset.outcomes.numpy(),
        "counts": np.array([dataset.n_validation, dataset.n_left_out], dtype=np.int64),
    }
    write_arrays(path, arrays, task)


def dataset_size(task: Task, examples: int) -> int:
    """The bytes of the numbers in a file of so many examples."""
    return 8 * examples * (len(task.box) + len(task.conditions) + len(task.outcomes))


def load_dataset(path: Path, task: Task) -> Dataset:
    """Read a data set of this task.

    Raises:
        UserError: the file is missing, truncated, altered, or made for another task.
    """
    declared = {
        "controls": Stored("float64", ("rows", len(task.box)), finite=True),
        "conditions": Stored("float64", ("rows", len(task.conditions)), finite=True),
        "outcomes": Stored("float64", ("rows", len(task.outcomes)), finite=True),
        "counts": Stored("int64", (2,)),
    }
    arrays = read_arrays(path, declared, task)
    controls, conditions, outcomes = (torch.from_numpy(arrays[name]) for name in ("controls", "conditions", "outcomes"))
    n_validation, n_left_out = arrays["counts"].tolist()
    dataset = Dataset(controls, conditions, outcomes, n_validation, n_left_out)
    if not (0 < n_validation < len(dataset) and n_left_out >= 0):
        raise DamagedFileError(
            path, f"its counts are {n_validation} for validation and {n_left_out} left out of {len(dataset)}"
        )
    return dataset
