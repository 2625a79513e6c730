"""Measure every claim about the two routes, and decide it."""

import json

import torch

from aimback.core.files import write_text
from aimback.data.archive import write_arrays
from aimback.data.solution import load_solution
from aimback.data.targets import load_targets
from aimback.diagnose.all_claims import EXAMINATIONS, examine
from aimback.diagnose.case import Subject
from aimback.evaluate.routes import ROUTES
from aimback.learn.surrogate import Surrogate
from aimback.workflow.progress import progress_bar
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, settings, device = job.task, job.settings.diagnose, job.settings.hardware.device()
    weights = ["surrogate/weights", *(f"replicas/{number}" for number in range(1, settings.replicas + 1))]
    targets = load_targets(job.made("data/targets.npz"), task).only_valid()
    subject = Subject(
        task=task,
        networks=[Surrogate.load(job.made(f"{file}.safetensors"), task, device, torch.float64) for file in weights],
        targets=targets,
        solutions={
            name: load_solution(job.made(f"{route.solving}/solution.npz"), task, len(targets))
            for name, route in ROUTES.items()
        },
        solver=job.settings.solver,
        generator=lambda purpose: job.generator(f"diagnose: {purpose}"),
        settings=settings,
        device=device,
    )
    written = job.outputs / "diagnose"
    with job.metered("diagnose/metrics.json"):
        with progress_bar(f"{job.name}: deciding claims", len(EXAMINATIONS)) as bar:
            diagnosis = examine(subject, bar.advance)
        claims = [claim for claim, _ in diagnosis]
        write_text(
            written / "metrics.json",
            json.dumps({claim.key: claim.metrics() for claim in claims}, indent=1, allow_nan=False) + "\n",
        )
    write_text(written / "claims.json", json.dumps({claim.key: claim.texts() for claim in claims}, indent=1) + "\n")
    for claim, pictures in diagnosis:
        write_arrays(written / "pictures" / f"{claim.key}.npz", pictures, task)


if __name__ == "__main__":
    main()
