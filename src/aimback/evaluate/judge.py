"""What a route's answers are worth: every one re-simulated, and only then judged."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.ledger import Ledger
from aimback.core.problem import UNLESS_HIT, Solution, StartStatus, Status
from aimback.data.exactness import FACTORS, Simulated, simulate_closely
from aimback.data.targets import Targets
from aimback.tasks.base import Task
from aimback.tasks.reach import find_unreachable

# Re-simulated a target, the best-ranked first: as many as the published r_T looks at.
CANDIDATES = 200


@dataclass(frozen=True)
class Answers:
    """One answer a target, in the order of the targets, invalid rows included; float64 on the CPU.

    Attributes:
        controls: of the start that the route itself ranks first, `(n_targets, n_controls)`.
        outcome: what the true simulator makes of them, `(n_targets, n_outcomes)`, simulated as finely as it takes.
        believed_miss: by the route's own forward map, `(n_targets,)`.
        miss: by the true simulator, `(n_targets,)`, in the same unit, that of the task's misses.
        status: codes of `Status`, `(n_targets,)`.
    """

    controls: Tensor
    outcome: Tensor
    believed_miss: Tensor
    miss: Tensor
    status: Tensor


def resimulate(
    task: Task,
    targets: Targets,
    solution: Solution,
    device: torch.device | str = "cpu",
    candidates: int = CANDIDATES,
    ledger: Ledger | None = None,
) -> Simulated:
    """Put the first candidates of every valid target through the true simulator, in the order in which the route
    ranks them; `(n_valid, n_candidates)`, NaN where a start was never begun. The ledger counts the simulations."""
    valid = targets.only_valid()
    controls = order_by_rank(solution.controls, solution)[:, :candidates].double()
    shape = controls.shape[:2]
    wanted, conditions = (part.repeat_interleave(shape[1], 0) for part in (valid.targets, valid.conditions))
    rows = _find_begun(solution, candidates).flatten().nonzero()[:, 0]
    truth = simulate_closely(task, controls.flatten(0, 1)[rows], conditions[rows], wanted[rows], device, ledger)
    return truth.spread(rows, len(wanted)).unflatten(shape)


def count_resimulations(solution: Solution) -> int:
    """How many answers `resimulate` simulates again."""
    return int(_find_begun(solution, CANDIDATES).sum())


def _find_begun(solution: Solution, candidates: int) -> Tensor:
    return order_by_rank(solution.start_status, solution)[:, :candidates] != StartStatus.NOT_BEGUN


def judge(task: Task, targets: Targets, solution: Solution, truth: Simulated) -> Answers:
    """Decide each target's status from its best-ranked candidate's true miss, never from the solver's word.

    It is solved where the miss is within the tolerance even if all that is uncertain about the simulation is added. A
    miss over the tolerance is `missed` where the route believed in a hit, and so is a hit by controls
    outside the box, which soft walls may let pass; `unreachable` where the
    task can tell that no controls reach the target, so the answer is the closest approach found;
    else it is named after how the start stopped.
    """
    valid = targets.only_valid()
    miss, outcome, doubt = truth.miss[:, 0], truth.outcome[:, 0], truth.doubt[:, 0]
    controls = order_by_rank(solution.controls, solution)[:, 0].double()
    believed = order_by_rank(solution.believed_miss, solution)[:, 0].double()
    stopped = order_by_rank(solution.start_status, solution)[:, 0]

    status = torch.tensor([UNLESS_HIT[start] for start in StartStatus])[stopped.long()]
    status[_out_of_reach(task, valid, miss, believed)] = Status.UNREACHABLE
    status[torch.isinf(outcome).any(-1)] = Status.NO_EVENT
    status[torch.isnan(outcome).any(-1)] = Status.NOT_FINITE
    hits = miss + doubt <= task.tolerance
    outside = task.box.is_outside(controls)
    status[hits & ~outside] = Status.SOLVED
    status[hits & outside] = Status.MISSED

    return _spread_out(targets, controls, outcome, believed, miss, status)


def believe(task: Task, targets: Targets, solution: Solution) -> Answers:
    """Take each target's best-ranked answer as its route sees it, where there is no simulator to judge by.

    It is `believed` where the route believes in a hit by controls inside the box, `missed` where soft walls let
    it take others, and else named after how the start stopped. Outcome and miss are NaN.
    """
    controls = order_by_rank(solution.controls, solution)[:, 0].double()
    believed = order_by_rank(solution.believed_miss, solution)[:, 0].double()
    stopped = order_by_rank(solution.start_status, solution)[:, 0]
    status = torch.tensor([UNLESS_HIT[start] for start in StartStatus])[stopped.long()]
    hits, outside = believed <= task.tolerance, task.box.is_outside(controls)
    status[hits & ~outside] = Status.BELIEVED
    status[hits & outside] = Status.MISSED
    unknown = torch.full_like(believed, torch.nan)
    outcome = unknown[:, None].expand(-1, len(task.outcomes))
    return _spread_out(targets, controls, outcome, believed, unknown, status)


def _spread_out(
    targets: Targets, controls: Tensor, outcome: Tensor, believed: Tensor, miss: Tensor, status: Tensor
) -> Answers:
    """What was found for the valid rows in the places of these among all."""
    rows, total = targets.valid, len(targets)

    def spread(values: Tensor) -> Tensor:
        everywhere = torch.full((total, *values.shape[1:]), torch.nan, dtype=torch.float64)
        everywhere[rows] = values.double()
        return everywhere

    every_status = torch.full((total,), int(Status.INVALID_INPUT))
    every_status[rows] = status
    return Answers(spread(controls), spread(outcome), spread(believed), spread(miss), every_status)


def find_reachable(answers: Iterable[Answers]) -> Tensor:
    """Which targets can be hit as far as is known, `(n_targets,)`: valid, and by no route shown to be out of reach."""
    status = torch.stack([answer.status for answer in answers])
    out = (status == Status.UNREACHABLE).any(0) & ~(status == Status.SOLVED).any(0)
    return ~out & (status[0] != Status.INVALID_INPUT)


def order_by_rank(values: Tensor, solution: Solution) -> Tensor:
    """Per-start values `(n_targets, n_starts, ...)` in the order of the route's own ranking."""
    ranking = solution.ranking()
    index = ranking.reshape(*ranking.shape, *([1] * (values.ndim - 2))).expand_as(values)
    return values.gather(1, index)


def _out_of_reach(task: Task, targets: Targets, miss: Tensor, believed: Tensor) -> Tensor:
    """Which targets no controls can hit, as far as the task can tell; asked only where it matters."""
    out = torch.zeros(len(miss), dtype=torch.bool)
    doubtful = ((miss > task.tolerance) & (believed > task.tolerance)).nonzero()[:, 0]
    if len(doubtful):
        finer = task.finer(FACTORS[0]) or task
        out[doubtful] = find_unreachable(finer, targets.targets[doubtful], targets.conditions[doubtful])
    return out
