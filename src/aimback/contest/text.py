"""Numbers as a reader wants them: two or three digits that matter, and a dash where there is none."""

import math
from collections.abc import Callable

from aimback.contest.summary import Spread
from aimback.report.text import DASH, number


def power(value: float | None, digits: int = 2) -> str:
    """A figure that spans decades, with so many digits that matter: "5.8e-3", "0.64", "0"."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞"
    rounded = float(f"{value:.{digits - 1}e}")
    if rounded == 0 or 0.1 <= rounded < 10.0**digits:
        return f"{rounded:g}"
    mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def count(value: float | None) -> str:
    """A count or a mean of counts, with thousands marked."""
    return number(value)


def over(spread: Spread, show: Callable[[float | None], str] = power) -> str:
    """ "5.1e-3 (4.2e-3 to 6e-3)" over seeds; just the mean where all seeds agree; says how many seeds lack it."""
    if spread.mean is None:
        return DASH
    mean, least, greatest = show(spread.mean), show(spread.least), show(spread.greatest)
    parts = [] if least == greatest else [f"{least} to {greatest}"]
    if spread.missing:
        parts.append(f"{spread.missing} of {spread.missing + spread.seeds} seeds without")
    return f"{mean} ({'; '.join(parts)})" if parts else mean


def against(mine: float | None, other: float, whose: str) -> str:
    """ "5.1e-3 against 5.8e-3 published (1.1 times less)"."""
    factor = f" ({multiple(mine, other)})" if mine else ""
    return f"{power(mine)} against {power(other)} {whose}{factor}"


def multiple(mine: float, other: float) -> str:
    """ "1.1 times less", for two numbers above 0."""
    if not (0 < mine < math.inf and 0 < other < math.inf):
        return "not to be compared"
    ratio = max(mine, other) / min(mine, other)
    if ratio < 1.05:
        return "about the same"
    shown = f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}" if ratio < 1e5 else power(ratio)
    return f"{shown} times {'less' if mine < other else 'more'}"
