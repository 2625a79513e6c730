"""A direct route: descend through the simulator itself."""

from aimback.core.ledger import Counted, Ledger
from aimback.data.identity import identify
from aimback.solve.smoothed import Smoothed
from aimback.workflow.solving import solve_targets
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, route = job.task, job.settings.optimise[job.route]
    ledger, generator, smoothing = Ledger(), job.generator("smoothing"), route.smoothing
    forward = Counted(task, ledger, simulates=True, limit=job.settings.budget.simulations)
    smoothed = [
        Smoothed(forward, task.box, sigma, smoothing.samples, smoothing.order, generator) for sigma in smoothing.sigmas
    ]
    solve_targets(job, route, forward, ledger, identify(task) if task.compiles else None, before=smoothed)


if __name__ == "__main__":
    main()
