"""What a task is: a simulator with its box of controls, its conditions and its outcome."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from aimback.autodiff import any_torch, dual
from aimback.core.box import Box
from aimback.core.errors import is_out_of_memory
from aimback.simulators.cases import Failure

log = logging.getLogger(__name__)


@runtime_checkable
class Task(Protocol):
    """A differentiable simulator and what is to be known of it. Calling it simulates.

    A task that says no more is exact, has the Jacobians that its operations give, a uniform prior, no known reach and
    no path to draw.

    Attributes:
        box: bounds of the controls.
        conditions: ranges that the conditions are drawn from (an empty box where there are none).
        outcomes: names, units and the range that the outcomes span, one axis an outcome.
        tolerance: the miss, in the outcome's unit, at which a target counts as solved.
    """

    box: Box
    conditions: Box
    outcomes: Box
    tolerance: float

    @property
    def simulations_a_jacobian(self) -> int:
        """How many simulations an outcome with its Jacobian takes: 1, but where it comes of differences."""
        return 1

    @property
    def compiles(self) -> bool:
        """Whether its arithmetic is torch's, so that a solve through it may be compiled."""
        return True

    @property
    def rows_at_once(self) -> int | None:
        """How many rows are to be simulated in one call where many are wanted; None where it makes no difference."""
        return None

    @property
    def failures(self) -> Sequence[Failure]:
        """The runs of the simulator that have failed so far, where it tells of them one by one."""
        return ()

    def keep_runs(self, path: Path, identity: str) -> None:
        """Keep what is simulated in a file from which a killed stage goes on, if a simulation is worth that.

        Args:
            identity: of the task; what the file holds of another one is not used.
        """

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """Simulate: `(..., n_controls)`, `(..., n_conditions)` -> `(..., n_outcomes)`."""
        ...

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Outcome and its Jacobian by the controls, `(..., n_outcomes, n_controls)`.

        By dual numbers in one pass; a simulator that they do not know all operations of is differentiated by torch.

        Raises:
            UserError: torch cannot do so either.
        """
        mode: any_torch.Linearise = vars(self).get("_mode", dual.linearise)
        try:
            return mode(self, controls, conditions)
        except Exception as error:  # code that was not written for dual numbers can fail in any way
            if mode is not dual.linearise or torch.compiler.is_compiling() or is_out_of_memory(error):
                raise
            reason = error
        mode = vars(self)["_mode"] = any_torch.choose_mode(self, controls, conditions)
        log.warning("%s: is differentiated by torch, since %s", type(self).__name__, str(reason).partition("\n")[0])
        return mode(self, controls, conditions)

    def finer(self, factor: int) -> "Task | None":
        """The same task with so many times as many steps, so that what both make of an answer tells the error.

        The two may share no error that steps do not remove. The reach of the finer one is wide enough for both:
        what lies beyond it is out of reach whatever the number of steps. None where the task does not discretise, so
        that there is nothing to refine.
        """
        return None

    def settings_of_accuracy(self) -> Mapping[str, str]:
        """The settings, by name, that would make its error small against its tolerance; none where it has no error."""
        return {}

    def draw_controls(self, count: int, generator: torch.Generator) -> Tensor:
        """Controls of a data set, drawn from the task's prior: `(count, n_controls)`, float64, on the CPU.

        Finite, but they may lie outside the box, which says where to search and not where data come from.
        """
        return self.box.sample(count, generator)

    def draw_starts(self, count: int, generator: torch.Generator) -> Tensor:
        """Initial guesses as the task's literature draws them, `(count, n_controls)`, float64, on the CPU.

        They too may lie outside the box.
        """
        return self.box.sample(count, generator)

    def reach(self, conditions: Tensor) -> tuple[Tensor, Tensor] | None:
        """The least and the greatest outcome over the box, each component on its own, `(..., n_outcomes)` each;
        None where the task cannot tell."""
        return None

    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> Tensor | None:
        """The path of a simulation, `(..., points, 2)` as (x, y); None where there is nothing to draw."""
        return None
