"""How exact a simulation is: a task that discretises is compared with itself in more steps."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.distance import Distance
from aimback.core.ledger import Ledger
from aimback.data.dataset import simulate
from aimback.tasks.base import TOLERANCES, Task

# Of the tolerance: an error of the simulator below it decides about hardly any answer.
SMALL_ERROR = 0.1
# Times as many steps; of a fourth-order method's error the first leaves a 256th.
FACTORS = (4, 16, 64)
TRIED = 500  # simulations, to see beforehand whether the simulator's own error matters


@dataclass(frozen=True)
class Simulated:
    """Simulations with as many steps as it took to tell a hit from a miss, or as `FACTORS` allow.

    Attributes:
        outcome: with the most steps that were taken, `(..., n_outcomes)`.
        miss: how far it is from what was wanted, `(...)`; NaN or infinite where the simulation is.
        error: how far the task, in its own steps, is from that outcome, as a miss, `(...)`; 0 of an exact task.
        doubt: by how much the last refinement moved the outcome, as a miss, `(...)`, which is more than what is left of
            the error; 0 of an exact task.
    """

    outcome: Tensor
    miss: Tensor
    error: Tensor
    doubt: Tensor

    def spread(self, rows: Tensor, total: int) -> "Simulated":
        """So many rows, these among them in their places, the others NaN."""

        def place(part: Tensor) -> Tensor:
            whole = part.new_full((total, *part.shape[1:]), torch.nan)
            whole[rows] = part
            return whole

        return Simulated(*(place(part) for part in (self.outcome, self.miss, self.error, self.doubt)))

    def unflatten(self, shape: tuple[int, ...]) -> "Simulated":
        """Rows as a table."""
        return Simulated(*(part.unflatten(0, shape) for part in (self.outcome, self.miss, self.error, self.doubt)))


def simulate_closely(
    task: Task,
    controls: Tensor,
    conditions: Tensor,
    wanted: Tensor,
    device: torch.device | str = "cpu",
    ledger: Ledger | None = None,
) -> Simulated:
    """Simulate `(n, ...)` rows in ever more steps, until the simulator's own error no longer decides about a hit.

    Args:
        ledger: where the simulations are counted; None counts them nowhere.
    """
    ledger = Ledger() if ledger is None else ledger
    ledger.simulations += len(controls)
    distance = task.distance
    (own,) = simulate(task, controls, conditions, device)
    outcome, doubt = own.clone(), own.new_zeros(len(own))
    rows = torch.arange(len(own))
    for factor in FACTORS:
        finer = task.finer(factor)
        if finer is None or len(rows) == 0:
            break
        ledger.simulations += len(rows)
        (again,) = simulate(finer, controls[rows], conditions[rows], device)
        doubt[rows] = change = _change(distance, outcome[rows], again)
        outcome[rows] = again
        miss = distance.measure(again - wanted[rows])
        hits = (miss + change <= task.tolerance) & (change <= SMALL_ERROR * task.tolerance)
        rows = rows[~(hits | (miss - change > task.tolerance))]
    return Simulated(outcome, distance.measure(outcome - wanted), _change(distance, own, outcome), doubt)


def simulation_error(
    task: Task, controls: Tensor, conditions: Tensor, device: torch.device | str = "cpu"
) -> Tensor | None:
    """How far the task, in its own steps, is off by its first refinement, `(n,)`; None of an exact task."""
    finer = task.finer(FACTORS[0])
    if finer is None:
        return None
    return _change(
        task.distance, *(simulate(simulator, controls, conditions, device)[0] for simulator in (task, finer))
    )


def error_note(name: str, task: Task, middle: float | None, greatest: float | None) -> str:
    """What to say of the simulator's own error, and what to set; "" where it is small against the tolerance.

    Args:
        name: of the task in the configuration.
        middle, greatest: the median and the largest error, as misses; None where it is not finite.
    """
    if greatest is not None and greatest <= SMALL_ERROR * task.tolerance:
        return ""

    def told(size: float | None) -> str:
        return "unknown" if size is None or not math.isfinite(size) else f"{size:.2g} {task.miss_unit}".rstrip()

    tolerance = "tolerances" if task.miss_unit == TOLERANCES else f"tolerance of {told(task.tolerance)}"
    settings = " ".join(f"task.{name}.{key}={value}" for key, value in task.settings_of_accuracy().items())
    return (
        f"the simulator's own error (median {told(middle)}, greatest {told(greatest)}) is not small against the "
        f"{tolerance}; set {settings}"
    )


def _change(distance: Distance, before: Tensor, after: Tensor) -> Tensor:
    """How far outcomes are apart, as a miss, `(n,)`: 0 where both fail alike, infinite where only one does."""
    apart = torch.where((before == after) | (before.isnan() & after.isnan()), 0.0, after - before)
    return distance.measure(apart).nan_to_num(nan=torch.inf, posinf=torch.inf)
