"""Settings that ask for more simulations than there can be, or for derivatives that are not there, are refused."""

from collections.abc import Mapping

from torch import cuda

from aimback.core.errors import UserError
from aimback.core.hardware import Hardware
from aimback.settings.learning import Descent, HybridSettings
from aimback.settings.tree import Settings
from aimback.solve.derivative_free import DerivativeFree
from aimback.tasks.base import Task
from aimback.tasks.described import DescribedTask


def check_limits(settings: Settings, tasks: Mapping[str, Task]) -> None:
    """Compare what the routes need on tasks with what the budget, the simulators and the installation offer, before
    the first stage.

    Raises:
        UserError: names the route, and what to choose instead.
    """
    for searched in (settings.invert, settings.optimise, settings.refine):
        for route in searched.values():
            route.solver.check()
    for name, task in tasks.items():
        _check_descents(settings, name, task)
        _check_trainings(settings, name, task)
        _check_inversions(settings, name, task)
        _check_hybrids(settings, name, task)


def _check_descents(settings: Settings, name: str, task: Task) -> None:
    through = [*settings.optimise, *settings.refine]
    if through and not task.has_simulator:
        raise UserError(f"task.{name}: has no simulator for the route {through[0]}; choose routes=[surrogate]")
    for route in through:
        searched = settings.optimise.get(route) or settings.refine[route]
        needs = not isinstance(searched.solver, DerivativeFree) or route in settings.refine
        if needs and _lacks_derivatives(task):
            raise UserError(f"task.{name}: has no derivatives for the route {route}; routes=[surrogate,cma_es]")


def _lacks_derivatives(task: Task) -> bool:
    return isinstance(task, DescribedTask) and task.derivatives == "none"


def _check_trainings(settings: Settings, name: str, task: Task) -> None:
    for route in settings.train:
        _, training = settings.network_of(route, name)
        _check_devices("training", training, settings.hardware)
        if training.learns_jacobians and (_lacks_derivatives(task) or not task.has_simulator):
            raise UserError(
                f"train.{route}.training.jacobian_weight: task.{name} has no derivatives to learn from; choose 0"
            )


def _check_inversions(settings: Settings, name: str, task: Task) -> None:
    budget = settings.budget.simulations
    for route, inversion in settings.invert.items():
        for key in ("rounds", "calibration"):
            if getattr(inversion, key) and not task.has_simulator:
                raise UserError(f"invert.{route}.{key}: task.{name} has no simulator to ask; choose 0")
        if inversion.exploration and settings.network_of(inversion.network, name)[0].members == 1:
            raise UserError(f"invert.{route}.exploration: a single network has no spread; choose 0, or more members")
        asked = 2 * inversion.calibration  # to draw them, and to simulate their answers
        if budget is not None and asked and settings.price_examples(name) + asked > budget:
            raise UserError(
                f"budget.simulations: {asked:,} for invert.{route}.calibration do not fit beside the examples in "
                f"{budget:,}; lower it, or data.examples"
            )


def _check_hybrids(settings: Settings, name: str, task: Task) -> None:
    budget = settings.budget.simulations
    for route, hybrid in settings.amortise.items():
        _check_devices("hybrid", hybrid, settings.hardware)
        if hybrid.devices > 1 and (settings.hardware.compile == "on" or isinstance(task, DescribedTask)):
            raise UserError(
                f"hybrid.devices: must be 1 with hardware.compile=on, and where a task ({name}) names a simulator "
                f"that runs in processes of its own; got {hybrid.devices}"
            )
        if budget is not None and (needed := count_amortising(hybrid, task)) > budget:
            raise UserError(
                f"budget.simulations: the route {route} takes about {needed:,} on {name} to train, {budget:,} are "
                "allowed; leave it out, e.g. routes=[surrogate,direct], or lower hybrid.targets and max_epochs"
            )


def _check_devices(section: str, training: Descent, hardware: Hardware) -> None:
    if training.devices > 1 and hardware.device().type == "cuda" and training.devices > cuda.device_count():
        raise UserError(
            f"{section}.devices: {training.devices} GPUs are asked for, PyTorch finds {cuda.device_count()}; "
            "lower it, or choose hardware=cpu"
        )


def count_amortising(hybrid: HybridSettings, task: Task) -> int:
    """The simulations of a proposer's training: its targets, and in each epoch the proposals for all of them."""
    targets, validated = hybrid.count_targets(task), hybrid.validation_targets
    return targets + validated + hybrid.max_epochs * (targets * task.simulations_a_jacobian + validated)
