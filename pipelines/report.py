"""Draw the figures of a task."""

import json

import numpy as np
import torch

from aimback.data.archive import read_arrays
from aimback.data.solution import load_solution
from aimback.data.targets import load_targets
from aimback.evaluate.tables import R_T_COLUMNS, read_answers, read_by_route, read_columns
from aimback.learn.surrogate import Surrogate
from aimback.report.evidence import PICTURES, declare_arrays
from aimback.report.gallery import FIGURES, draw_figures
from aimback.workflow.progress import progress_bar
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, settings = job.task, job.settings
    targets = load_targets(job.find("data/targets.npz"), task)
    count = int(targets.valid.sum())
    network = None
    if shown := settings.compared.get("surrogate"):
        network = f"routes/networks/{settings.invert[shown].network}"
        revision = f"routes/{shown}/revision"  # has the network that answered last, where that is not the first one
        place = revision if (job.find(revision) / "weights.safetensors").exists() else network
    answers = [row for row in read_answers(job.find("evaluate/answers.csv")) if not row.problem]
    result = "miss" if task.has_simulator else "training"
    with progress_bar(f"{job.name}: drawing", len(FIGURES)) as bar, job.meter(f"figures/{result}.png"):
        draw_figures(
            job.outputs / "figures",
            job.outputs / "interactive",
            job.name,
            task,
            surrogate=Surrogate.load(job.find(f"{place}/weights.safetensors"), task, dtype=torch.float64)
            if network
            else None,
            targets=targets.only_valid(),
            solutions={
                route: load_solution(job.find(f"routes/{route}/solution.npz"), task, count) for route in settings.routes
            },
            compared=settings.compared,
            misses={
                route: torch.tensor([row.miss for row in answers if row.route == route], dtype=torch.float64)
                for route in settings.routes
            },
            r_t=read_by_route(job.find("evaluate/r_t.csv"), R_T_COLUMNS),
            training=read_columns(job.find(f"{network}/history.csv")) if network else {},
            pictures=_read_pictures(job),
            solver=settings.solver,
            generator=job.generator("sweep"),
            progress=bar.advance,
            budget=job.settings.budget.simulations,
        )


def _read_pictures(job: Job) -> dict[str, dict[str, np.ndarray]]:
    """What the claims look like; only of those that were examined."""
    if not job.settings.diagnose.enabled or not {"surrogate", "direct"} <= job.settings.compared.keys():
        return {}
    examined = json.loads(job.find("evaluate/claims/claims.json").read_text(encoding="utf-8"))
    files = {
        figure: job.find(f"evaluate/claims/pictures/{key}.npz")
        for figure, (key, _) in PICTURES.items()
        if key in examined
    }
    return {
        figure: read_arrays(file, declare_arrays(figure, len(job.task.box)), job.task) for figure, file in files.items()
    }


if __name__ == "__main__":
    main()
