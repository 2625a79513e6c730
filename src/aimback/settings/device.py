"""Which device each stage works on: `hardware=auto` takes a GPU for what gains from it."""

import contextlib
from collections.abc import Iterable, Mapping

import torch

from aimback.settings.learning import Architecture
from aimback.settings.tree import Settings
from aimback.tasks.base import Task

_SIMULATION = 1000  # operations, about: a flight of cannon_drag has some 5000, a closed form 50


def choose_device(settings: Settings, stage: str, name: str, route: str = "") -> torch.device:
    """The device for a stage's turn.

    Args:
        name: of the task; route: of the route, where the stage has a turn for each.
    """
    hardware = settings.hardware
    if hardware.accelerator != "auto" or not torch.cuda.is_available():
        return hardware.device()
    return hardware.device(_count_operations(settings, stage, name, route))


def find_devices(settings: Settings) -> set[torch.device]:
    """The devices that a run works on; the stages that are not asked have no more to do than these."""
    stages: Mapping[str, Iterable[str]] = {
        "train": settings.train,
        "amortise": settings.amortise,
        "invert": settings.invert,
        "optimise": settings.optimise,
        "generate": [""],
    }
    turns = [(stage, name, route) for stage, routes in stages.items() for route in routes for name in settings.tasks]
    return {choose_device(settings, *turn) for turn in turns}


def _count_operations(settings: Settings, stage: str, name: str, route: str) -> int:
    """How many multiplications one pass over all rows takes that are worked on at once, about."""
    task = settings.tasks[name]
    targets = _count_targets(settings, task)
    if stage == "train":
        network, training = settings.network_of(route, name)
        examples = settings.count_examples(name)
        rows = examples if training.optimizer == "levenberg_marquardt" else min(training.batch_size, examples)
        return rows * network.members * _count_weights(network, task)
    if stage == "amortise":
        hybrid = settings.amortise[route]
        return hybrid.batch_size * (hybrid.batches_a_simulation * _SIMULATION + _count_weights(hybrid, task))
    if stage == "invert":
        inversion = settings.invert[route]
        network, _ = settings.network_of(inversion.network, name)
        return targets * inversion.starts.number * network.members * _count_weights(network, task)
    if stage == "optimise":
        return targets * settings.optimise[route].starts.number * _SIMULATION
    if stage == "generate":
        return max(settings.count_examples(name), targets) * _SIMULATION
    return targets * _SIMULATION


def _count_targets(settings: Settings, task: Task) -> int:
    if settings.targets is None:
        return settings.data.count_targets(task)
    with contextlib.suppress(OSError), settings.targets.open("rb") as file:  # the stage that reads it says so
        return sum(1 for _ in file)
    return 0


def _count_weights(network: Architecture, task: Task) -> int:
    ends = len(task.box) + len(task.conditions) + len(task.outcomes)
    return network.hidden_width * (ends + network.hidden_width * max(0, network.hidden_layers - 1))
