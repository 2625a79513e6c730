"""Simulate every answer of every route again, and judge it."""

import json

from aimback.core.files import write_table, write_text
from aimback.core.ledger import Ledger
from aimback.data.solution import load_solution
from aimback.data.targets import load_targets
from aimback.evaluate.distinct import find_distinct
from aimback.evaluate.growth import trace_growth
from aimback.evaluate.judge import find_reachable, judge, resimulate
from aimback.evaluate.metrics import compute_r_t, measure, trace_descents
from aimback.evaluate.tables import CURVE_COLUMNS, write_answers, write_distinct, write_r_t
from aimback.workflow.progress import progress_bar
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, device, routes = job.task, job.settings.hardware.device(), job.settings.routes
    targets = load_targets(job.find("data/targets.npz"), task)
    solutions, truths, answers, steps = {}, {}, {}, []
    budget = job.settings.budget.simulations
    most = None if budget is None else budget // (4 * len(routes))
    with progress_bar(f"{job.name}: simulating answers", len(routes)) as bar, job.meter("evaluate/answers.csv"):
        for route in routes:
            solution = load_solution(job.find(f"routes/{route}/solution.npz"), task, int(targets.valid.sum()))
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
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    write_answers(folder / "answers.csv", task, targets, answers)
    write_distinct(folder / "distinct.csv", task, distinct)
    write_table(folder / "curves.csv", CURVE_COLUMNS, steps)
    write_r_t(folder / "r_t.csv", {route: compute_r_t(task, targets, truth) for route, truth in truths.items()})


def _read_ledger(job: Job, route: str) -> Ledger:
    return Ledger(**json.loads(job.find(f"routes/{route}/ledger.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
