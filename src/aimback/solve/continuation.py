"""Several descents in a row, each beginning where the last one has ended."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch

from aimback.core.problem import History, InverseProblem, Linearised, Solution
from aimback.solve.blurred import Blurred
from aimback.solve.multistart import solve
from aimback.solve.solver import Progress, Solver


def solve_by_continuation(
    forwards: Sequence[Linearised],
    problem: InverseProblem,
    solver: Solver,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Solution:
    """Descend through easier maps first, and through the right one last.

    This is continuation (Nocedal, Wright 2006, section 11.3). An easier map only tells where to go on from, so a
    start leaves it as soon as it is within the tolerance. All else is as in `solve`.

    Args:
        forwards: the maps, the easiest first, and last the one that is to be inverted; at least that one.
        progress: told of the last descent only: what an easier map believes solves nothing.

    Returns:
        What the last descent came to, and so its believed misses. Steps are counted through all descents, and a
        path shows one more for each of them, the first look through its map.
    """
    *easier, last = forwards
    precision = max(solver.precision, min(problem.distance.share, 0.5))
    way: list[Solution] = []
    for forward in easier:
        targets = forward.blur(problem.targets) if isinstance(forward, Blurred) else problem.targets
        way.append(solve(forward, replace(problem, targets=targets), replace(solver, precision=precision), generator))
        problem = replace(problem, starts=problem.box.to_unit(way[-1].controls))
    return functools.reduce(_append, [*way, solve(last, problem, solver, generator, progress)])


def _append(first: Solution, then: Solution) -> Solution:
    """Put the first solution's way before that of the second."""
    reached = then.steps_to_tolerance
    return replace(
        then,
        steps=first.steps + then.steps,
        steps_to_tolerance=torch.where(reached >= 0, first.steps + reached, reached),
        history=History(
            torch.cat([first.history.controls, then.history.controls]),
            torch.cat([first.history.believed_miss, then.history.believed_miss]),
        ),
    )
