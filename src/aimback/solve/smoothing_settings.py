"""How the direct route smooths what it descends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aimback.core.checks import check_whole
from aimback.core.errors import UserError

Order = Literal["zeroth", "first"]


@dataclass(frozen=True)
class Smoothing:
    """How the direct route smooths what it descends; see conf/smoothing.

    Args:
        sigmas: standard deviations of the perturbations, in unit-box lengths, the widest first. There is one descent
            for each, beginning where the one before has ended, and a last one without any; none: only that one.
        samples: perturbed simulations in place of each one, an even number.
        order: of the derivatives that the gradient is estimated from, see `Smoothed`.

    Raises:
        UserError: a value that is not allowed.
    """

    sigmas: Sequence[float]
    samples: int
    order: Order

    def __post_init__(self) -> None:
        sigmas = list(self.sigmas)
        if not all(0 < sigma <= 1 for sigma in sigmas) or sigmas != sorted(sigmas, reverse=True):
            raise UserError(f"sigmas: in (0, 1], the widest first, got {sigmas}")
        check_whole(2, 100_000, samples=self.samples)
        if self.samples % 2:
            raise UserError(f"samples: must be even, got {self.samples}")
        if self.order not in ("zeroth", "first"):
            raise UserError(f"order: must be 'zeroth' or 'first', got {self.order!r}")
