"""What a route, as configured, asks of its solver, and how it searches."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aimback.core.problem import InverseProblem, Linearised, Solution
from aimback.data.question import pose_problem
from aimback.data.targets import Targets
from aimback.settings.tree import Inversion, Optimisation, Refinement
from aimback.solve.continuation import solve_by_continuation
from aimback.solve.rounds import solve_in_rounds
from aimback.solve.solver import Progress
from aimback.solve.starts import Starts
from aimback.tasks.base import Task

# (targets, conditions) -> one start each
Proposals = Callable[[Tensor, Tensor], Tensor]


def pose_for_route(
    task: Task,
    route: Inversion | Optimisation | Refinement,
    targets: Targets,
    generator: Callable[[str], torch.Generator],
    device: torch.device,
    propose: Proposals | None = None,
    first: int = 0,
) -> tuple[InverseProblem, torch.Generator]:
    """Pose what `pose_problem` does as the route has it.

    Args:
        targets: all of them valid.
        generator: a random stream by its purpose.
        propose: where a refinement begins.
        first: see `pose_problem`.
    """
    dtype = route.torch_dtype
    box = task.box.shrink(route.margin) if isinstance(route, Inversion) and route.margin else task.box
    if isinstance(route, Refinement):
        assert propose is not None
        proposed = propose(targets.targets.to(device, dtype), targets.conditions.to(device, dtype))
        starts: Starts | Tensor = proposed[:, None]
    else:
        starts = route.starts
    return pose_problem(task, targets, starts, generator, box=box, device=device, dtype=dtype, first=first)


def search(
    route: Inversion | Optimisation | Refinement,
    forwards: Sequence[Linearised],
    problem: InverseProblem,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Solution:
    """Descend through the maps, easier ones first, from all starts at once or in rounds, as the route has it."""
    if not isinstance(route, Refinement) and route.starts.until_solved:
        return solve_in_rounds(forwards, problem, route.solver, generator, progress)
    return solve_by_continuation(forwards, problem, route.solver, generator, progress)
