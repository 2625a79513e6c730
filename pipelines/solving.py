"""What the two routes share: the same targets, the same starts, the same solver, one ledger."""

import dataclasses
import json

import torch

from aimback.files import write_text
from aimback.ledger import Counted, Ledger
from aimback.problem import InverseProblem
from aimback.solution import save_solution
from aimback.solve.multistart import solve
from aimback.targets import load_targets
from pipelines.progress import progress_bar
from pipelines.stage import Job


def solve_targets(job: Job, forward: Counted, ledger: Ledger, folder: str) -> None:
    """Invert `forward` at every valid target and write the solution and the ledger into `folder`."""
    task, hardware = job.task, job.settings.hardware
    device, dtype = hardware.device(), hardware.torch_dtype
    targets = load_targets(job.made("data/targets.npz"), task).only_valid()
    span = task.outcomes.upper - task.outcomes.lower
    problem = InverseProblem(
        targets.targets.to(device, dtype),
        targets.conditions.to(device, dtype),
        task.box,
        task.tolerance,
        float(torch.linalg.vector_norm(span)),
    )
    result = f"{folder}/solution.npz"
    with progress_bar(f"{job.name}: solving", len(targets), "solved") as bar, job.metered(result):
        solution = solve(forward, problem, job.settings.solver, job.generator("starts"), progress=bar.reached)
    save_solution(job.outputs / result, solution, task)
    write_text(job.outputs / folder / "ledger.json", json.dumps(dataclasses.asdict(ledger), indent=1) + "\n")
