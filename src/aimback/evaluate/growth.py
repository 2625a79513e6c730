"""How the share of solved targets grows with the starts, read off a solution that has them all."""

from torch import Tensor

from aimback.core.problem import Solution
from aimback.data.exactness import Simulated
from aimback.data.targets import Targets
from aimback.tasks.base import Task


def trace_growth(
    task: Task, targets: Targets, solution: Solution, truth: Simulated, reachable: Tensor
) -> dict[str, float]:
    """Find the share of targets that the first starts alone would have solved: of all of them, half, a quarter, ...

    As every start does what it would have done alone, the route with fewer of them is known without running it: its
    answer is the one that it ranks first among them. The last share is `solved_fraction`.

    Args:
        truth: what `resimulate` has made of the solution; a start that it left out solves nothing here.
        reachable: the targets that are counted, see `find_reachable`, `(n_targets,)`.

    Returns:
        Shares by the number of starts, as text, the least number first; none where no target is counted.
    """
    counted = reachable[targets.valid]
    if not bool(counted.any()):
        return {}
    start = solution.ranking()[counted, : truth.miss.shape[1]]
    controls = solution.controls[counted].double().take_along_dim(start[:, :, None], 1)
    hits = ((truth.miss + truth.doubt)[counted] <= task.tolerance) & ~task.box.is_outside(controls)
    shares, number = {}, solution.controls.shape[1]
    while number:
        first = (start < number).int().argmax(-1, keepdim=True)  # of equal ones the first
        solves = hits.gather(-1, first) & (start.gather(-1, first) < number)
        shares[str(number)] = float(solves.double().mean())
        number //= 2
    return dict(reversed(shares.items()))
