"""A task of which there are measurements and no simulator."""

from typing import Any

from torch import Tensor

from aimback.core.errors import UserError
from aimback.tasks.base import Task
from aimback.tasks.described import read_axes


class MeasuredTask(Task):
    """A table of measurements as a task. Networks learn from it; what they answer can be believed, never simulated.

    Args:
        data: the table, a path below the project's root, with a column for each control, condition and outcome.
        controls, outcomes, conditions: as of a `DescribedTask`, but nothing is pinned.

    Raises:
        UserError: names the key that is wrong.
    """

    def __init__(
        self, data: str, controls: dict[str, Any], outcomes: dict[str, Any], conditions: dict[str, Any] | None = None
    ) -> None:
        axes = read_axes(controls, outcomes, conditions)
        self.box, self.conditions, self.outcomes = axes.box, axes.conditions, axes.outcomes
        self.tolerances, self.tolerance = axes.tolerances, axes.tolerance
        for kind, part in zip(("controls", "conditions"), axes.inputs, strict=True):
            if pinned := next((one.name for one in part if one.value is not None), None):
                raise UserError(
                    f"{kind}.{pinned}: give its range; where data are constant it says nothing, leave it out"
                )
        names = [*self.box.names, *self.conditions.names]
        if twice := next((name for name in self.outcomes.names if name in names), None):
            raise UserError(f"outcomes.{twice}: is a control or a condition too")
        self.data = data

    @property
    def has_simulator(self) -> bool:
        return False

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        raise UserError(f"{self.data}: holds measurements, and there is no simulator to simulate with")
