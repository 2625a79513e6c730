"""What constructors of tasks refuse in the same words."""

import math

from aimback.errors import UserError


def positive(name: str, value: float) -> float:
    """The value as a float.

    Raises:
        UserError: it is not positive and finite.
    """
    if not 0 < value < math.inf:
        raise UserError(f"{name}: must be positive and finite, got {value:g}")
    return float(value)
