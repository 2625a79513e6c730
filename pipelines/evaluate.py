"""Simulate every answer of every route again, and judge it; where there is no simulator, say how far to trust it."""

import json
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from aimback.core.files import write_table, write_text
from aimback.core.ledger import Ledger
from aimback.core.problem import Solution
from aimback.data.archive import Stored, count_parts, read_arrays
from aimback.data.dataset import load_dataset
from aimback.data.solution import load_solution
from aimback.data.targets import Targets, load_targets
from aimback.evaluate.distinct import DistinctAnswers, find_distinct
from aimback.evaluate.domain import Domain
from aimback.evaluate.judge import believe, find_reachable, judge, resimulate
from aimback.evaluate.metrics import Measures, trace_beliefs, trace_descents
from aimback.evaluate.tables import CURVE_COLUMNS, list_answers, list_distinct, open_table, write_r_t
from aimback.workflow.progress import progress_bar
from aimback.workflow.stage import Job, stage

# What DVC shows of a route, and which of its misses, as digits: DVC rounds to five places, and 1e-8 would be nothing.
# No seconds: what DVC compares it hashes, and clocks differ between two runs.
_SHOWN = ("solved_fraction", "simulations"), "miss_median"
_SHOWN_OF_BELIEFS = ("believed_fraction", "hit_miss_p90"), "believed_miss_median"


@stage
def main(job: Job) -> None:
    task, device, routes = job.task, job.device, job.settings.routes
    if not task.has_simulator:
        _believe(job)
        return
    measures, steps = {route: Measures(task, job.outputs) for route in routes}, []
    budget = job.settings.budget.simulations
    most = None if budget is None else budget // (4 * len(routes))
    folder, parts = job.outputs / "evaluate", count_parts(job.find("data/targets.npz"))
    with (
        progress_bar(f"{job.name}: simulating answers", parts * len(routes)) as bar,
        job.meter("evaluate/answers.csv"),
        open_table(folder / "answers.csv") as table,
        open_table(folder / "distinct.csv") as choice,
    ):
        for part, (first, targets) in enumerate(_load_targets(job, parts)):
            solutions, truths, answers = {}, {}, {}
            for route in routes:
                solutions[route] = solution = _load_solution(job, route, targets, part)
                truths[route] = truth = resimulate(task, targets, solution, device)
                answers[route] = judge(task, targets, solution, truth)
                if part == 0:  # which has the paths
                    steps += trace_descents(task, targets, solution, route, device, most)
                bar.advance(1)
            reachable = find_reachable(answers.values())
            bounds = {route: _read_bounds(job, route, targets) for route in routes}
            bounded = any(of is not None for of in bounds.values())
            for route, truth in truths.items():
                solution, answer = solutions[route], answers[route]
                distinct = find_distinct(task, targets, solution, truth)
                measures[route].enter(targets, solution, truth, answer, reachable)
                measures[route].enter_choice(targets, solution, truth, distinct, reachable)
                further = {"miss_bound": torch.full_like(answer.miss, torch.nan)} if bounded else {}
                if (bound := bounds[route]) is not None:
                    measures[route].enter_bounds(answer, bound)
                    further = {"miss_bound": bound}
                table.add(list_answers(task, targets, route, answer, further, first), shown=part == 0)
                choice.add(list_distinct(task, route, distinct, first), shown=part == 0)
    _write_metrics(
        job,
        {
            route: {**of.collect(_read_ledger(job, route)), **of.collect_choice(), **of.collect_bounds()}
            for route, of in measures.items()
        },
    )
    write_table(folder / "curves.csv", CURVE_COLUMNS, steps)
    write_r_t(folder / "r_t.csv", {route: of.trace_r_t() for route, of in measures.items()})


def _believe(job: Job) -> None:
    """Write the same files from what the routes believe, what their networks erred by, and where the data are."""
    task, folder, routes = job.task, job.outputs / "evaluate", job.settings.routes
    dataset, parts = load_dataset(job.find("data/dataset.npz"), task), count_parts(job.find("data/targets.npz"))
    measures, steps = {route: Measures(task, job.outputs) for route in routes}, []
    held_out = {route: _read_held_out(job, route) for route in routes}
    with job.meter("evaluate/answers.csv"), open_table(folder / "answers.csv") as table:
        domain = Domain(dataset.controls, dataset.conditions, task.box, task.conditions)
        for part, (first, targets) in enumerate(_load_targets(job, parts)):
            for route in routes:
                solution = _load_solution(job, route, targets, part)
                answer = believe(task, targets, solution)
                outside = domain.is_outside(answer.controls, targets.conditions)
                further = _list_further(job, answer.believed_miss, outside, held_out[route])
                table.add(list_answers(task, targets, route, answer, further, first), shown=part == 0)
                measures[route].enter_belief(targets, solution, answer, outside)
                if part == 0:  # which has the paths
                    steps += trace_beliefs(task, solution, route)
    _write_metrics(
        job, {route: of.collect_belief(_read_ledger(job, route), held_out[route]) for route, of in measures.items()}
    )
    with open_table(folder / "distinct.csv") as choice:
        choice.add(list_distinct(task, "", DistinctAnswers.none(task)))
    write_table(folder / "curves.csv", CURVE_COLUMNS, steps)
    write_r_t(folder / "r_t.csv", {})


def _load_targets(job: Job, parts: int) -> Iterator[tuple[int, Targets]]:
    """Part by part, each with the number of its first target."""
    first = 0
    for part in range(parts):
        targets = load_targets(job.find("data/targets.npz"), job.task, part)
        yield first, targets
        first += len(targets)


def _list_further(job: Job, believed: Tensor, outside: Tensor, held_out: dict[str, float]) -> dict[str, Tensor]:
    """What is told of each answer: the bounds that hold with 90 %, and whether it lies outside of the data."""
    known = torch.where(believed.isnan(), torch.nan, 1.0)
    axes = job.task.outcomes.axes
    bounds = {f"error 90 % {axis.label}": known * held_out[f"held_out_error_{axis.name}_p90"] for axis in axes}
    return {**bounds, "miss 90 %": believed + held_out["held_out_miss_p90"], "outside_data": known * outside}


def _read_held_out(job: Job, route: str) -> dict[str, float]:
    network = job.settings.invert[route].network
    metrics = json.loads(job.find(f"routes/networks/{network}/metrics.json").read_text(encoding="utf-8"))
    return {name: value for name, value in metrics.items() if name.startswith("held_out_")}


def _read_bounds(job: Job, route: str, targets: Targets) -> Tensor | None:
    """What a route that was calibrated says its misses are at most, `(n_targets,)`, NaN in invalid rows."""
    if route not in job.settings.invert or not job.settings.invert[route].calibration:
        return None
    declared = {"miss_bound": Stored("float64", (int(targets.valid.sum()),))}
    stored = read_arrays(job.find(f"routes/{route}/revision/bounds.npz"), declared, job.task)
    bounds = torch.full((len(targets),), torch.nan, dtype=torch.float64)
    bounds[targets.valid] = torch.from_numpy(stored["miss_bound"])
    return bounds


def _load_solution(job: Job, route: str, targets: Targets, part: int) -> Solution:
    return load_solution(job.find(f"routes/{route}/solution.npz"), job.task, int(targets.valid.sum()), part)


def _write_metrics(job: Job, metrics: dict[str, dict[str, Any]]) -> None:
    file = job.outputs / "evaluate" / "metrics.json"
    write_text(file, json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    names, miss = _SHOWN if job.task.has_simulator else _SHOWN_OF_BELIEFS
    # One file a route, which makes it a line of `dvc metrics show`.
    for route, measured in metrics.items():
        shown = {name: measured[name] for name in names}
        shown[f"{miss}_log10"] = math.log10(measured[miss]) if measured[miss] else None
        write_text(job.outputs / "summary" / f"{route}.json", json.dumps(shown, indent=1, allow_nan=False) + "\n")
    counts = [(route, *pair) for route, measured in metrics.items() for pair in measured["status"].items() if pair[1]]
    write_table(file.with_name("statuses.csv"), ("route", "status", "targets"), counts)


def _read_ledger(job: Job, route: str) -> Ledger:
    return Ledger(**json.loads(job.find(f"routes/{route}/ledger.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
