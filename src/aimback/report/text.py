"""How numbers are said to people."""

import math

DASH = "—"
NEVER = "never"


def number(value: float | None) -> str:
    """Three digits that matter; a dash where nothing was measured."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(fraction: float | None) -> str:
    """A share; only what is whole is called 100 %, and only nothing 0 %."""
    if fraction is None:
        return DASH
    shown = 100 * fraction
    if 0 < fraction < 1:
        shown = min(max(shown, 0.01), 99.99)
    return f"{shown:.4g} %" if shown > 99 else f"{shown:.3g} %"


def mebibytes(size: float | None) -> str:
    return number(None if size is None else round(size / 2**20))


def factor(left: float | None, right: float | None) -> str:
    """ "4.2": how many times the greater is the lesser; "" where that says nothing."""
    if left is None or right is None or not (0 < left < math.inf and 0 < right < math.inf):
        return ""
    times = max(left, right) / min(left, right)
    if times < 10:
        return f"{times:.2g}"
    return f"{times:,.0f}" if times < 1e5 else f"over 10^{math.floor(math.log10(times))}"


def join_names(names: list[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def count_noun(number: int, noun: str) -> str:
    """ "1 target", "2,000 targets"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
