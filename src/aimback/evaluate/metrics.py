"""The measures of a route, by the names that metrics.json, MLflow and the report give them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from aimback.core.ledger import Ledger
from aimback.core.problem import Solution, StartStatus, Status
from aimback.data.exactness import FACTORS, Simulated, simulate_closely
from aimback.data.targets import Targets
from aimback.evaluate.judge import Answers, count_resimulations, find_reachable
from aimback.tasks.base import Task


def measure(
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
    steps = solution.steps_to_tolerance
    arrived = steps >= 0
    measured: dict[str, object] = {}
    measured |= _spread("miss", answers.miss[reachable])
    measured |= _spread("miss_relative", answers.miss[reachable] / task.distance.span)
    measured |= _spread("believed_miss", answers.believed_miss[reachable])
    if task.finer(FACTORS[0]) is not None:
        measured |= _spread("simulation_error", truth.error[:, 0])
    counts = answers.status.bincount(minlength=len(Status)).tolist()
    many = int(reachable.sum())
    measured["solved_fraction"] = counts[Status.SOLVED] / many if many else None
    measured["arrived_fraction"] = _share_arrived(solution)
    measured |= _spread("steps_to_tolerance", steps[arrived].double(), ("median", "p90"))
    curve = compute_r_t(task, targets, truth)[:, 0]
    for first in sorted({1, min(50, len(curve)), len(curve)}):
        measured[f"r_{first}"] = _number(curve[first - 1])
    outside = task.box.is_outside(answers.controls[rows])
    # The r_1 that the route itself believes in; with several outcomes a lower bound, as only the farthest one is known.
    believed = answers.believed_miss[rows].square() / truth.outcome.shape[-1]
    measured["believed_r_1"] = _number(believed.mean())
    measured["outside_fraction"] = float(outside.double().mean())
    measured |= {"targets": len(targets), "reachable_targets": many, "starts": solution.controls.shape[1]}
    # What r_T looks at beyond the one answer is no part of finding it, and stands beside the ledger.
    measured |= {"candidates": len(curve), "resimulations": count_resimulations(solution)}
    measured |= asdict(ledger)
    # Where there is a simulator nothing is merely believed.
    measured["status"] = {status.name.lower(): counts[status] for status in Status if status != Status.BELIEVED}
    return measured


def measure_belief(
    task: Task,
    targets: Targets,
    solution: Solution,
    answers: Answers,
    ledger: Ledger,
    held_out: Mapping[str, float],
    outside: Tensor,
) -> dict[str, object]:
    """The metrics of a route whose answers nothing can simulate.

    Args:
        held_out: what its network errs by on data that it has not seen, by name.
        outside: which answers lie outside of the data, `(n_targets,)`.
    """
    rows, steps = targets.valid, solution.steps_to_tolerance
    many, hits = int(rows.sum()), answers.status == Status.BELIEVED
    measured: dict[str, object] = {"believed_fraction": int(hits.sum()) / many}
    measured |= _spread("believed_miss", answers.believed_miss[rows])
    measured |= held_out
    # What a hit that is believed is off by at most, with the 90 % that the bound of the error has.
    worst = float(answers.believed_miss[hits].max()) if hits.any() else None
    measured["hit_miss_p90"] = None if worst is None else worst + held_out["held_out_miss_p90"]
    measured["outside_data_fraction"] = int(outside.sum()) / many
    measured["arrived_fraction"] = _share_arrived(solution)
    measured |= _spread("steps_to_tolerance", steps[steps >= 0].double(), ("median", "p90"))
    measured["outside_fraction"] = float(task.box.is_outside(answers.controls[rows]).double().mean())
    # Nothing tells which targets are out of reach.
    measured |= {"targets": len(targets), "reachable_targets": many, "starts": solution.controls.shape[1]}
    measured |= asdict(ledger)
    counts = answers.status.bincount(minlength=len(Status)).tolist()
    measured["status"] = {status.name.lower(): counts[status] for status in Status if status != Status.SOLVED}
    return measured


def _share_arrived(solution: Solution) -> float:
    """The share of the starts, of those that were begun, that their route believes to have arrived."""
    begun = solution.start_status != StartStatus.NOT_BEGUN
    return float((solution.steps_to_tolerance >= 0)[begun].double().mean())


def follow_descents(
    task: Task, targets: Targets, solution: Solution, device: torch.device | str = "cpu", most: int | None = None
) -> tuple[Tensor, Tensor]:
    """How the answers of the first targets came closer, step by step, `(n_steps + 1, n_kept)` each.

    Args:
        most: simulations; so many targets are followed as these are enough for, but at least one.

    Returns:
        The squared believed miss relative to the span, which with one outcome is the loss that the solver descends; and
        the true miss, re-simulated.
    """
    history, valid = solution.history, targets.only_valid()
    kept, steps = history.believed_miss.shape[1], len(history.believed_miss)
    controls = history.controls[:, torch.arange(kept), solution.best()[:kept]]
    # Most of a path is an answer that has stopped: only where it moved there is something to simulate.
    moved = torch.cat([torch.ones(1, kept, dtype=torch.bool), (controls[1:] != controls[:-1]).any(-1)])
    if most is not None:
        kept = max(1, int((moved.sum(0).cumsum(0) <= most).sum()))
        controls, moved = controls[:, :kept], moved[:, :kept]
    rows, best = torch.arange(kept), solution.best()[:kept]
    loss = (history.believed_miss[:, rows, best].double() / task.distance.span).square()
    step, row = moved.nonzero(as_tuple=True)
    miss = simulate_closely(task, controls[step, row], valid.conditions[row], valid.targets[row], device).miss
    misses = torch.empty(steps, kept, dtype=miss.dtype)
    misses[step, row] = miss
    last = torch.where(moved, torch.arange(steps)[:, None], 0).cummax(0).values
    return loss, misses.gather(0, last)


def trace_beliefs(task: Task, solution: Solution, route: str) -> list[tuple[object, ...]]:
    """`trace_descents` of a task without a simulator: there is a loss, and no miss."""
    history = solution.history.believed_miss
    rows = torch.arange(history.shape[1])
    loss = (history[:, rows, solution.best()[: len(rows)]].double() / task.distance.span).square()
    return [(route, step, value, "", "", "") for step, value in enumerate(loss.nanquantile(0.5, dim=1).tolist())]


def trace_descents(
    task: Task,
    targets: Targets,
    solution: Solution,
    route: str,
    device: torch.device | str = "cpu",
    most: int | None = None,
) -> list[tuple[object, ...]]:
    """`follow_descents` as rows of `CURVE_COLUMNS`: the median of the loss, and the 50, 10 and 90 per cent quantiles of
    the miss."""
    losses, misses = follow_descents(task, targets, solution, device, most)
    low, middle, high = misses.nanquantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), dim=1)
    table = torch.stack([losses.nanquantile(0.5, dim=1), middle, low, high], dim=1).tolist()
    return [(route, step, *row) for step, row in enumerate(table)]


def compute_r_t(task: Task, targets: Targets, truth: Simulated) -> Tensor:
    """The published metric r_T for T = 1 ... n_candidates, and its spread, `(n_candidates, 4)`.

    The mean over targets of the least squared re-simulated error among the T candidates that the
    route ranks first, and the lower quartile, median and upper quartile of it over targets; the squared
    error is the mean over outcome dimensions (Ren, Padilla, Malof 2020, equation 3). It is in raw units
    squared, as published, where the outcomes have one unit and one tolerance, and elsewhere in
    tolerances squared.
    """
    differences = truth.outcome - targets.only_valid().targets[:, None]
    squared = (differences / task.distance.units).square().mean(-1)
    least = squared.nan_to_num(nan=torch.inf, posinf=torch.inf).cummin(dim=1).values
    ordered = least.sort(dim=0).values
    last = len(ordered) - 1
    # The nearest rank, as for every spread here: no arithmetic with infinities.
    return torch.stack([least.mean(0), *(ordered[round(share * last)] for share in (0.25, 0.5, 0.75))], dim=-1)


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
