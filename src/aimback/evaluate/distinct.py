"""The answers of a target that differ: not the one to take, but all that there are to choose from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.problem import Solution
from aimback.data.exactness import Simulated
from aimback.data.targets import Targets
from aimback.evaluate.judge import order_by_rank
from aimback.evaluate.uncertainty import Uncertainty, propagate
from aimback.tasks.base import Task

# Two answers are the same where no control differs by more than this share of its range. With as many outcomes as
# controls answers are points of their own, and a hundredth tells these apart. With fewer outcomes they form curves or
# surfaces, of which only samples that lie well apart are worth listing.
SAME_POINT, SAME_PIECE = 0.01, 0.05
MOST_DISTINCT = 10  # of a target


@dataclass(frozen=True)
class DistinctAnswers:
    """The distinct answers of all targets, one row an answer; a target that no start hits has none.

    Attributes:
        target: the number of the target, from 0, invalid rows counted too, `(n,)`.
        number: of the answer among those of its target, from 1, in the order of the route's own ranking, `(n,)`.
        controls: `(n, n_controls)`, float64 on the CPU.
        miss: by the true simulator, `(n,)`, in the unit of the task's misses.
        uncertainty: of the controls; None where targets are not measured.
    """

    target: Tensor
    number: Tensor
    controls: Tensor
    miss: Tensor
    uncertainty: Uncertainty | None = None

    def __len__(self) -> int:
        return len(self.target)

    @classmethod
    def none(cls, task: Task) -> "DistinctAnswers":
        """Not one."""
        nothing, controls = torch.zeros(0, dtype=torch.int64), torch.zeros(0, len(task.box), dtype=torch.float64)
        return cls(nothing, nothing, controls, controls[:, 0], propagate(task, controls, controls))

    def count(self) -> Tensor:
        """How many the targets have that have any."""
        counts = self.target.bincount()
        return counts[counts > 0]


def find_distinct(task: Task, targets: Targets, solution: Solution, truth: Simulated) -> DistinctAnswers:
    """Find the answers that hit a target by the true simulator, inside the box, and differ from each other.

    Of the hits of a target the first in the route's own ranking is kept. Then, again and again, the one that is
    farthest from all kept so far (Gonzalez 1985) is kept too, until it is the same as one of them, see `SAME_POINT`,
    or there are `MOST_DISTINCT`. Only starts that were simulated again are looked at.

    Args:
        truth: what `resimulate` has made of the solution.
    """
    controls = order_by_rank(solution.controls, solution)[:, : truth.miss.shape[1]].double()
    unit = task.box.to_unit(controls)
    hits = (truth.miss + truth.doubt <= task.tolerance) & ~task.box.is_outside(controls)
    same = SAME_PIECE if len(task.box) > len(task.outcomes) else SAME_POINT
    kept = torch.zeros_like(hits)
    apart = torch.where(hits, torch.inf, -1.0).double()
    every = torch.arange(len(hits))
    for _ in range(min(MOST_DISTINCT, hits.shape[1])):
        farthest = apart.argmax(-1)  # of equal ones the first
        kept[every, farthest] |= apart[every, farthest] > same
        apart = torch.minimum(apart, (unit - unit[every, farthest][:, None]).abs().amax(-1))
    row, rank = kept.nonzero(as_tuple=True)
    return DistinctAnswers(
        target=targets.valid.nonzero()[:, 0][row],
        number=kept.cumsum(-1)[row, rank],
        controls=controls[row, rank],
        miss=truth.miss[row, rank],
        uncertainty=propagate(task, controls[row, rank], targets.only_valid().conditions[row]),
    )
