"""What a solver is: most are a rule for the next step of every start at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from aimback.core.checks import MOST_STEPS, check_whole
from aimback.core.errors import UserError
from aimback.solve.point import Point

# Told how far a solver has come: of how many targets all starts have stopped, how many have one within the tolerance.
Progress = Callable[[int, int], None]

# What a solver remembers of each start, one row a start; finished starts' rows are dropped.
Memory = tuple[Tensor, ...]


@runtime_checkable
class Stepper(Protocol):
    """A solver that moves all starts of all targets together, each row by its own numbers only.

    Attributes:
        max_steps: after so many steps a start stops as `step_limit`.
        precision: a start whose believed miss is below this share of the span (see `Distance`) has arrived
            for good; nothing is gained by going on.
        boundary: None where the box has walls; else they are soft, see `Point.boundary`.
    """

    max_steps: int
    precision: float

    @property
    def boundary(self) -> float | None: ...

    def begin(self, point: Point) -> Memory:
        """The memory before the first step."""
        ...

    def propose(self, point: Point, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        """Where to look next, `(rows, n_controls)`, inside the unit cube, and the memory to judge it with."""
        ...

    def judge(self, point: Point, trial: Point, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """-> which rows go to the trial point, which rows give up moving, and the new memory."""
        ...


@dataclass(frozen=True)
class Solver:
    """What every solver is told, see `Stepper`. Raises `UserError` for a value that is not allowed."""

    max_steps: int = 300
    precision: float = 1e-10

    @property
    def boundary(self) -> float | None:
        return None

    def __post_init__(self) -> None:
        check_whole(1, MOST_STEPS, max_steps=self.max_steps)
        if not 0 < self.precision < 1:
            raise UserError(f"precision: must lie between 0 and 1, got {self.precision:g}")

    def check(self) -> None:
        """Raises `UserError` that says what to install where something is missing."""
