"""How the share of solved targets grows with the starts, read off a solution that has them all."""

from torch import Tensor

from aimback.core.problem import Solution
from aimback.data.exactness import Simulated
from aimback.data.targets import Targets
from aimback.tasks.base import Task


def count_growth(
    task: Task, targets: Targets, solution: Solution, truth: Simulated, reachable: Tensor
) -> dict[int, int]:
    """Count the targets that the first starts alone would have solved: of all of them, half, a quarter, ...

    As every start does what it would have done alone, the route with fewer of them is known without running it: its
    answer is the one that it ranks first among them. The last count is that of all that are solved.

    Args:
        truth: what `resimulate` has made of the solution; a start that it left out solves nothing here.
        reachable: the targets that are counted, see `find_reachable`, `(n_targets,)`.

    Returns:
        Targets by the number of starts; none where no target is counted.
    """
    counted = reachable[targets.valid]
    if not bool(counted.any()):
        return {}
    start = solution.ranking()[counted, : truth.miss.shape[1]]
    controls = solution.controls[counted].double().take_along_dim(start[:, :, None], 1)
    hits = ((truth.miss + truth.doubt)[counted] <= task.tolerance) & ~task.box.is_outside(controls)
    counts, number = {}, solution.controls.shape[1]
    while number:
        first = (start < number).int().argmax(-1, keepdim=True)  # of equal ones the first
        solves = hits.gather(-1, first) & (start.gather(-1, first) < number)
        counts[number] = int(solves.sum())
        number //= 2
    return counts
