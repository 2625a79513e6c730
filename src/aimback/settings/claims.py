"""How finely the claims are looked at."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from aimback.core.checks import MOST_ROWS, MOST_STEPS
from aimback.core.section import Section
from aimback.data.dataset import LEAST_EXAMPLES
from aimback.tasks.base import Task

LEAST = 4  # targets, starts or points that are looked at of any task
_TARGETS, _BASIN_POINTS = 32, 33


class DiagnoseSettings(Section):
    """How finely the claims are looked at; see conf/diagnose.

    Attributes:
        targets, basin_points: None for as many as suit the task, see `count_targets` and `count_basin_points`.
    """

    enabled: bool
    replicas: Annotated[int, Field(ge=0, le=100)]
    targets: Annotated[int | None, Field(ge=2, le=10_000)]
    starts: Annotated[int, Field(ge=1, le=10_000)]
    points: Annotated[int, Field(ge=8, le=2_048)]
    basin_points: Annotated[int | None, Field(ge=3, le=2_048)]
    planes: Annotated[int, Field(ge=1, le=1_000)]
    max_steps: Annotated[int, Field(ge=1, le=MOST_STEPS)]
    step_sizes: Annotated[Sequence[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    resamples: Annotated[int, Field(ge=100, le=MOST_STEPS)]
    examples: Sequence[Annotated[int, Field(ge=LEAST_EXAMPLES, le=MOST_ROWS)]]

    def count_targets(self, task: Task) -> int:
        """How many targets of a task are looked at."""
        return self.targets or task.scale_down(_TARGETS, LEAST)

    def count_basin_points(self, task: Task) -> int:
        """How many points each side of the map of a task's starts has."""
        return self.basin_points or task.scale_down(_BASIN_POINTS, LEAST)
