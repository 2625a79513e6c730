"""How numbers are said to people."""

import math
from collections.abc import Sequence

DASH = "—"
NEVER = "never"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None) -> str:
    """Three digits that matter; a dash where nothing was measured."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits, _, exponent = f"{value:.3g}".partition("e")
    return f"{digits} × {_power(int(exponent))}" if exponent else digits


def _power(exponent: int) -> str:
    """ "10⁻⁸"."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def say_amount(value: float | None, unit: str) -> str:
    """ "0.01 m"."""
    return f"{number(value)} {unit}".rstrip()


def align(cells: Sequence[Sequence[str]], left: int) -> list[str]:
    """The lines of a table; the first columns, which hold names, stand on the left, numbers on the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def about(value: float) -> str:
    """ "46,000": a count to two digits."""
    return number(float(f"{value:.2g}"))


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
    return f"{times:,.0f}" if times < 1e5 else f"over {_power(math.floor(math.log10(times)))}"


def join_names(names: list[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def count_noun(number: int, noun: str) -> str:
    """ "1 target", "2,000 targets"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
