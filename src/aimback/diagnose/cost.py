"""What the claims cost, before they are examined."""

from collections.abc import Iterator

from aimback.diagnose import basins, conditioning, fidelity, gradients, roughness
from aimback.settings.claims import LEAST, DiagnoseSettings
from aimback.tasks.base import Task

_INSIDE = 0.4  # about so much of a random slice lies in the box


def list_claim_costs(
    task: Task,
    settings: DiagnoseSettings,
    targets: int,
    networks: int,
    hybrid: bool,
    found: float,
    plain: float,
    price: int,
) -> Iterator[float]:
    """Claim by claim, about how many simulations it asks for.

    Args:
        targets: all of them.
        networks: with the replicas.
        hybrid: whether there are proposals to start from.
        found: simulations of a start by the configured solver; plain: by gradient descent, over all step sizes.
        price: simulations of an example to learn from.
    """
    each, box = task.simulations_a_jacobian, task.box
    plane, few = min(2, len(box)), min(settings.count_targets(task), targets)
    descents = few * settings.starts
    # A descent through the simulator is simulated again along its way; of one through a network that is all.
    path = 1 + (1 + networks) / each
    yield (networks + 1) * targets  # C1
    yield descents * (len(settings.step_sizes) * plain + found) * path  # C2
    slices = 1.0 if len(box) <= 2 else _INSIDE * settings.planes
    given = min(few, roughness._TARGETS) if len(task.conditions) else 1
    yield settings.points**plane * slices * given  # C3
    # What is carried from one map to the other begins close by.
    yield descents * (found * (1 + networks / 2) + networks)  # C4
    # By the best of the step sizes.
    yield (
        min(basins._TARGETS, few) * settings.count_basin_points(task) ** plane * (found + plain / 2 + networks + 3)
    )  # C5
    looked = descents + min(task.scale_down(conditioning._POINTS, LEAST), descents * found / each)
    yield descents * found + looked * (1 + 2 * len(box)) * each  # C6
    yield task.scale_down(gradients._POINTS, LEAST) * (each + 2 * len(gradients._SCALES) * len(box))  # C7
    if hybrid:
        yield (few * (plain / 4 + found / 2) + descents * found) * (1 + 1 / each)  # C8
    if settings.examples:
        looks = len(settings.examples) * (1 + settings.replicas) * targets
        yield max(settings.examples) * (price + fidelity._HELD_OUT * each) + looks * (1 + each)  # C9
