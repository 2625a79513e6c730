"""Settings that ask for more simulations than there can be, or for derivatives that are not there, are refused."""

from collections.abc import Mapping

from aimback.core.errors import UserError
from aimback.settings.learning import HybridSettings
from aimback.settings.tree import Settings
from aimback.solve.cma_es import CmaEs
from aimback.tasks.base import Task
from aimback.tasks.described import DescribedTask


def check_limits(settings: Settings, tasks: Mapping[str, Task]) -> None:
    """Compare what the routes need on tasks with what the budget and the simulators offer, before the first stage.

    Raises:
        UserError: names the route, and what to choose instead.
    """
    for name, task in tasks.items():
        if not task.has_simulator and (through := [*settings.optimise, *settings.refine]):
            raise UserError(f"task.{name}: has no simulator for the route {through[0]}; choose routes=[surrogate]")
        for route in [*settings.optimise, *settings.refine]:
            searched = settings.optimise.get(route) or settings.refine[route]
            needs = not isinstance(searched.solver, CmaEs) or route in settings.refine
            if needs and isinstance(task, DescribedTask) and task.derivatives == "none":
                raise UserError(f"task.{name}: has no derivatives for the route {route}; routes=[surrogate,cma_es]")
        budget = settings.budget.simulations
        for route, inversion in settings.invert.items():
            for key in ("rounds", "calibration"):
                if getattr(inversion, key) and not task.has_simulator:
                    raise UserError(f"invert.{route}.{key}: task.{name} has no simulator to ask; choose 0")
            asked = 2 * inversion.calibration  # to draw them, and to simulate their answers
            if budget is not None and asked and settings.count_examples() + asked > budget:
                raise UserError(
                    f"budget.simulations: {asked:,} for invert.{route}.calibration do not fit beside the examples in "
                    f"{budget:,}; lower it, or data.examples"
                )
        for route, hybrid in settings.amortise.items():
            if budget is not None and (needed := count_amortising(hybrid, task)) > budget:
                raise UserError(
                    f"budget.simulations: the route {route} takes about {needed:,} on {name} to train, {budget:,} are "
                    "allowed; leave it out, e.g. routes=[surrogate,direct], or lower hybrid.targets and max_epochs"
                )


def count_amortising(hybrid: HybridSettings, task: Task) -> int:
    """The simulations of a proposer's training: its targets, and in each epoch the proposals for all of them."""
    learned = hybrid.targets * task.simulations_a_jacobian
    return hybrid.targets + hybrid.validation_targets + hybrid.max_epochs * (learned + hybrid.validation_targets)
