"""What a task is: a simulator with its box of controls, its conditions and its outcome."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from aimback.autodiff import any_torch, dual
from aimback.core.box import Box
from aimback.core.distance import Distance
from aimback.core.errors import UserError, is_out_of_memory
from aimback.core.tracing import is_traced
from aimback.simulators.executor import Executor
from aimback.simulators.reasons import Failure

log = logging.getLogger(__name__)

# What misses are counted in where outcomes differ in unit or tolerance.
TOLERANCES = "tolerances"


@runtime_checkable
class Task(Protocol):
    """A differentiable simulator and what is to be known of it. Calling it simulates.

    A task that says no more is exact, has no conditions, the Jacobians that its operations give, a uniform prior, no
    known reach and no path to draw.

    Attributes:
        box: bounds of the controls.
        conditions: ranges that the conditions are drawn from; an empty box where there are none.
        outcomes: names, units and the range that the outcomes span, one axis an outcome.
        tolerance: the miss at which a target counts as solved: the tolerance that all outcomes share, in the unit that
            they share; or 1, where they differ in one of the two.
    """

    box: Box
    conditions: Box = Box([])
    outcomes: Box
    tolerance: float

    @property
    def simulations_a_jacobian(self) -> int:
        """How many simulations an outcome with its Jacobian takes: 1, but where it comes of differences."""
        return 1

    def price_example(self, *, jacobian: bool) -> int:
        """How many simulations an example to learn from takes, with its Jacobian or without."""
        return self.simulations_a_jacobian if jacobian else 1

    @property
    def bulk(self) -> int:
        """How many times as dear as an ordinary task it is: so many times less is done where nobody says how much.

        By how many times a Jacobian has 512 numbers, at least 1; a task whose simulator is slow says more.
        """
        return max(1, len(self.outcomes) * len(self.box) // 512)

    def scale_down(self, count: int, least: int) -> int:
        """Of so many targets, starts or points, those that are looked at: as many times fewer, but `least`."""
        return max(min(count, least), count // self.bulk)

    @property
    def has_simulator(self) -> bool:
        """Whether a call simulates; False where there are measurements, and answers can only be believed."""
        return True

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

    def watch_failures(self) -> AbstractContextManager[None]:
        """Stop where too many runs fail: what is simulated in its context is a sample of the box."""
        return nullcontext()

    def allow(self, simulations: int | None) -> None:
        """Bound how many simulations are made from now on, if a simulation is worth that; None for no bound.

        A call that would exceed it raises `OverBudgetError`, and simulates nothing.
        """

    def keep_runs(self, path: Path, identity: str) -> None:
        """Keep what is simulated in a file from which a killed stage goes on, if a simulation is worth that.

        Args:
            identity: of the task; what the file holds of another one is not used.
        """

    def spread_runs(self, executor: Executor) -> None:
        """Have an executor run what is simulated from now on, if it is simulated case by case."""

    @property
    def tolerances(self) -> tuple[float, ...]:
        """How far each outcome may be from what is wanted, in its unit: as the task has set it, or `tolerance`."""
        own: tuple[float, ...] | None = vars(self).get("_tolerances")
        return (self.tolerance,) * len(self.outcomes) if own is None else own

    @tolerances.setter
    def tolerances(self, tolerances: Sequence[float]) -> None:
        vars(self)["_tolerances"] = tuple(tolerances)

    def compute_costs(self, controls: Tensor) -> Tensor | None:
        """What answers cost their user, `(n, n_controls)` -> `(n,)`, float64: of those that hit the cheapest is taken.

        None where nobody has said, so that the least miss decides.
        """
        costs: Callable[[Tensor], Tensor] | None = vars(self).get("_costs")
        return None if costs is None else costs(controls)

    @property
    def sigmas(self) -> tuple[float, ...] | None:
        """The standard deviation of each outcome of a target, in its unit; None where targets are not measured."""
        sigmas: tuple[float, ...] | None = vars(self).get("_sigmas")
        return sigmas

    @property
    def miss_unit(self) -> str:
        """What a miss is counted in: the unit of the outcomes where `tolerance` is that of each; else "tolerances"."""
        units = {axis.unit for axis in self.outcomes.axes}
        return units.pop() if len(units) == 1 and set(self.tolerances) == {self.tolerance} else TOLERANCES

    @property
    def distance(self) -> Distance:
        """How far outcomes are from what is wanted; a typical miss is the diagonal of the range of the outcomes.

        Raises:
            UserError: the tolerances are not one an outcome, positive and finite, or `tolerance` does not fit them.
        """
        if len(self.tolerances) != len(self.outcomes):
            raise UserError(f"tolerances: must be one an outcome, {len(self.outcomes)}, got {self.tolerances}")
        if self.miss_unit == TOLERANCES and self.tolerance != 1:
            raise UserError(
                "tolerance: must be 1 where outcomes differ in unit or tolerance, with `tolerances` for each of them; "
                f"got {self.tolerance:g} and {self.tolerances}"
            )
        units = torch.tensor(self.tolerances, dtype=torch.float64) / self.tolerance
        diagonal = (self.outcomes.upper - self.outcomes.lower) / units
        return Distance(self.tolerances, self.tolerance, float(torch.linalg.vector_norm(diagonal)))

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
            if mode is not dual.linearise or is_traced() or is_out_of_memory(error):
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
