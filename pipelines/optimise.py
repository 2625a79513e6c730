"""The direct route: descend through the simulator itself."""

from aimback.identity import identity
from aimback.ledger import Counted, Ledger
from pipelines.solving import solve_targets
from pipelines.stage import Job, stage


@stage
def main(job: Job) -> None:
    ledger = Ledger()
    solve_targets(job, Counted(job.task, ledger, simulates=True), ledger, "optimise", identity(job.task))


if __name__ == "__main__":
    main()
