"""What constructors refuse, in the same words everywhere."""

import math
from collections.abc import Iterable

from aimback.core.errors import UserError

_LONGEST = 80  # characters of a value that a message shows

# Far above what anybody has asked for in earnest, and below what never comes to an end.
MOST_STEPS = 1_000_000
MOST_ROWS = 100_000_000


def quote(value: object) -> str:
    """Write a value for a message: on one line whatever it holds, and without its middle where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 20]}...{text[-10:]}"


def check_whole(least: int, most: int, **values: object) -> None:
    """Raises `UserError` naming the first value that is no whole number from `least` to `most`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UserError(f"{name}: must be a whole number from {least:,} to {most:,}, got {quote(value)}")


def check_number(
    name: str, value: object, *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf
) -> None:
    """Raises `UserError` naming the value, unless it is a finite number within the bounds."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not (above < value < below and value >= least):  # type: ignore[operator]
        bounds = [f"above {above:g}", f"of at least {least:g}", f"below {below:g}"]
        given = [bound for bound in bounds if "inf" not in bound]
        raise UserError(f"{name}: must be a finite number {' and '.join(given)}, got {quote(value)}")


def check_one_of(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raises `UserError` naming the value, unless it is one of those allowed."""
    if value not in (allowed := tuple(allowed)):
        raise UserError(f"{name}: must be one of {', '.join(allowed)}, got {quote(value)}")


def check_positive(name: str, value: float) -> float:
    """Return the value as a float.

    Raises:
        UserError: it is not positive and finite.
    """
    if not 0 < value < math.inf:
        raise UserError(f"{name}: must be positive and finite, got {value:g}")
    return float(value)
