"""Settings that ask for more memory than there is are refused at once, not after hours of swapping."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from aimback.core.errors import UserError
from aimback.data.targets import PART
from aimback.settings.learning import Architecture, Descent
from aimback.settings.tree import Settings

_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container; "max" where there is none


def check_memory(settings: Settings) -> None:
    """Compare the least that the settings are sure to need with what the machine has.

    Raises:
        UserError: names the setting that asks for most of it.
    """
    has = psutil.virtual_memory().total
    if _LIMIT.is_file() and (limit := _LIMIT.read_text(encoding="ascii").strip()).isdigit():
        has = min(has, int(limit))
    for key, needs in _needs(settings):
        if needs > has:
            raise UserError(f"{key}: needs about {needs / 1e9:,.0f} GB of memory, here are {has / 1e9:,.0f}; lower it")


def _needs(settings: Settings) -> Iterator[tuple[str, int]]:
    """Bytes by the setting they follow from."""
    data = settings.data
    for name, task in settings.tasks.items():
        # What is drawn, its random order, and what is kept.
        row = 3 * 8 * (len(task.box) + len(task.conditions) + len(task.outcomes))
        targets = min(PART, settings.data.count_targets(task)) if settings.targets is None else 1
        example = row + settings.learns_jacobians(name) * 3 * 8 * len(task.box) * len(task.outcomes)
        yield "data.examples", example * data.examples
        yield "diagnose.examples", example * max(settings.diagnose.examples, default=0)
        for starts in [route.starts for routes in (settings.invert, settings.optimise) for route in routes.values()]:
            # Random words, the same in order, and their order.
            yield "starts.number", 3 * 8 * len(task.box) * targets * starts.number
        for route in settings.train:
            network, training = settings.network_of(route, name)
            needs = list(_needs_of("surrogate", "training", network, training, data.examples))
            yield from needs
            if network.members > 1 and not training.goes_by_the_loss:
                # Side by side, each with standardised examples of its own, of 4 bytes a number.
                each = sum(size for _, size in needs) + example * data.examples // 6
                yield "surrogate.members", network.members * each
        for hybrid in settings.amortise.values():
            learned = hybrid.count_targets(task)
            yield "hybrid.targets", row * (learned + hybrid.validation_targets)
            yield from _needs_of("hybrid", "hybrid", hybrid, hybrid, learned)


def _needs_of(name: str, place: str, network: Architecture, training: Descent, rows: int) -> Iterator[tuple[str, int]]:
    size = 4 if training.dtype == "float32" else 8
    neurons = network.hidden_width * network.hidden_layers
    # The weights, their gradient and what the optimizer remembers of it.
    yield f"{name}.hidden_width", 3 * size * network.hidden_width * neurons
    # The activations, and their gradients.
    yield f"{place}.batch_size", 2 * size * min(training.batch_size, rows) * neurons
