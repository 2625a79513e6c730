"""How finely the claims are looked at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aimback.core.checks import MOST_STEPS, check_whole
from aimback.core.errors import UserError


@dataclass(frozen=True)
class DiagnoseSettings:
    """How finely the claims are looked at; see conf/diagnose.

    Args:
        tasks: whose claims are examined.
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

    tasks: Sequence[str]
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
        check_whole(0, 100, replicas=self.replicas)
        check_whole(2, 10_000, targets=self.targets)
        check_whole(1, 10_000, starts=self.starts)
        check_whole(8, 2_048, points=self.points)
        check_whole(3, 2_048, basin_points=self.basin_points)
        check_whole(1, 1_000, planes=self.planes)
        check_whole(1, MOST_STEPS, max_steps=self.max_steps)
        check_whole(100, MOST_STEPS, resamples=self.resamples)
        if not self.step_sizes or not all(0 < size < math.inf for size in self.step_sizes):
            raise UserError(f"step_sizes: positive and finite numbers, at least one, got {list(self.step_sizes)}")
