"""Draw the figures of a task."""

import csv
import math

import torch

from aimback.plots import draw_figures
from aimback.routes import ROUTES
from aimback.solution import load_solution
from aimback.surrogate.network import Surrogate
from aimback.targets import load_targets
from pipelines.stage import Job, stage


@stage
def main(job: Job) -> None:
    task = job.task
    targets = load_targets(job.made("data/targets.npz"), task)
    surrogate = Surrogate.load(job.made("surrogate/weights.safetensors"), task, dtype=torch.float64)
    solutions = {name: load_solution(job.made(f"{route.solving}/solution.npz"), task) for name, route in ROUTES.items()}
    history = _columns(job, "surrogate/history.csv")
    with job.metered("figures/miss.png"):
        draw_figures(
            job.outputs / "figures",
            job.name,
            task,
            surrogate=surrogate,
            targets=targets.only_valid(),
            solutions=solutions,
            misses=_misses(job),
            training={name: [float(value) for value in values] for name, values in history.items()},
        )


def _misses(job: Job) -> dict[str, torch.Tensor]:
    table = _columns(job, "evaluate/answers.csv")
    rows = list(zip(table["route"], table["miss"], table["problem"], strict=True))
    return {
        route: torch.tensor(
            [float(miss) if miss else math.nan for name, miss, problem in rows if name == route and not problem],
            dtype=torch.float64,
        )
        for route in ROUTES
    }


def _columns(job: Job, file: str) -> dict[str, list[str]]:
    with job.made(file).open(newline="", encoding="utf-8") as table:
        header, *rows = csv.reader(table)
    return {name: [row[index] for row in rows] for index, name in enumerate(header)}


if __name__ == "__main__":
    main()
