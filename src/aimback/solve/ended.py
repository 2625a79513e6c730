"""Where starts have come to when all of them have stopped."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.problem import History, InverseProblem, Solution, StartStatus
from aimback.solve.step import Front


@dataclass(frozen=True)
class Ended:
    """Rows that have stopped; see `Front` for the first four.

    Attributes:
        best: `(rows, n_controls)`; miss, merit, reached: `(rows,)`.
        steps: that each row took, `(rows,)`.
        why: it stopped, codes of `StartStatus`, `(rows,)`.
        path: of the first rows, where they were after each step, `(n_steps + 1, n_kept, n_controls)`; misses: the
            relative ones there, `(n_steps + 1, n_kept)`. A row that has stopped stays where it was.
    """

    best: Tensor
    miss: Tensor
    merit: Tensor
    reached: Tensor
    steps: Tensor
    why: Tensor
    path: Tensor
    misses: Tensor

    def solution(self, problem: InverseProblem, starts: int) -> Solution:
        """The answer to the problem, of so many rows a target."""
        shape = len(self.steps) // starts, starts
        # However it stopped, a start that once came within the tolerance has arrived.
        status = torch.where(self.merit <= problem.tolerance / problem.scale, StartStatus.ARRIVED, self.why)
        box, scale = problem.box, problem.scale
        return Solution(
            controls=box.from_unit(self.best).unflatten(0, shape),
            believed_miss=(self.miss * scale).unflatten(0, shape),
            start_status=status.to(torch.int8).unflatten(0, shape),
            steps=self.steps.unflatten(0, shape),
            steps_to_tolerance=self.reached.unflatten(0, shape),
            history=History(
                box.from_unit(self.path).unflatten(1, (-1, starts)), (self.misses * scale).unflatten(1, (-1, starts))
            ),
        )


def targets_arrived(reached: Tensor, starts: int) -> int:
    """How many targets have a start that has come within the tolerance."""
    return int((reached >= 0).unflatten(0, (-1, starts)).any(-1).sum())


# (rows before their first look, the most steps, the paths of so many rows are kept) -> where they have come to.
Program = Callable[[Front, int, int], Ended]
