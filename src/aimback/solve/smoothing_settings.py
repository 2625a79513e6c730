"""How the direct route smooths what it descends."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator

from aimback.core.errors import UserError
from aimback.core.section import Section

Order = Literal["zeroth", "first", "switch"]


class Smoothing(Section):
    """How the direct route smooths what it descends; see conf/smoothing.

    Attributes:
        sigmas: standard deviations of the perturbations, in unit-box lengths, the widest first. There is one descent
            for each, beginning where the one before has ended, and a last one without any; none: only that one.
        samples: perturbed simulations in place of each one, an even number.
        order: of the derivatives that the gradient is estimated from, see `Smoothed`.
    """

    sigmas: Sequence[Annotated[float, Field(gt=0, le=1)]]
    samples: Annotated[int, Field(ge=2, le=100_000, multiple_of=2)]
    order: Order

    @field_validator("sigmas")
    @classmethod
    def _check_order(cls, sigmas: Sequence[float]) -> Sequence[float]:
        if list(sigmas) != sorted(sigmas, reverse=True):
            raise UserError(f"must have the widest first, got {list(sigmas)}")
        return sigmas
