"""The hybrid route: what the network proposes, simulated, and solved from there where it misses.

The solver is the one of the other routes, with one start a target: the proposal. All but cma_es look at it before
they move; cma_es draws its first generation around it.
"""

import dataclasses
import json

import torch

from aimback.core.ledger import Counted, Ledger
from aimback.data.identity import identity
from aimback.learn.proposer import Proposer
from aimback.workflow.solving import solve_targets
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, hardware = job.task, job.settings.hardware
    proposer = Proposer.load(job.made("hybrid/weights.safetensors"), task, hardware.device(), hardware.torch_dtype)
    ledger = Ledger(**json.loads(job.made("hybrid/ledger.json").read_text(encoding="utf-8")))
    solver = dataclasses.replace(job.settings.solver, starts=1, starts_from="prior")
    if job.settings.hybrid.refine == "outside_tolerance":
        # A start this close is done: the look at the proposal itself, step 0, is then all that it costs.
        span = float(torch.linalg.vector_norm(task.outcomes.upper - task.outcomes.lower))
        solver = dataclasses.replace(solver, precision=task.tolerance / span)
    solve_targets(
        job, Counted(task, ledger, simulates=True), ledger, "refine", identity(task), solver=solver, propose=proposer
    )


if __name__ == "__main__":
    main()
