"""Descents from the same starts through any forward map, followed by the true simulator."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aimback.core.problem import Linearised
from aimback.data.dataset import simulate
from aimback.data.targets import Targets
from aimback.diagnose.case import Case
from aimback.solve.derivative_free import DerivativeFree
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.multistart import HISTORY_ROWS
from aimback.solve.point import Point
from aimback.solve.solver import Memory, Solver
from aimback.solve.starts import draw_evenly
from aimback.tasks.base import Task
from aimback.tasks.reach import find_unreachable

# A start whose believed miss is below this share of the tolerance is done, through either map. What is left to
# descend no longer decides about a hit, and gradient descent would spend most of its steps on it.
_DONE = 0.1


@dataclass(frozen=True)
class GradientLadder(GradientDescent):
    """Gradient descent by several step sizes at once: so many starts of every target for `each`, in this order."""

    step_sizes: Sequence[float] = (0.1,)
    each: int = 1

    def begin(self, point: Point) -> Memory:
        sizes = torch.tensor(self.step_sizes, dtype=torch.float64).to(point.unit)
        of_target = sizes.repeat_interleave(self.each)
        return (of_target.repeat(len(point.unit) // len(of_target))[:, None],)

    def propose(self, point: Point, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        return point.keep_inside(point.unit - memory[0] * point.gradient), memory


@dataclass(frozen=True)
class Ladder:
    """What gradient descent makes of the same starts by step size, through every forward map.

    Attributes:
        direct: steps to the tolerance by the true miss, `(k, n_targets, n_starts)`, -1 where never.
        networks: the same through each network.
    """

    direct: Tensor
    networks: Sequence[Tensor]


def choose_targets(case: Case) -> Targets:
    """Take the targets that are looked at closely, without those that the task knows to be out of reach."""
    return case.targets.of(choose_rows(case))


@functools.lru_cache(maxsize=1)
def choose_rows(case: Case) -> Tensor:
    """Return their rows among all targets; where all of the first ones are out of reach, these."""
    few = case.few()
    # Asked only where the direct route did not arrive: a task may have to search for its reach.
    arrived = (case.solutions["direct"].believed_miss[: len(few)] <= case.task.tolerance).any(-1)
    doubtful = (~arrived).nonzero()[:, 0]
    out = torch.zeros(len(few), dtype=torch.bool)
    out[doubtful] = find_unreachable(case.task, few.targets[doubtful], few.conditions[doubtful])
    return (out.all() | ~out).nonzero()[:, 0]


def draw_even_starts(case: Case, count: int) -> Tensor:
    """Draw the starts of every comparison evenly over the box, `(count, n_starts, n_controls)` in its units."""
    box, generator = case.task.box, case.generator("starts")
    return box.from_unit(draw_evenly(count, case.settings.starts, len(box), generator))


def limit_steps(case: Case, solver: Solver) -> Solver:
    """Give the solver as many steps as a descent has here, and no more precision than a hit needs."""
    return replace(limit_precision(case.task, solver), max_steps=case.settings.max_steps)


def limit_precision(task: Task, solver: Solver) -> Solver:
    """Ask the solver for no more precision than a hit needs."""
    return replace(solver, precision=max(solver.precision, _DONE * task.tolerance / task.distance.span))


def measure_miss(case: Case, targets: Targets, controls: Tensor) -> Tensor:
    """The miss of controls `(n_targets, n_starts, n_controls)` by the true simulator, float64 on the CPU.

    Infinite where the simulation is no number, and outside the box, into which soft walls let an answer go.
    """
    shape = controls.shape[:2]
    wanted, conditions = (part.repeat_interleave(shape[1], 0) for part in (targets.targets, targets.conditions))
    return _miss(case, controls.flatten(0, 1), wanted, conditions).reshape(shape)


def count_steps(case: Case, forward: Linearised, targets: Targets, solver: Solver, starts: Tensor) -> Tensor:
    """The first step at which the true miss is within the tolerance, `(n_targets, n_starts)`; -1 where it never is.

    The path is the one that the solver takes through `forward`; where that has it stop, it stays.

    Args:
        starts: `(n_targets, n_starts, n_controls)`, in the units of the box.
    """
    # Of more starts than these the solver keeps no paths.
    block = max(1, HISTORY_ROWS // starts.shape[1])
    blocks = [
        _count_steps(case, forward, targets.of(rows), solver, starts[rows])
        for rows in torch.arange(len(targets)).split(block)
    ]
    return torch.cat(blocks)


def cap(steps: Tensor, limit: int) -> Tensor:
    """Count "never" as the limit: the mean of such steps is a restricted mean (Royston, Parmar 2013)."""
    return torch.where(steps < 0, limit, steps).double()


@functools.lru_cache(maxsize=1)
def descend_ladder(case: Case) -> Ladder:
    """Descend by all step sizes from the same starts, once for all claims that ask."""
    targets, sizes = choose_targets(case), tuple(case.settings.step_sizes)
    starts = draw_even_starts(case, len(targets))
    solver = limit_steps(case, GradientLadder(step_sizes=sizes, each=starts.shape[1]))
    starts = starts.repeat(1, len(sizes), 1)

    def by_size(forward: Linearised) -> Tensor:
        steps = count_steps(case, forward, targets, solver, starts)
        return torch.stack(steps.chunk(len(sizes), 1))

    return Ladder(by_size(case.task), [by_size(network) for network in case.networks])


def choose_size(steps: Tensor, limit: int) -> Tensor:
    """Choose the step size that takes the fewest steps on average, of steps `(k, ...)`; the first of equals."""
    return cap(steps, limit).flatten(1).mean(1).argmin()


def _count_steps(case: Case, forward: Linearised, targets: Targets, solver: Solver, starts: Tensor) -> Tensor:
    solution = case.solve(forward, targets, solver, "descents", starts)
    path, last = solution.history.controls.cpu(), solution.steps.cpu()
    if isinstance(solver, DerivativeFree):  # its paths begin after the first round
        path = torch.cat([starts.to(path)[None], path])
    step = torch.arange(len(path))[:, None, None].expand(-1, *last.shape)
    moving = step <= last
    # Only where a start has been: the rest of its path is its end again.
    rows = torch.arange(len(targets))[None, :, None].expand_as(step)[moving]
    miss = torch.full(step.shape, torch.inf, dtype=torch.float64)
    miss[moving] = _miss(case, path[moving], targets.targets[rows], targets.conditions[rows])
    hit = miss <= case.task.tolerance
    first: Tensor = hit.int().argmax(0).where(hit.any(0), -1)
    return first


def _miss(case: Case, controls: Tensor, wanted: Tensor, conditions: Tensor) -> Tensor:
    """Row by row, `(n,)`."""
    controls = controls.to("cpu", torch.float64)
    (outcome,) = simulate(case.task, controls, conditions, case.device)
    miss = case.task.distance.measure(outcome - wanted)
    return torch.where(case.task.box.is_outside(controls) | miss.isnan(), torch.inf, miss)
