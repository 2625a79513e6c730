"""A direct route: descend through the simulator itself."""

from aimback.core.ledger import Counted, Ledger
from aimback.data.identity import identify
from aimback.solve.smoothed import smooth
from aimback.workflow.solving import solve_targets
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, route, ledger = job.task, job.settings.optimise[job.route], Ledger()
    forward = Counted(task, ledger, simulates=True, limit=job.settings.budget.simulations)
    smoothed = smooth(forward, task.box, route.smoothing, job.generator("smoothing"))
    solve_targets(job, route, forward, ledger, identify(task) if task.compiles else None, before=smoothed)


if __name__ == "__main__":
    main()
