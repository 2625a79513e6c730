"""The direct route: descend through the simulator itself."""

from aimback.core.ledger import Counted, Ledger
from aimback.data.identity import identity
from aimback.solve.smoothed import Smoothed
from aimback.workflow.solving import solve_targets
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, smoothing = job.task, job.settings.smoothing
    ledger, generator = Ledger(), job.generator("smoothing")
    forward = Counted(task, ledger, simulates=True)
    smoothed = [
        Smoothed(forward, task.box, sigma, smoothing.samples, smoothing.order, generator) for sigma in smoothing.sigmas
    ]
    solve_targets(job, forward, ledger, "optimise", identity(task), before=smoothed)


if __name__ == "__main__":
    main()
