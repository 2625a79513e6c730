"""Simulate every answer of every route again, and judge it."""

import json

from aimback.core.files import write_text
from aimback.core.ledger import Ledger
from aimback.data.solution import load_solution
from aimback.data.targets import load_targets
from aimback.evaluate.judge import (
    CURVE_COLUMNS,
    R_T_COLUMNS,
    curves,
    find_reachable,
    judge,
    measures,
    r_t_rows,
    resimulate,
    save_answers,
    save_table,
)
from aimback.evaluate.routes import ROUTES
from aimback.workflow.progress import progress_bar
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, device = job.task, job.settings.hardware.device()
    targets = load_targets(job.made("data/targets.npz"), task)
    solutions, truths, answers, steps, candidates = {}, {}, {}, [], []
    with progress_bar(f"{job.name}: simulating answers", len(ROUTES)) as bar, job.metered("evaluate/answers.csv"):
        for route, stages in ROUTES.items():
            solution = load_solution(job.made(f"{stages.solving}/solution.npz"), task, int(targets.valid.sum()))
            truth = resimulate(task, targets, solution, device)
            solutions[route], truths[route] = solution, truth
            answers[route] = judge(task, targets, solution, truth)
            steps += curves(task, targets, solution, route, device)
            candidates += r_t_rows(route, truth)
            bar.advance(1)
        reachable = find_reachable(answers.values())
    metrics = {
        route: measures(
            task, targets, solutions[route], truths[route], answers[route], _ledger(job, stages.solving), reachable
        )
        for route, stages in ROUTES.items()
    }
    written = job.outputs / "evaluate"
    write_text(written / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    save_answers(written / "answers.csv", task, targets, answers)
    save_table(written / "curves.csv", CURVE_COLUMNS, steps)
    save_table(written / "r_t.csv", R_T_COLUMNS, candidates)


def _ledger(job: Job, folder: str) -> Ledger:
    return Ledger(**json.loads(job.made(f"{folder}/ledger.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
