"""Named quantities as a config describes them: numbers or arrays, in a range or pinned to a value."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aimback.core.box import Axis
from aimback.core.checks import quote
from aimback.core.errors import UserError

_LARGEST = 10_000  # numbers in an array
_DESCRIBED = "give [lower, upper, unit], {range: [lower, upper], unit: ..., size: ...}, or a number to pin it"


@dataclass(frozen=True)
class Quantity:
    """One argument or one result of a simulator.

    Attributes:
        name: what the simulator calls it.
        unit: of each of its numbers, "" for none.
        size: how many numbers an array holds; None of a plain number.
        bounds: the closed range of each number; None of a pinned quantity, and of an outcome whose range is unknown.
        value: what a pinned quantity is; None of one that varies.
    """

    name: str
    unit: str
    size: int | None
    bounds: tuple[float, float] | None
    value: float | tuple[float, ...] | None = None

    @property
    def columns(self) -> int:
        """How many numbers of a row it takes up."""
        return 1 if self.size is None else self.size

    def name_columns(self) -> list[str]:
        """Its own name, or one for each number of an array, counted from 1."""
        return [self.name] if self.size is None else [f"{self.name}_{number}" for number in range(1, self.size + 1)]

    def make_axes(self) -> list[Axis]:
        """One axis for each number."""
        assert self.bounds is not None
        return [Axis(name, self.unit, *self.bounds) for name in self.name_columns()]


def spread_arrays(quantities: Iterable[Quantity]) -> list[Quantity]:
    """The numbers of arrays as quantities of their own."""
    flat = []
    for one in quantities:
        values = one.value if isinstance(one.value, tuple) else (one.value,) * one.columns
        names = zip(one.name_columns(), values, strict=True)
        flat += [Quantity(name, one.unit, None, one.bounds, value) for name, value in names]
    return flat


def read_quantities(section: Mapping[str, Any], kind: str) -> list[Quantity]:
    """Read the controls, or the conditions, of a config.

    Args:
        section: a range or a value by name.
        kind: the name of the section, for messages.

    Raises:
        UserError: names the quantity and what is allowed.
    """
    quantities = [_read_quantity(str(name), node, f"{kind}.{name}") for name, node in section.items()]
    if wrong := next((found.name for found in quantities if not found.name.isidentifier()), None):
        raise UserError(f"{kind}: {quote(wrong)} is no name of an argument: letters, digits and _")
    return quantities


def _read_quantity(name: str, node: Any, place: str) -> Quantity:
    if _is_number(node):
        return Quantity(name, "", None, None, float(node))
    if isinstance(node, Sequence) and not isinstance(node, str):
        if len(node) not in (2, 3):
            raise UserError(f"{place}: {_DESCRIBED}; got {quote(node)}")
        node = {"range": node[:2], "unit": node[2] if len(node) == 3 else ""}
    if not isinstance(node, Mapping):
        raise UserError(f"{place}: {_DESCRIBED}; got {quote(node)}")
    if unknown := sorted(set(map(str, node)) - {"range", "unit", "size", "value"}):
        raise UserError(f"{place}.{unknown[0]}: unknown key; {_DESCRIBED}")
    unit = str(node.get("unit", ""))
    if "value" in node:
        value = node["value"]
        numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not numbers or not all(_is_number(number) for number in numbers):
            raise UserError(f"{place}.value: must be a number or a list of numbers, got {quote(value)}")
        if numbers is value:
            return Quantity(name, unit, len(numbers), None, tuple(map(float, numbers)))
        return Quantity(name, unit, None, None, float(value))
    return Quantity(name, unit, _read_size(node, place), read_range(node.get("range"), f"{place}.range"))


def read_range(node: Any, place: str) -> tuple[float, float]:
    """Read `[lower, upper]`.

    Raises:
        UserError: it is not two finite numbers in order.
    """
    pair = list(node) if isinstance(node, Sequence) and not isinstance(node, str) else []
    if len(pair) != 2 or not all(_is_number(bound) for bound in pair):
        raise UserError(f"{place}: must be two numbers, [lower, upper], got {quote(node)}")
    lower, upper = map(float, pair)
    if not (np.isfinite(lower) and np.isfinite(upper) and lower < upper):
        raise UserError(f"{place}: the lower bound must be below the upper, both finite, got [{lower:g}, {upper:g}]")
    return lower, upper


def _read_size(node: Mapping[str, Any], place: str) -> int | None:
    size = node.get("size")
    if size is not None and not (isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= _LARGEST):
        raise UserError(f"{place}.size: must be a whole number from 1 to {_LARGEST:,}, got {quote(size)}")
    return size


@dataclass(frozen=True)
class Outcome:
    """One result of a simulator.

    Attributes:
        quantity: its name, unit, size, and range where that is known.
        tolerance: how far each of its numbers may be from the target.
        sigma: the standard deviation of each of a target's numbers where these are measured, else None.
    """

    quantity: Quantity
    tolerance: float
    sigma: float | None = None


def read_outcomes(section: Mapping[str, Any]) -> list[Outcome]:
    """Read the outcomes of a config, `{name: {unit: m, tolerance: 0.01, sigma: 0.005}}`.

    Raises:
        UserError: names the outcome and what is allowed.
    """
    if not section:
        raise UserError("outcomes: name at least one, e.g. distance: {unit: m, tolerance: 0.01}")
    outcomes = []
    for name, node in section.items():
        place = f"outcomes.{name}"
        if not isinstance(node, Mapping):
            raise UserError(f"{place}: give {{unit: ..., tolerance: ...}}, got {quote(node)}")
        if unknown := sorted(set(map(str, node)) - {"range", "unit", "size", "tolerance", "sigma"}):
            raise UserError(f"{place}.{unknown[0]}: unknown key; known are unit, tolerance, sigma, range, size")
        tolerance = _read_width(node.get("tolerance"), f"{place}.tolerance")
        sigma = None if node.get("sigma") is None else _read_width(node["sigma"], f"{place}.sigma")
        known = node.get("range")
        bounds = None if known is None else read_range(known, f"{place}.range")
        quantity = Quantity(str(name), str(node.get("unit", "")), _read_size(node, place), bounds)
        outcomes.append(Outcome(quantity, tolerance, sigma))
    silent = [one.quantity.name for one in outcomes if one.sigma is None]
    if silent and len(silent) < len(outcomes):
        raise UserError(f"outcomes.{silent[0]}.sigma: is missing; give that of every outcome, or of none")
    return outcomes


def _read_width(value: Any, place: str) -> float:
    if not (_is_number(value) and 0 < float(value) < np.inf):
        raise UserError(f"{place}: must be a number above 0, got {quote(value)}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def split_columns(quantities: Iterable[Quantity], columns: Any) -> dict[str, Any]:
    """Name the columns of rows.

    Args:
        columns: `(..., n)`, anything that can be indexed like a tensor.

    Returns:
        For each quantity that varies `(...)`, or `(..., size)` of an array.
    """
    named, first = {}, 0
    for quantity in quantities:
        if quantity.value is None:
            last = first + quantity.columns
            named[quantity.name] = columns[..., first] if quantity.size is None else columns[..., first:last]
            first = last
    return named


def list_parts(value: Any, names: Sequence[str], who: str) -> list[Any]:
    """What a simulator has returned for each outcome, in the order of the names.

    Args:
        value: a mapping by name, a tuple or a list with one part for each, or the part itself where there is one.
        who: the simulator, for messages.

    Raises:
        UserError: it is something else.
    """
    wanted = f"it must return {', '.join(names)}, as a number or an array each"
    if isinstance(value, Mapping):
        if missing := [name for name in names if name not in value]:
            raise UserError(f"{who} returned no {missing[0]} but {quote(list(value))}; {wanted}")
        return [value[name] for name in names]
    if isinstance(value, tuple | list) and len(value) == len(names):
        return list(value)
    if isinstance(value, tuple | list) and len(names) > 1:
        raise UserError(f"{who} returned {len(value)} values; {wanted}")
    if len(names) > 1 and getattr(value, "shape", ())[-1:] == (len(names),):
        return [value[..., column] for column in range(len(names))]
    if len(names) > 1 or value is None or isinstance(value, str | bytes):
        raise UserError(f"{who} returned {quote(value)}; {wanted}")
    return [value]


def read_outcome(value: Any, quantities: Sequence[Quantity], who: str) -> NDArray[np.float64]:
    """Put the numbers that a simulator has returned of one case in a row, `(n_outcomes,)`.

    Raises:
        UserError: it is something else than numbers, or another number of them.
    """
    parts = list_parts(value, [quantity.name for quantity in quantities], who)
    numbers = []
    for quantity, part in zip(quantities, parts, strict=True):
        try:
            array = np.asarray(part, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            raise UserError(f"{who} returned {quote(part)} as {quantity.name}, which is no number") from None
        if len(array) != quantity.columns:
            raise UserError(f"{who} returned {len(array)} numbers as {quantity.name}, it should be {quantity.columns}")
        numbers.append(array)
    return np.concatenate(numbers)


def name_cases(quantities: Sequence[Quantity], rows: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The arguments of each of some cases, pinned ones too: plain floats, and arrays where there are arrays.

    Args:
        rows: what varies, `(n, n_columns)`.
    """
    pinned = pin(quantities, np.array)
    named = split_columns(quantities, rows)
    # A list gives plain floats, which is what code that was written for one case expects.
    columns = [part.tolist() if part.ndim == 1 else part for part in named.values()]
    return [dict(zip(named, case, strict=True)) | pinned for case in zip(*columns, strict=True)]


def pin(quantities: Iterable[Quantity], make_array: Callable[[Sequence[float]], Any]) -> dict[str, Any]:
    """The values of those that are pinned."""
    return {
        quantity.name: make_array(quantity.value) if isinstance(quantity.value, tuple) else quantity.value
        for quantity in quantities
        if quantity.value is not None
    }
