"""A hybrid route: what the network proposes, simulated, and solved from there where it misses.

The solver begins with one start a target: the proposal. All but cma_es look at it before they move; cma_es draws its
first generation around it.
"""

import json

from aimback.core.ledger import Counted, Ledger
from aimback.data.identity import identify
from aimback.learn.proposer import Proposer
from aimback.workflow.solving import solve_targets
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, route = job.task, job.settings.refine[job.route]
    folder = f"routes/proposers/{route.network}"
    proposer = Proposer.load(job.find(f"{folder}/weights.safetensors"), task, job.device, route.torch_dtype)
    ledger = Ledger(**json.loads(job.find(f"{folder}/ledger.json").read_text(encoding="utf-8")))
    route = route.stop_where(job.settings.amortise[route.network].refine, task)
    about = identify(task) if task.compiles else None
    forward = Counted(task, ledger, simulates=True, limit=job.settings.budget.simulations)
    solve_targets(job, route, forward, ledger, about, propose=proposer)


if __name__ == "__main__":
    main()
