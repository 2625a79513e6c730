"""One step of every start: where to look, what is there, whether to go there, what to remember; and how it ends."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from aimback.core.errors import UserError
from aimback.core.problem import History, InverseProblem, Linearised, Solution, StartStatus
from aimback.solve import point as points
from aimback.solve.descent import keep_constraints
from aimback.solve.point import Point
from aimback.solve.rowwise import largest, some
from aimback.solve.solver import Memory, Stepper

_REST = 1e-12  # a scaled gradient below this leaves nothing to descend


@dataclass(frozen=True)
class Front:
    """The starts that are on their way, one row each; what a row holds depends on that row alone.

    Attributes:
        targets: `(rows, n_outcomes)`; conditions: `(rows, n_conditions)`.
        unit, residual, jacobian: where each start is, see `Point`.
        best: the best place it has seen, see `is_better`, `(rows, n_controls)` in the unit cube.
        merit: the root of the loss there, `(rows,)`; infinite before the first look.
        miss: the relative miss there, `(rows,)`.
        reached: the first step at which it was within the tolerance, `(rows,)`, -1 before.
        memory: the solver's.
    """

    targets: Tensor
    conditions: Tensor
    unit: Tensor
    residual: Tensor
    jacobian: Tensor
    best: Tensor
    merit: Tensor
    miss: Tensor
    reached: Tensor
    memory: Memory

    def __getitem__(self, rows: Any) -> "Front":
        return Front.of([part[rows] for part in self.tensors()])

    def tensors(self) -> list[Tensor]:
        """Return all of them in a row, the memory last."""
        *own, memory = (getattr(self, field.name) for field in fields(self))
        return [*own, *memory]

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> "Front":
        """Make a front of what `tensors` has returned."""
        own = len(fields(cls)) - 1
        return cls(*tensors[:own], tuple(tensors[own:]))  # type: ignore[call-arg, arg-type]  # the last one is the memory


class NotCompilable(UserError):  # noqa: N818 - a state of affairs, as StopIteration
    """Says why a solve cannot be compiled here."""


@dataclass(frozen=True)
class Iteration:
    """The step of a solver through a forward map: a pure function of tensors, so it may be compiled."""

    forward: Linearised
    problem: InverseProblem
    solver: Stepper

    def begin(self, targets: Tensor, conditions: Tensor, unit: Tensor) -> Front:
        """Place rows at `unit`, `(rows, n_controls)`, before their first look."""
        residual = torch.zeros_like(targets)
        jacobian = residual[:, :, None] * unit[:, None, :]
        never = torch.full_like(unit[:, 0], torch.inf)
        reached = torch.full_like(never, -1, dtype=torch.int32)
        memory = self.solver.begin(Point(unit, residual, jacobian, self.solver.boundary))
        return Front(targets, conditions, unit, residual, jacobian, unit, never, never, reached, memory)

    def __call__(self, step: Any, front: Front) -> tuple[Front, Tensor, Tensor]:
        """Take one step.

        Args:
            step: its number, or in a traced program of one row a tensor of it; step 0 is a look without a move.

        Returns:
            The rows after it; which of them go on, `(rows,)`; and how the others stopped, codes of `StartStatus`.
        """
        solver = self.solver
        if isinstance(step, int) and step == 0:
            point = self._look(front.unit, front)
            return self._record(
                step, front, point, solver.begin(point), torch.zeros_like(front.merit, dtype=torch.bool)
            )
        here = Point(front.unit, front.residual, front.jacobian, solver.boundary)
        proposed, memory = solver.propose(here, front.memory, step)
        if self.problem.box.constraints is not None and solver.boundary is None:
            proposed = keep_constraints(here, proposed, self.problem.box)
        if not isinstance(step, Tensor):
            trial = self._look(proposed, front)
            moves, still, memory = solver.judge(here, trial, memory)
            return self._record(step, front, points.where(moves, trial, here), memory, still)
        # A traced program serves for the first step too, so it has to choose.
        first = step == 0
        trial = self._look(torch.where(first, front.unit, proposed), front)
        moves, still, memory = solver.judge(here, trial, memory)
        memory = tuple(torch.where(first, *pair) for pair in zip(solver.begin(trial), memory, strict=True))
        return self._record(step, front, points.where(moves | first, trial, here), memory, still & ~first)

    def _look(self, unit: Tensor, front: Front) -> Point:
        problem = self.problem
        scales, boundary = problem.distance.scales, self.solver.boundary
        return points.evaluate_point(self.forward, problem.box, unit, front.conditions, front.targets, scales, boundary)

    def _record(
        self, step: Any, front: Front, point: Point, memory: Memory, still: Tensor
    ) -> tuple[Front, Tensor, Tensor]:
        """Note where the rows are now, and which of them stop there."""
        merit, within, arrived = point.loss.sqrt(), point.arrival <= self.problem.distance.share, front.reached >= 0
        better = points.is_better(within, arrived, merit, front.merit)
        reached = torch.where(within & ~arrived, step, front.reached).to(front.reached.dtype)
        moved = replace(
            front,
            unit=point.unit,
            residual=point.residual,
            jacobian=point.jacobian,
            best=torch.where(better[:, None], point.unit, front.best),
            merit=torch.where(better, merit, front.merit),
            miss=torch.where(better, point.miss, front.miss),
            reached=reached,
            memory=memory,
        )
        rests = still | (largest(point.downhill) <= _REST)
        status = torch.where(rests, StartStatus.STALLED, StartStatus.STEP_LIMIT).to(torch.int8)
        status = torch.where(point.finite, status, StartStatus.NOT_FINITE)
        status = torch.where(some(point.residual.abs() == torch.inf), StartStatus.NO_EVENT, status)
        # However it stops, a start that once came within the tolerance has arrived.
        status = torch.where(reached >= 0, StartStatus.ARRIVED, status)
        return moved, point.finite & (point.arrival > self.solver.precision) & ~rests, status


@dataclass(frozen=True)
class Finish:
    """Rows that have stopped; see `Front` for the first three.

    Attributes:
        best: `(rows, n_controls)`; miss, reached: `(rows,)`.
        steps: that each row took, `(rows,)`.
        status: how it stopped, codes of `StartStatus`, `(rows,)`.
        path: of the first rows, where they were after each step, `(n_steps + 1, n_kept, n_controls)`; misses: the
            relative ones there, `(n_steps + 1, n_kept)`. A row that has stopped stays where it was.
    """

    best: Tensor
    miss: Tensor
    reached: Tensor
    steps: Tensor
    status: Tensor
    path: Tensor
    misses: Tensor

    def to_solution(self, problem: InverseProblem, starts: int) -> Solution:
        """Sort the rows by target: `starts` of them belong to each."""
        shape = len(self.steps) // starts, starts
        box, span = problem.box, problem.distance.span
        return Solution(
            controls=box.from_unit(self.best).unflatten(0, shape),
            believed_miss=(self.miss * span).unflatten(0, shape),
            start_status=self.status.unflatten(0, shape),
            steps=self.steps.unflatten(0, shape),
            steps_to_tolerance=self.reached.unflatten(0, shape),
            history=History(
                box.from_unit(self.path).unflatten(1, (-1, starts)), (self.misses * span).unflatten(1, (-1, starts))
            ),
        )


def count_arrived(reached: Tensor, starts: int) -> int:
    """Count the targets with a start that has come within the tolerance."""
    return int((reached >= 0).unflatten(0, (-1, starts)).any(-1).sum())
