"""What a route's answers are worth: every one re-simulated, and only then judged."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from aimback.core.files import write_text
from aimback.core.ledger import Ledger
from aimback.core.problem import Solution, StartStatus, Status
from aimback.data.targets import Targets
from aimback.evaluate.exactness import FACTORS, Simulated, simulate_closely
from aimback.tasks.base import Task

CURVE_COLUMNS = ("route", "step", "loss", "miss", "miss_p10", "miss_p90")
R_T_COLUMNS = ("route", "T", "mean", "q25", "q75")
# Re-simulated a target, the best-ranked first: as many as the published r_T looks at.
CANDIDATES = 200
_SLACK = 1e-6  # box lengths: bounds in float32 are not those in float64

_UNLESS_SOLVED = {
    StartStatus.ARRIVED: Status.MISSED,
    StartStatus.STALLED: Status.STALLED,
    StartStatus.STEP_LIMIT: Status.STEP_LIMIT,
    StartStatus.NO_EVENT: Status.NO_EVENT,
    StartStatus.NOT_FINITE: Status.NOT_FINITE,
}


@dataclass(frozen=True)
class Answers:
    """One answer a target, in the order of the targets, invalid rows included; float64 on the CPU.

    Attributes:
        controls: of the start that the route itself ranks first, `(n_targets, n_controls)`.
        outcome: what the true simulator makes of them, `(n_targets, n_outcomes)`, simulated as finely as it takes.
        believed_miss: by the route's own forward map, `(n_targets,)`, in the outcome's unit.
        miss: by the true simulator, `(n_targets,)`.
        status: codes of `Status`, `(n_targets,)`.
    """

    controls: Tensor
    outcome: Tensor
    believed_miss: Tensor
    miss: Tensor
    status: Tensor


def resimulate(task: Task, targets: Targets, solution: Solution, device: torch.device | str = "cpu") -> Simulated:
    """Put the first `CANDIDATES` of every valid target through the true simulator, in the order in which the route
    ranks them; `(n_valid, n_candidates)`."""
    valid = targets.only_valid()
    controls = _ranked(solution.controls, solution)[:, :CANDIDATES].double()
    shape = controls.shape[:2]
    wanted, conditions = (part.repeat_interleave(shape[1], 0) for part in (valid.targets, valid.conditions))
    return simulate_closely(task, controls.flatten(0, 1), conditions, wanted, device).unflatten(shape)


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
    controls = _ranked(solution.controls, solution)[:, 0].double()
    believed = _ranked(solution.believed_miss, solution)[:, 0].double()
    stopped = _ranked(solution.start_status, solution)[:, 0]

    status = torch.tensor([_UNLESS_SOLVED[start] for start in StartStatus])[stopped.long()]
    status[_out_of_reach(task, valid, miss, believed)] = Status.UNREACHABLE
    status[torch.isinf(outcome).any(-1)] = Status.NO_EVENT
    status[torch.isnan(outcome).any(-1)] = Status.NOT_FINITE
    hits = miss + doubt <= task.tolerance
    outside = _outside(task, controls)
    status[hits & ~outside] = Status.SOLVED
    status[hits & outside] = Status.MISSED

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


def r_t(truth: Simulated) -> Tensor:
    """The published metric r_T for T = 1 ... n_candidates, and its quartiles, `(n_candidates, 3)`.

    The mean over targets of the least squared re-simulated error among the T candidates that the
    route ranks first, and the lower and upper quartile of it over targets; the squared error is the mean
    over outcome dimensions, in raw units squared (Ren, Padilla, Malof 2020, equation 3).
    """
    squared = truth.miss.square() / truth.outcome.shape[-1]
    least = squared.nan_to_num(nan=torch.inf, posinf=torch.inf).cummin(dim=1).values
    ordered = least.sort(dim=0).values
    last = len(ordered) - 1
    # The nearest rank, as for every spread here: no arithmetic with infinities.
    return torch.stack([least.mean(0), ordered[round(0.25 * last)], ordered[round(0.75 * last)]], dim=-1)


def r_t_rows(name: str, truth: Simulated) -> list[tuple[object, ...]]:
    """The metric r_T of a route as rows of `R_T_COLUMNS`; empty cells where it is infinite."""
    table = r_t(truth).tolist()
    return [(name, count, *("" if math.isinf(value) else value for value in row)) for count, row in enumerate(table, 1)]


def measures(
    task: Task,
    targets: Targets,
    solution: Solution,
    truth: Simulated,
    answers: Answers,
    ledger: Ledger,
    reachable: Tensor | None = None,
) -> dict[str, object]:
    """The metrics of a route by name; None where there is nothing to say (no start ever arrived).

    Args:
        reachable: which targets the misses are of, and the solved ones a share of, by `find_reachable` of all routes;
            None goes by this one.
    """
    reachable = find_reachable([answers]) if reachable is None else reachable
    rows = targets.valid
    span = float(torch.linalg.vector_norm(task.outcomes.upper - task.outcomes.lower))
    steps = solution.steps_to_tolerance
    arrived = steps >= 0
    measured: dict[str, object] = {}
    measured |= _spread("miss", answers.miss[reachable])
    measured |= _spread("miss_relative", answers.miss[reachable] / span)
    measured |= _spread("believed_miss", answers.believed_miss[reachable])
    if task.finer(FACTORS[0]) is not None:
        measured |= _spread("simulation_error", truth.error[:, 0])
    counts = answers.status.bincount(minlength=len(Status)).tolist()
    many = int(reachable.sum())
    measured["solved_fraction"] = counts[Status.SOLVED] / many if many else None
    measured["arrived_fraction"] = float(arrived.double().mean())
    measured |= _spread("steps_to_tolerance", steps[arrived].double(), ("median", "p90"))
    curve = r_t(truth)[:, 0]
    for first in sorted({1, min(50, len(curve)), len(curve)}):
        measured[f"r_{first}"] = _number(curve[first - 1])
    outside = _outside(task, answers.controls[rows])
    # The r_1 that the route itself believes in.
    believed = answers.believed_miss[rows].square() / truth.outcome.shape[-1]
    measured["believed_r_1"] = _number(believed.mean())
    measured["outside_fraction"] = float(outside.double().mean())
    measured |= {"targets": len(targets), "reachable_targets": many, "starts": solution.controls.shape[1]}
    # What r_T looks at beyond the one answer is no part of finding it, and stands beside the ledger.
    measured |= {"candidates": len(curve), "resimulations": truth.miss.numel()}
    measured |= asdict(ledger)
    measured["status"] = {status.name.lower(): counts[status] for status in Status}
    return measured


def curves(
    task: Task, targets: Targets, solution: Solution, route: str, device: torch.device | str = "cpu"
) -> list[tuple[object, ...]]:
    """How the answer of the first targets came closer, step by step; rows of `CURVE_COLUMNS`.

    The loss is the median squared believed miss relative to the outcome's span, what the solver
    descends; the miss is the true one, re-simulated, with its 10 and 90 per cent quantiles.
    """
    history = solution.history
    kept = history.believed_miss.shape[1]
    valid = targets.only_valid()
    pick = solution.best()[:kept], torch.arange(kept)
    believed = history.believed_miss[:, pick[1], pick[0]].double()
    controls = history.controls[:, pick[1], pick[0]]
    steps = len(controls)
    wanted, conditions = (part[:kept].repeat(steps, 1) for part in (valid.targets, valid.conditions))
    miss = simulate_closely(task, controls.flatten(0, 1), conditions, wanted, device).miss.unflatten(0, (steps, kept))
    span = torch.linalg.vector_norm(task.outcomes.upper - task.outcomes.lower)
    loss = (believed / span).square().nanquantile(0.5, dim=1)
    low, middle, high = miss.nanquantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), dim=1)
    table = torch.stack([loss, middle, low, high], dim=1).tolist()
    return [(route, step, *row) for step, row in enumerate(table)]


def save_answers(path: Path, task: Task, targets: Targets, answers: Mapping[str, Answers]) -> None:
    """Write every route's answers as a CSV table, a row a target and route, with full precision."""
    header = ["route", "target", "line", "status"]
    header += [f"wanted {axis.label}" for axis in task.outcomes.axes]
    header += [axis.label for axis in (*task.conditions.axes, *task.box.axes, *task.outcomes.axes)]
    header += ["miss", "believed_miss", "problem"]
    rows: list[Sequence[object]] = []
    for route, answer in answers.items():
        table = torch.cat(
            [targets.targets, targets.conditions, answer.controls, answer.outcome]
            + [part[:, None] for part in (answer.miss, answer.believed_miss)],
            dim=1,
        ).tolist()
        for index, (line, status) in enumerate(zip(targets.lines.tolist(), answer.status.tolist(), strict=True)):
            numbers = ["" if math.isnan(number) else repr(number) for number in table[index]]
            rows.append([route, index, line or "", Status(status).name.lower(), *numbers, targets.problems[index]])
    save_table(path, header, rows)


def save_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV table, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _ranked(values: Tensor, solution: Solution) -> Tensor:
    """Per-start values `(n_targets, n_starts, ...)` in the order of the route's own ranking."""
    ranking = solution.ranking()
    index = ranking.reshape(*ranking.shape, *([1] * (values.ndim - 2))).expand_as(values)
    return values.gather(1, index)


def _outside(task: Task, controls: Tensor) -> Tensor:
    """Which points lie outside the box by more than rounding, `(n,)`."""
    return ((task.box.to_unit(controls) - 0.5).abs() > 0.5 + _SLACK).any(-1)


def _out_of_reach(task: Task, targets: Targets, miss: Tensor, believed: Tensor) -> Tensor:
    """Which targets no controls can hit, as far as the task can tell; asked only where it matters."""
    out = torch.zeros(len(miss), dtype=torch.bool)
    doubtful = ((miss > task.tolerance) & (believed > task.tolerance)).nonzero()[:, 0]
    if len(doubtful) == 0:
        return out
    reach = (task.finer(FACTORS[0]) or task).reach(targets.conditions[doubtful])
    if reach is not None:
        low, high = reach
        wanted = targets.targets[doubtful]
        beyond = (wanted < low - task.tolerance) | (wanted > high + task.tolerance)
        out[doubtful] = beyond.any(-1)
    return out


def _spread(name: str, values: Tensor, parts: Sequence[str] = ("median", "p90", "max")) -> dict[str, float | None]:
    quantile = {"median": 0.5, "p90": 0.9, "max": 1.0}
    if len(values) == 0:
        return {f"{name}_{part}": None for part in parts}
    ordered = values.sort().values  # NaN last: a failed answer is the worst one, not a missing one
    last = len(ordered) - 1
    # The nearest rank: a value that was measured, and no arithmetic with infinities.
    return {f"{name}_{part}": _number(ordered[round(quantile[part] * last)]) for part in parts}


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if abs(number) < float("inf") else None
