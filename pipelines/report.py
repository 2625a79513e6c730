"""Draw the figures of a task."""

import csv
import math

import numpy as np
import torch

from aimback.data.archive import read_arrays
from aimback.data.solution import load_solution
from aimback.data.targets import load_targets
from aimback.evaluate.routes import ROUTES
from aimback.learn.surrogate import Surrogate
from aimback.report.evidence import PICTURES, declared
from aimback.report.gallery import FIGURES, draw_figures
from aimback.workflow.progress import progress_bar
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task = job.task
    targets = load_targets(job.made("data/targets.npz"), task)
    surrogate = Surrogate.load(job.made("surrogate/weights.safetensors"), task, dtype=torch.float64)
    count = int(targets.valid.sum())
    solutions = {
        name: load_solution(job.made(f"{route.solving}/solution.npz"), task, count) for name, route in ROUTES.items()
    }
    history = _columns(job, "surrogate/history.csv")
    with progress_bar(f"{job.name}: drawing", len(FIGURES)) as bar, job.metered("figures/miss.png"):
        draw_figures(
            job.outputs / "figures",
            job.outputs / "interactive",
            job.name,
            task,
            surrogate=surrogate,
            targets=targets.only_valid(),
            solutions=solutions,
            misses=_misses(job),
            r_t=_r_t(job),
            training={name: [float(value) for value in values] for name, values in history.items()},
            pictures=_pictures(job),
            solver=job.settings.solver,
            generator=job.generator("sweep"),
            progress=bar.advance,
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


def _r_t(job: Job) -> dict[str, np.ndarray]:
    table = _columns(job, "evaluate/r_t.csv")
    numbers = np.array(
        [[float(cell or "nan") for cell in table[column]] for column in ("T", "mean", "q25", "q75")]
    ).reshape(4, -1)
    return {route: numbers[:, np.array(table["route"]) == route].T for route in ROUTES}


def _pictures(job: Job) -> dict[str, dict[str, np.ndarray]]:
    """What the claims look like; only of those that were examined."""
    files = {figure: job.made(f"diagnose/pictures/{key}.npz") for figure, (key, _) in PICTURES.items()}
    return {
        figure: read_arrays(file, declared(figure, len(job.task.box)), job.task)
        for figure, file in files.items()
        if file.is_file()
    }


def _columns(job: Job, file: str) -> dict[str, list[str]]:
    with job.made(file).open(newline="", encoding="utf-8") as table:
        header, *rows = csv.reader(table)
    return {name: [row[index] for row in rows] for index, name in enumerate(header)}


if __name__ == "__main__":
    main()
