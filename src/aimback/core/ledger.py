"""What a route spends: every evaluation and every gradient is counted where it happens."""

from dataclasses import dataclass

from torch import Tensor

from aimback.core.errors import OverBudgetError
from aimback.core.problem import ForwardMap, Linearised


@dataclass
class Ledger:
    """Counts of one route; a row of a batch is one.

    Attributes:
        simulations: runs of the simulator, be it to make a data set, to solve, or for differences.
        evaluations: of the route's own forward map (simulator or network) inside the solver, and inside a
            training that goes through it.
        gradients: Jacobians of that map, and of the simulator where a network learns from them; each came with an
            evaluation or a simulation, counted beside it.
        training_examples: the part of the simulations that made the data set of a network, or its targets.
    """

    simulations: int = 0
    evaluations: int = 0
    gradients: int = 0
    training_examples: int = 0

    def enter_examples(self, task: ForwardMap, rows: int, *, jacobians: bool) -> None:
        """Enter rows that were simulated to be learned from."""
        # As of `Counted.count`.
        simulations = rows * (getattr(task, "simulations_a_jacobian", 1) if jacobians else 1)
        self.simulations += simulations
        self.training_examples += simulations
        self.gradients += rows * jacobians


class Counted:
    """A forward map that writes what is asked of it into a ledger, and changes nothing else.

    Args:
        forward: the map to count.
        ledger: where to.
        simulates: whether the map is the simulator itself, so that an evaluation is a simulation.
        limit: the most simulations that may stand in the ledger; None for no limit.

    Raises:
        OverBudgetError: when it is called, that would be more than the limit.
    """

    def __init__(self, forward: Linearised, ledger: Ledger, *, simulates: bool, limit: int | None = None) -> None:
        self.forward = forward
        self.limit = limit
        self._ledger = ledger
        self._simulates = simulates

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        self.count(controls.shape[:-1].numel())
        return self.forward(controls, conditions)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        self.count(controls.shape[:-1].numel(), gradients=True)
        return self.forward.linearise(controls, conditions)

    def count(self, rows: int, *, gradients: bool = False) -> None:
        """Enter evaluations, made here or by a program compiled from `forward`."""
        if self._simulates:
            # Differences take more simulations than the one whose outcome they come with.
            each = getattr(self.forward, "simulations_a_jacobian", 1) if gradients else 1
            simulations = self._ledger.simulations + rows * each
            if self.limit is not None and simulations > self.limit:
                raise OverBudgetError(
                    f"budget.simulations: {self.limit:,} are allowed, {self._ledger.simulations:,} were made, and "
                    f"{rows * each:,} more are needed to go on"
                )
            self._ledger.simulations = simulations
        self._ledger.evaluations += rows
        if gradients:
            self._ledger.gradients += rows
