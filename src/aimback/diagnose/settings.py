"""How finely the claims are looked at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aimback.errors import UserError


@dataclass(frozen=True)
class DiagnoseSettings:
    """How finely the claims are looked at; see conf/diagnose.

    Args:
        replicas: further networks, each of a data set and a training of its own, for the spread over seeds.
        targets: how many of the targets are looked at; the first ones.
        starts: a target, where descents are compared.
        points: along each side of a slice of the box.
        basin_points: along each side of the map of starts.
        planes: random slices, where there are more than two controls.
        max_steps: of a descent.
        step_sizes: of gradient descent, from which each route gets its own best one.
        resamples: of the bootstrap.
    """

    replicas: int
    targets: int
    starts: int
    points: int
    basin_points: int
    planes: int
    max_steps: int
    step_sizes: Sequence[float]
    resamples: int

    def __post_init__(self) -> None:
        least = {"replicas": 0, "targets": 2, "starts": 1, "points": 8, "basin_points": 3, "planes": 1}
        for name, bound in {**least, "max_steps": 1, "resamples": 100}.items():
            if getattr(self, name) < bound:
                raise UserError(f"{name}: must be at least {bound}, got {getattr(self, name)}")
        if not self.step_sizes or not all(0 < size < math.inf for size in self.step_sizes):
            raise UserError(f"step_sizes: positive and finite numbers, at least one, got {list(self.step_sizes)}")
