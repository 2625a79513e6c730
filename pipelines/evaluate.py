"""Simulate every answer of every route again, and judge it; where there is no simulator, say how far to trust it."""

import json
import math
from typing import Any

import torch
from torch import Tensor

from aimback.core.files import write_table, write_text
from aimback.core.ledger import Ledger
from aimback.core.problem import Solution
from aimback.data.dataset import load_dataset
from aimback.data.solution import load_solution
from aimback.data.targets import Targets, load_targets
from aimback.evaluate.distinct import find_distinct
from aimback.evaluate.domain import Domain
from aimback.evaluate.growth import trace_growth
from aimback.evaluate.judge import believe, find_reachable, judge, resimulate
from aimback.evaluate.metrics import compute_r_t, measure, measure_belief, trace_beliefs, trace_descents
from aimback.evaluate.tables import CURVE_COLUMNS, write_answers, write_distinct, write_r_t
from aimback.workflow.progress import progress_bar
from aimback.workflow.stage import Job, stage

# What DVC shows of a route, and which of its misses, as digits: DVC rounds to five places, and 1e-8 would be nothing.
# No seconds: what DVC compares it hashes, and clocks differ between two runs.
_SHOWN = ("solved_fraction", "simulations"), "miss_median"
_SHOWN_OF_BELIEFS = ("believed_fraction", "hit_miss_p90"), "believed_miss_median"


@stage
def main(job: Job) -> None:
    task, device, routes = job.task, job.device, job.settings.routes
    targets = load_targets(job.find("data/targets.npz"), task)
    if not task.has_simulator:
        _believe(job, targets)
        return
    solutions, truths, answers, steps = {}, {}, {}, []
    budget = job.settings.budget.simulations
    most = None if budget is None else budget // (4 * len(routes))
    with progress_bar(f"{job.name}: simulating answers", len(routes)) as bar, job.meter("evaluate/answers.csv"):
        for route in routes:
            solution = _load_solution(job, route, targets)
            truth = resimulate(task, targets, solution, device)
            solutions[route], truths[route] = solution, truth
            answers[route] = judge(task, targets, solution, truth)
            steps += trace_descents(task, targets, solution, route, device, most)
            bar.advance(1)
        reachable = find_reachable(answers.values())
    metrics = {
        route: measure(
            task, targets, solutions[route], truths[route], answers[route], _read_ledger(job, route), reachable
        )
        for route in routes
    }
    distinct = {route: find_distinct(task, targets, solutions[route], truths[route]) for route in routes}
    for route in routes:
        growth = trace_growth(task, targets, solutions[route], truths[route], reachable)
        metrics[route] |= {"distinct_answers_median": distinct[route].find_median(), "solved_by_starts": growth}
    folder = job.outputs / "evaluate"
    _write_metrics(job, metrics)
    write_answers(folder / "answers.csv", task, targets, answers)
    write_distinct(folder / "distinct.csv", task, distinct)
    write_table(folder / "curves.csv", CURVE_COLUMNS, steps)
    write_r_t(folder / "r_t.csv", {route: compute_r_t(task, targets, truth) for route, truth in truths.items()})


def _believe(job: Job, targets: Targets) -> None:
    """Write the same files from what the routes believe, what their networks erred by, and where the data are."""
    task, folder = job.task, job.outputs / "evaluate"
    dataset = load_dataset(job.find("data/dataset.npz"), task)
    metrics, answers, further, steps = {}, {}, {}, []
    with job.meter("evaluate/answers.csv"):
        domain = Domain(dataset.controls, dataset.conditions, task.box, task.conditions)
        for route in job.settings.routes:
            solution, held_out = _load_solution(job, route, targets), _read_held_out(job, route)
            answer = believe(task, targets, solution)
            outside = domain.is_outside(answer.controls, targets.conditions)
            answers[route], further[route] = answer, _list_further(job, answer.believed_miss, outside, held_out)
            ledger = _read_ledger(job, route)
            metrics[route] = measure_belief(task, targets, solution, answer, ledger, held_out, outside)
            steps += trace_beliefs(task, solution, route)
    _write_metrics(job, metrics)
    write_answers(folder / "answers.csv", task, targets, answers, further)
    write_distinct(folder / "distinct.csv", task, {})
    write_table(folder / "curves.csv", CURVE_COLUMNS, steps)
    write_r_t(folder / "r_t.csv", {})


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


def _load_solution(job: Job, route: str, targets: Targets) -> Solution:
    return load_solution(job.find(f"routes/{route}/solution.npz"), job.task, int(targets.valid.sum()))


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
