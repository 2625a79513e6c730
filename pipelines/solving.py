"""What all routes share: the same targets, the same starts, one ledger."""

import dataclasses
import json

import torch

from aimback.files import write_text
from aimback.ledger import Counted, Ledger
from aimback.problem import InverseProblem, Solution
from aimback.solution import save_solution
from aimback.solve.multistart import solve
from aimback.solve.solver import Solver
from aimback.targets import Targets, load_targets
from pipelines.progress import progress_bar
from pipelines.stage import Job


def solve_targets(job: Job, forward: Counted, ledger: Ledger, folder: str) -> None:
    """Invert `forward` at every valid target and write the solution and the ledger into `folder`."""
    result = f"{folder}/solution.npz"
    targets = load_targets(job.made("data/targets.npz"), job.task)
    with job.metered(result):
        solution = solved(job, targets, forward, job.settings.solver, job.settings.hardware.torch_dtype)
    save_solution(job.outputs / result, solution, job.task)
    write_text(job.outputs / folder / "ledger.json", json.dumps(dataclasses.asdict(ledger), indent=1) + "\n")


def solved(
    job: Job, targets: Targets, forward: Counted, solver: Solver, dtype: torch.dtype, margin: float = 0.0
) -> Solution:
    """Invert `forward` at every valid target; `margin` is left free at each wall of the box."""
    task, device = job.task, job.settings.hardware.device()
    targets = targets.only_valid()
    starts = None
    if solver.starts_from == "prior":
        drawn = task.draw_starts(len(targets) * solver.starts, job.generator("prior starts"))
        starts = drawn.unflatten(0, (len(targets), solver.starts))
    span = task.outcomes.upper - task.outcomes.lower
    problem = InverseProblem(
        targets.targets.to(device, dtype),
        targets.conditions.to(device, dtype),
        task.box.shrunk(margin) if margin else task.box,
        task.tolerance,
        float(torch.linalg.vector_norm(span)),
        starts,
    )
    with progress_bar(f"{job.name}: solving", len(targets), "solved") as bar:
        return solve(forward, problem, solver, job.generator("starts"), progress=bar.reached)
