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
        blurs: standard deviations of what each outcome is averaged with its neighbours by, in outcomes, the widest
            first; a descent for each, after those of `sigmas`, see `Blurred`.
    """

    sigmas: Sequence[Annotated[float, Field(gt=0, le=1)]]
    samples: Annotated[int, Field(ge=2, le=100_000, multiple_of=2)]
    order: Order
    blurs: Sequence[Annotated[float, Field(gt=0, le=1000)]]

    @field_validator("sigmas", "blurs")
    @classmethod
    def _check_order(cls, widths: Sequence[float]) -> Sequence[float]:
        if list(widths) != sorted(widths, reverse=True):
            raise UserError(f"must have the widest first, got {list(widths)}")
        return widths
