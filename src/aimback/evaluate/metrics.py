"""The measures of a route, by the names that metrics.json, MLflow and the report give them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from aimback.core.ledger import Ledger
from aimback.core.problem import Solution, StartStatus, Status
from aimback.data.exactness import FACTORS, Simulated, simulate_closely
from aimback.data.targets import Targets
from aimback.evaluate.distinct import DistinctAnswers
from aimback.evaluate.growth import count_growth
from aimback.evaluate.judge import Answers, count_resimulations, find_reachable
from aimback.evaluate.quantiles import Quantiles
from aimback.tasks.base import Task


class Measures:
    """The metrics of a route, gathered part by part of the targets.

    Args:
        folder: where numbers are kept meanwhile, see `Quantiles`.
    """

    def __init__(self, task: Task, folder: Path | None = None) -> None:
        self._task = task
        self._quantiles: dict[str, Quantiles] = defaultdict(lambda: Quantiles(folder))
        self._sums: Counter[str] = Counter()
        self._starts, self._believed = 0, 0.0
        self._status = torch.zeros(len(Status), dtype=torch.int64)
        self._least: Tensor | float = 0.0
        self._solved: Counter[int] = Counter()

    def enter(
        self, targets: Targets, solution: Solution, truth: Simulated, answers: Answers, reachable: Tensor | None = None
    ) -> None:
        """Enter what a part came to.

        Args:
            reachable: which targets the misses are of, and the solved ones a share of, by `find_reachable` of all
                routes; None goes by this one.
        """
        reachable = find_reachable([answers]) if reachable is None else reachable
        self._quantiles["miss"].add(answers.miss[reachable])
        self._quantiles["believed_miss"].add(answers.believed_miss[reachable])
        if self._task.finer(FACTORS[0]) is not None:
            self._quantiles["simulation_error"].add(truth.error[:, 0])
        believed = answers.believed_miss[targets.valid].square() / truth.outcome.shape[-1]
        self._believed += float(believed.sum())
        self._sums["reachable"] += int(reachable.sum())
        self._sums["resimulations"] += count_resimulations(solution)
        self.enter_r_t(targets, truth)
        self._enter(targets, solution, answers)

    def enter_choice(
        self, targets: Targets, solution: Solution, truth: Simulated, distinct: DistinctAnswers, reachable: Tensor
    ) -> None:
        """Enter what there is to choose from in a part, and what fewer starts would have solved."""
        self._quantiles["distinct"].add(distinct.count())
        self._solved.update(count_growth(self._task, targets, solution, truth, reachable))

    def enter_bounds(self, answers: Answers, bounds: Tensor) -> None:
        """Enter what the misses of believed hits are at most, `(n_targets,)`: see `Calibration`."""
        finite = bounds.isfinite()
        self._sums["bounded"] += int(finite.sum())
        self._sums["kept"] += int((answers.miss <= bounds)[finite].sum())
        self._sums["certified"] += int((bounds <= self._task.tolerance).sum())

    def enter_r_t(self, targets: Targets, truth: Simulated) -> None:
        differences = truth.outcome - targets.only_valid().targets[:, None]
        squared = (differences / self._task.distance.units).square().mean(-1)
        least = squared.nan_to_num(nan=torch.inf, posinf=torch.inf).cummin(dim=1).values
        self._least = self._least + least.sum(0)
        for count, column in enumerate(least.T, 1):
            self._quantiles[f"r_{count}"].add(column)

    def trace_r_t(self) -> Tensor:
        """The published metric r_T for T = 1 ... n_candidates, and its spread, `(n_candidates, 4)`.

        The mean over targets of the least squared re-simulated error among the T candidates that the
        route ranks first, and the lower quartile, median and upper quartile of it over targets; the squared
        error is the mean over outcome dimensions (Ren, Padilla, Malof 2020, equation 3). It is in raw units
        squared, as published, where the outcomes have one unit and one tolerance, and elsewhere in
        tolerances squared.
        """
        means = torch.as_tensor(self._least) / len(self._quantiles["r_1"])
        errors = [self._quantiles[f"r_{count}"] for count in range(1, len(means) + 1)]
        quartiles = [[error.find(share) for share in (0.25, 0.5, 0.75)] for error in errors]
        return torch.cat([means[:, None], torch.tensor(quartiles, dtype=means.dtype)], dim=1)

    def enter_belief(self, targets: Targets, solution: Solution, answers: Answers, outside: Tensor) -> None:
        """Enter a part that nothing can simulate.

        Args:
            outside: which answers lie outside of the data, `(n_targets,)`.
        """
        hits = answers.status == Status.BELIEVED
        self._quantiles["believed_miss"].add(answers.believed_miss[targets.valid])
        self._quantiles["hits"].add(answers.believed_miss[hits])
        self._sums["outside_data"] += int(outside.sum())
        self._enter(targets, solution, answers)

    def _enter(self, targets: Targets, solution: Solution, answers: Answers) -> None:
        steps = solution.steps_to_tolerance
        self._quantiles["steps_to_tolerance"].add(steps[steps >= 0])
        self._status += answers.status.bincount(minlength=len(Status))
        self._starts = steps.shape[1]
        self._sums["targets"] += len(targets)
        self._sums["valid"] += int(targets.valid.sum())
        # Of the starts that were begun.
        self._sums["begun"] += int((solution.start_status != StartStatus.NOT_BEGUN).sum())
        self._sums["outside"] += int(self._task.box.is_outside(answers.controls[targets.valid]).sum())

    def collect(self, ledger: Ledger) -> dict[str, object]:
        """The metrics by name; None where there is nothing to say (no start ever arrived)."""
        sums, many = self._sums, self._sums["reachable"]
        measured = self._describe("miss")
        measured |= self._describe("miss", span=self._task.distance.span, name="miss_relative")
        measured |= self._describe("believed_miss")
        if self._task.finer(FACTORS[0]) is not None:
            measured |= self._describe("simulation_error")
        measured["solved_fraction"] = int(self._status[Status.SOLVED]) / many if many else None
        measured |= self._describe_starts()
        curve = self.trace_r_t()[:, 0].tolist()
        for first in sorted({1, min(50, len(curve)), len(curve)}):
            measured[f"r_{first}"] = _number(curve[first - 1])
        # The r_1 that the route itself believes in; with several outcomes a lower bound, as only the farthest one is
        # known.
        measured["believed_r_1"] = _number(self._believed / sums["valid"])
        measured["outside_fraction"] = sums["outside"] / sums["valid"]
        measured |= {"targets": sums["targets"], "reachable_targets": many, "starts": self._starts}
        # What r_T looks at beyond the one answer is no part of finding it, and stands beside the ledger.
        measured |= {"candidates": len(curve), "resimulations": sums["resimulations"]}
        # Where there is a simulator nothing is merely believed.
        return measured | asdict(ledger) | self._count_statuses(Status.BELIEVED)

    def collect_choice(self) -> dict[str, object]:
        """The median number of distinct answers, of the targets that have any; None where none has. And the share of
        the targets within reach that the first starts alone would have solved."""
        distinct, many = self._quantiles["distinct"], self._sums["reachable"]
        shares = {str(number): solved / many for number, solved in sorted(self._solved.items())}
        return {"distinct_answers_median": distinct.find(0.5) if len(distinct) else None, "solved_by_starts": shares}

    def collect_bounds(self) -> dict[str, object]:
        """The share of the bounds that the misses keep, None where there is no bound, and the share of the valid
        targets whose bound is the tolerance at most; nothing where none was entered."""
        sums = self._sums
        if "bounded" not in sums:
            return {}
        coverage = sums["kept"] / sums["bounded"] if sums["bounded"] else None
        return {"coverage": coverage, "certified_fraction": sums["certified"] / sums["valid"]}

    def collect_belief(self, ledger: Ledger, held_out: Mapping[str, float]) -> dict[str, object]:
        """The metrics of a route whose answers nothing can simulate.

        Args:
            held_out: what its network errs by on data that it has not seen, by name.
        """
        sums, hits, many = self._sums, self._quantiles["hits"], self._sums["valid"]
        measured: dict[str, object] = {"believed_fraction": len(hits) / many}
        measured |= self._describe("believed_miss")
        measured |= held_out
        # What a hit that is believed is off by at most, with the 90 % that the bound of the error has.
        measured["hit_miss_p90"] = hits.find(1.0) + held_out["held_out_miss_p90"] if len(hits) else None
        measured["outside_data_fraction"] = sums["outside_data"] / many
        measured |= self._describe_starts()
        measured["outside_fraction"] = sums["outside"] / many
        # Nothing tells which targets are out of reach.
        measured |= {"targets": sums["targets"], "reachable_targets": many, "starts": self._starts}
        return measured | asdict(ledger) | self._count_statuses(Status.SOLVED)

    def _describe(
        self, of: str, parts: Sequence[str] = ("median", "p90", "max"), span: float = 1.0, name: str = ""
    ) -> dict[str, object]:
        found, shares = self._quantiles[of], {"median": 0.5, "p90": 0.9, "max": 1.0}
        return {
            f"{name or of}_{part}": _number(found.find(shares[part]) / span) if len(found) else None for part in parts
        }

    def _describe_starts(self) -> dict[str, object]:
        arrived = len(self._quantiles["steps_to_tolerance"]) / self._sums["begun"]
        return {"arrived_fraction": arrived, **self._describe("steps_to_tolerance", ("median", "p90"))}

    def _count_statuses(self, impossible: Status) -> dict[str, object]:
        counts = self._status.tolist()
        return {"status": {status.name.lower(): counts[status] for status in Status if status != impossible}}


def measure(
    task: Task,
    targets: Targets,
    solution: Solution,
    truth: Simulated,
    answers: Answers,
    ledger: Ledger,
    reachable: Tensor | None = None,
) -> dict[str, object]:
    """The metrics of a route, see `Measures.enter`."""
    measures = Measures(task)
    measures.enter(targets, solution, truth, answers, reachable)
    return measures.collect(ledger)


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


def _number(number: float) -> float | None:
    return number if abs(number) < float("inf") else None
