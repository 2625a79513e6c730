"""The simulated examples a surrogate learns from: draw, simulate, split, save, load."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimback.core.errors import UserError, is_out_of_memory
from aimback.data.archive import DamagedFileError, Stored, holds, read_arrays, write_arrays
from aimback.tasks.base import Task

LEAST_EXAMPLES = 10
# Small enough that a full reduction inside a simulator does not depend on the number of threads.
CHUNK = 32768
_PARTS = ("controls", "conditions", "outcomes", "jacobians")


@dataclass(frozen=True)
class Dataset:
    """Simulated examples, float64 on the CPU, in random order.

    Attributes:
        controls: `(N, n_controls)`.
        conditions: `(N, n_conditions)`.
        outcomes: `(N, n_outcomes)`, finite.
        n_validation: the last this many rows are for validation, never for training.
        n_left_out: examples asked for whose outcome, or Jacobian, was not finite; they are not among the rows.
        jacobians: of the outcomes by the controls, `(N, n_outcomes, n_controls)`, finite; None where nothing learns
            from them.
    """

    controls: Tensor
    conditions: Tensor
    outcomes: Tensor
    n_validation: int
    n_left_out: int = 0
    jacobians: Tensor | None = None

    @classmethod
    def from_parts(cls, parts: Sequence[Tensor], n_validation: int, n_left_out: int = 0) -> "Dataset":
        """One of these `parts`."""
        controls, conditions, outcomes, *jacobians = parts
        return cls(controls, conditions, outcomes, n_validation, n_left_out, *jacobians)

    def __len__(self) -> int:
        return len(self.outcomes)

    @property
    def parts(self) -> list[Tensor]:
        """What belongs to an example, `(N, ...)` each: controls, conditions, outcome, and Jacobian if there is one."""
        parts = [self.controls, self.conditions, self.outcomes]
        return parts if self.jacobians is None else [*parts, self.jacobians]

    @property
    def n_training(self) -> int:
        return len(self) - self.n_validation

    def first(self, examples: int) -> "Dataset":
        """The same with only the first so many training rows; every validation row stays."""
        left = self.n_training - examples
        parts = [torch.cat([part[:examples], part[self.n_training :]]) for part in self.parts]
        return Dataset.from_parts(parts, self.n_validation, self.n_left_out + left)

    def add(self, *parts: Tensor) -> "Dataset":
        """The same with further training rows, whose `parts` these are; those that are not finite are left out."""
        finite, last = _find_finite(*parts), self.n_training
        both = zip(self.parts, parts, strict=True)
        joined = [torch.cat([old[:last], new[finite], old[last:]]) for old, new in both]
        return Dataset.from_parts(joined, self.n_validation, self.n_left_out + int((~finite).sum()))


def simulate(
    task: Any,
    controls: Tensor,
    conditions: Tensor,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    chunk: int = CHUNK,
    progress: Callable[[int], None] | None = None,
    *,
    jacobians: bool = False,
) -> list[Tensor]:
    """Outcomes of many controls, `(N, n_outcomes)`, and with `jacobians` these too, `(N, n_outcomes, n_controls)`.

    Chunk by chunk; float64 on the CPU.

    Args:
        task: a `ForwardMap`, or a `Linearised` one for Jacobians.
        device, dtype: what the simulator computes on and in.
        chunk: rows simulated at once; halved wherever the device has not the memory for them.
        progress: called after every chunk with the number of rows just simulated.
    """
    found: list[list[Tensor]] = []
    first = 0
    chunk = min(chunk, getattr(task, "rows_at_once", None) or chunk)
    with torch.no_grad():
        while first < len(controls) or not found:
            some, given = (part[first : first + chunk].to(device, dtype) for part in (controls, conditions))
            try:
                parts = task.linearise(some, given) if jacobians else [task(some, given)]
                found.append([part.to("cpu", torch.float64) for part in parts])
            except RuntimeError as error:
                chunk = len(some) // 2
                if chunk == 0 or not is_out_of_memory(error):
                    raise
                continue  # a row alone is the same as in company
            first += len(some)
            if progress is not None:
                progress(len(some))
    return [torch.cat(part) for part in zip(*found, strict=True)]


def _find_finite(*parts: Tensor) -> Tensor:
    """Which rows of some parts, `(N, ...)` each, hold nothing but finite numbers, `(N,)`."""
    return torch.stack([part.flatten(1).isfinite().all(1) for part in parts]).all(0)


def simulate_dataset(
    task: Task,
    examples: int,
    validation_fraction: float,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    chunk: int = CHUNK,
    progress: Callable[[int], None] | None = None,
    jacobians: bool = False,
) -> Dataset:
    """Draw controls and conditions, simulate them, and set some apart for validation.

    Args:
        examples: how many to simulate, at least `LEAST_EXAMPLES`.
        validation_fraction: share set apart, in (0, 1); at least one example on either side.
        generator: a CPU generator; the examples are a function of it alone.
        jacobians: whether the simulator is differentiated too.

    Raises:
        UserError: too few examples asked for, too few that are finite, or no derivatives where they are asked for.
    """
    if examples < LEAST_EXAMPLES:
        raise UserError(f"data.examples must be at least {LEAST_EXAMPLES}, got {examples}")
    if not 0 < validation_fraction < 1:
        raise UserError(f"data.validation_fraction must lie between 0 and 1, got {validation_fraction:g}")
    controls = task.draw_controls(examples, generator)
    conditions = task.conditions.sample(examples, generator)
    with task.watch_failures():
        found = simulate(task, controls, conditions, device, dtype, chunk, progress, jacobians=jacobians)

    finite = _find_finite(*found)
    kept = int(finite.sum())
    if kept < LEAST_EXAMPLES:
        what = "outcome and Jacobian" if jacobians else "outcome"
        raise UserError(
            f"only {kept} of {examples} simulated examples have a finite {what}, at least {LEAST_EXAMPLES} are "
            "needed; narrow the task's box or raise data.examples"
        )
    parts = [part[finite] for part in (controls, conditions, *found)]
    return split_examples(parts, validation_fraction, generator, examples - kept)


def split_examples(
    parts: Sequence[Tensor], validation_fraction: float, generator: torch.Generator, n_left_out: int
) -> Dataset:
    """Examples, see `Dataset.parts`, in random order, some set apart for validation, at least one on either side."""
    count = len(parts[0])
    order = torch.randperm(count, generator=generator)
    n_validation = min(max(round(validation_fraction * count), 1), count - 1)
    return Dataset.from_parts([part[order] for part in parts], n_validation, n_left_out)


def save_dataset(path: Path, dataset: Dataset, task: Task) -> None:
    """Write `path` (.npz), whole or not at all; the same data set gives the same bytes."""
    arrays = {
        **{name: part.numpy() for name, part in zip(_PARTS, dataset.parts, strict=False)},
        "counts": np.array([dataset.n_validation, dataset.n_left_out], dtype=np.int64),
    }
    write_arrays(path, arrays, task)


def dataset_size(task: Task, examples: int, *, jacobians: bool) -> int:
    """The bytes of the numbers in a file of so many examples."""
    by_outcome = 1 + jacobians * len(task.box)
    return 8 * examples * (len(task.box) + len(task.conditions) + by_outcome * len(task.outcomes))


def load_dataset(path: Path, task: Task, *, jacobians: bool = False) -> Dataset:
    """Read a data set of this task.

    Args:
        jacobians: whether they are read too.

    Raises:
        UserError: the file is missing, truncated, altered, made for another task, or without the Jacobians.
    """
    declared = {
        "controls": Stored("float64", ("rows", len(task.box)), finite=True),
        "conditions": Stored("float64", ("rows", len(task.conditions)), finite=True),
        "outcomes": Stored("float64", ("rows", len(task.outcomes)), finite=True),
        "counts": Stored("int64", (2,)),
    }
    if jacobians:
        if not holds(path, "jacobians"):
            raise UserError(f"{path}: has no Jacobians; simulate it anew, with training.jacobian_weight above 0")
        declared["jacobians"] = Stored("float64", ("rows", len(task.outcomes), len(task.box)), finite=True)
    arrays = read_arrays(path, declared, task)
    parts = [torch.from_numpy(arrays[name]) for name in _PARTS if name in arrays]
    n_validation, n_left_out = arrays["counts"].tolist()
    dataset = Dataset.from_parts(parts, n_validation, n_left_out)
    if not (0 < n_validation < len(dataset) and n_left_out >= 0):
        raise DamagedFileError(
            path, f"its counts are {n_validation} for validation and {n_left_out} left out of {len(dataset)}"
        )
    return dataset
