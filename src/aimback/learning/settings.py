"""What can be set about any network, and how a wrong value is refused."""

import math
from collections.abc import Iterable

from aimback.errors import UserError

ACTIVATIONS = ("tanh", "silu", "gelu", "softplus", "relu")
DTYPES = ("float32", "float64")
MATMUL_PRECISIONS = ("highest", "high", "medium")


def check_whole(key: str, value: object, least: int) -> None:
    """Raises `UserError` naming the key, unless the value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{key} must be a whole number of at least {least}, got {value!r}")


def check_number(
    key: str, value: object, *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf
) -> None:
    """Raises `UserError` naming the key, unless the value is a finite number within the bounds."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not (above < value < below and value >= least):  # type: ignore[operator]
        bounds = [f"above {above:g}", f"of at least {least:g}", f"below {below:g}"]
        given = [bound for bound in bounds if "inf" not in bound]
        raise UserError(f"{key} must be a finite number {' and '.join(given)}, got {value!r}")


def check_one_of(key: str, value: object, allowed: Iterable[str]) -> None:
    """Raises `UserError` naming the key, unless the value is one of those allowed."""
    if value not in (allowed := tuple(allowed)):
        raise UserError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")
