"""A compiled solve: what it reads, and where it puts what it finds."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from aimback.solve.point import compute_miss
from aimback.solve.step import Finish


@dataclass(frozen=True)
class Buffers:
    """Where a program reads and writes: tensors of one dtype, contiguous and on its device. A row is a start.

    Nothing else of a row is in memory: what moves is in registers from its first step to its last.

    Attributes:
        targets: `(n_targets, n_outcomes)`; conditions: `(n_targets, n_conditions)`.
        starts: `(n_targets, n_starts, n_controls)` in the unit cube.
        best, miss, reached, steps, status: one entry a row, see `Finish`; filled in.
        path: controls and residual of the first rows at every step, `(max_steps + 1, n_kept, n_controls + n_outcomes)`,
            and the Jacobian where the last dimension has room for it; filled in for as long as each row moves.
        tally: two whole numbers, zeros to begin with: how many rows threads have taken, and the evaluations they made.
    """

    targets: Tensor
    conditions: Tensor
    starts: Tensor
    best: Tensor
    miss: Tensor
    reached: Tensor
    steps: Tensor
    status: Tensor
    path: Tensor
    tally: Tensor

    @classmethod
    def allocate(
        cls, targets: Tensor, conditions: Tensor, starts: Tensor, max_steps: int, kept: int, *, jacobians: bool = False
    ) -> "Buffers":
        """Make room for what becomes of these starts, and for the paths of `kept` targets."""
        rows, controls, outcomes = starts.shape[:2].numel(), starts.shape[2], targets.shape[1]
        place = controls + outcomes + (outcomes * controls if jacobians else 0)
        return cls(
            targets.contiguous(),
            conditions.contiguous(),
            starts.to(targets).contiguous(),
            best=targets.new_empty(rows, controls),
            miss=targets.new_empty(rows),
            reached=targets.new_empty(rows, dtype=torch.int32),
            steps=targets.new_empty(rows, dtype=torch.int32),
            status=targets.new_empty(rows, dtype=torch.int8),
            path=targets.new_empty(max_steps + 1, kept * starts.shape[1], place),
            tally=targets.new_zeros(2, dtype=torch.int64),
        )

    def of(self, first: int, last: int) -> "Buffers":
        """The part for some of the targets, with a tally of its own; paths are those of the very first ones."""
        each = self.starts.shape[1]
        rows = slice(first * each, last * each)
        return replace(
            self,
            targets=self.targets[first:last],
            conditions=self.conditions[first:last],
            starts=self.starts[first:last],
            best=self.best[rows],
            miss=self.miss[rows],
            reached=self.reached[rows],
            steps=self.steps[rows],
            status=self.status[rows],
            path=self.path if first == 0 else self.path[:, :0],
            tally=torch.zeros_like(self.tally),
        )

    def list_arguments(self) -> list[int]:
        """What a program is called with: where each of these lies, in their order; how many rows there are, rows a
        target and rows whose paths are kept, with so many numbers a place; and the most steps."""
        pointers = [getattr(self, field.name).data_ptr() for field in fields(self)]
        looks, kept, place = self.path.shape
        return [*pointers, len(self.steps), self.starts.shape[1], kept, place, looks - 1]

    def read(self) -> Finish:
        """What a program has found."""
        device, controls, kept = self.steps.device, self.starts.shape[2], self.path.shape[1]
        # A row that has stopped stays where it was.
        looks = torch.arange(int(self.steps.max()) + 1 if kept else 1, device=device)
        then = looks[:, None].minimum(self.steps[:kept].long())
        path, residuals = self.path[then, torch.arange(kept, device=device)].tensor_split([controls], dim=-1)
        return Finish(self.best, self.miss, self.reached, self.steps, self.status, path, compute_miss(residuals))


# Binds a program to its buffers, once; then each call takes all of their rows from their starts to their ends.
Program = Callable[[Buffers], Callable[[], None]]
