"""Targets made a problem to solve: what is wanted, under which conditions, and where to begin."""

from collections.abc import Callable

import torch
from torch import Tensor

from aimback.core.box import Box
from aimback.core.problem import InverseProblem
from aimback.data.targets import Targets
from aimback.solve.starts import Starts, draw_starts
from aimback.tasks.base import Task


def pose_problem(
    task: Task,
    targets: Targets,
    starts: Starts | Tensor,
    generator: Callable[[str], torch.Generator],
    *,
    purpose: str = "starts",
    box: Box | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    first: int = 0,
) -> tuple[InverseProblem, torch.Generator]:
    """Pose what a route is asked for; the same generators give every route the same starts.

    Args:
        targets: all of them valid.
        starts: how to draw initial guesses, or these, `(n_targets, n_starts, n_controls)` in the units of the box.
        generator: a random stream by its purpose; starts from the prior have one of their own, "prior starts".
        purpose: of the stream that starts are drawn from.
        box: where to search; None: all of the task's box.
        first: the number of the first target, where these are a part of more.

    Returns:
        The problem, and the stream that a solver may draw from.
    """
    wanted, given = targets.targets.to(device, dtype), targets.conditions.to(device, dtype)
    box = box or task.box
    if isinstance(starts, Tensor):
        unit = box.to_unit(starts.to(device, dtype))
    else:

        def guess(count: int) -> Tensor:
            return task.draw_starts(count, generator("prior starts"))

        stream = generator(purpose).clone_state()  # a copy: all parts of the targets have one key
        unit = draw_starts(starts, len(targets), box, guess, stream, device, first)
    return InverseProblem(wanted, given, box, task.distance, unit), generator(f"search from {purpose}")
