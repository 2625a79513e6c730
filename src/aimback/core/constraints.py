"""Linear constraints among controls: read from text, and kept by moving points to the nearest place that keeps them."""

import ast
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aimback.core.checks import quote
from aimback.core.errors import UserError

_LONGEST_TEXT = 1000  # characters of a constraint
_CYCLES = 2000  # at most, of Dykstra's method
_EXACT = 1e-12  # box lengths: what rounding does to a sum of controls
_ROOM = 1e-6  # box lengths that some point must be away from every constraint
_POINTS = 256  # to find such a point with


class Constraints:
    """The points `x` of the unit cube with `weights x <= limits`; distances are in box lengths.

    Args:
        weights: `(n_constraints, n_controls)`, no row zero; limits: `(n_constraints,)`. Both float64 on the CPU.

    Raises:
        UserError: there is no room inside the cube that keeps them all.
    """

    def __init__(self, weights: Tensor, limits: Tensor) -> None:
        norms = torch.linalg.vector_norm(weights, dim=-1)
        self._weights, self._limits = weights / norms[:, None], limits / norms
        points = torch.rand(_POINTS, weights.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self._centre = self._approach(points).mean(0)
        self._room = self._limits - self._weights @ self._centre
        if not bool((self._room > _ROOM).all()):
            raise UserError("constraints: no room inside the ranges of the controls keeps them all")

    def measure_excess(self, unit: Tensor) -> Tensor:
        """How far points of the cube are beyond the constraint that they break most, `(..., n)` -> `(...)`.

        It is negative where all are kept, and NaN where a point is.
        """
        return self._find_excess(unit).amax(-1)

    def project(self, unit: Tensor) -> Tensor:
        """The nearest point in the cube that keeps them, `(..., n_controls)`; a row depends on that row alone.

        A point inside stays as it is, to the bit, and a NaN stays one.
        """
        inside = unit.clamp(0, 1)
        (rows,) = torch.nonzero((self.measure_excess(inside) > 0).flatten(), as_tuple=True)
        if len(rows) == 0:
            return inside
        moved = self._approach(unit.reshape(-1, unit.shape[-1])[rows].double().cpu())
        # What is left of the excess goes by a step towards a point with room on all sides.
        excess = (self._find_excess(moved) + _EXACT).clamp(min=0)
        share = (excess / (excess + self._room)).amax(-1, keepdim=True)
        moved = torch.lerp(moved, self._centre.expand_as(moved), share)
        flat = inside.reshape(-1, unit.shape[-1]).clone()
        flat[rows] = moved.to(flat)
        return flat.reshape(unit.shape)

    def shrink(self, margin: float) -> "Constraints":
        """The same in the unit cube of a box without a share of each width, in [0, 0.5), at either end."""
        return Constraints(self._weights * (1 - 2 * margin), self._limits - margin * self._weights.sum(-1))

    def _find_excess(self, unit: Tensor) -> Tensor:
        weights, limits = self._weights.to(unit), self._limits.to(unit)
        excess: Tensor = (unit[..., None, :] * weights).sum(-1) - limits
        return excess

    def _approach(self, points: Tensor) -> Tensor:
        """Dykstra's method (Boyle, Dykstra 1986) between the sets that each constraint leaves of the cube.

        One constraint takes one exact projection. With several, a row stops when what each has moved it by stays.
        """
        ends = points.clone()
        rows, there = torch.arange(len(points)), points
        owed = [torch.zeros_like(points) for _ in self._limits]
        for _ in range(_CYCLES if len(owed) > 1 else 1):
            before = owed.copy()
            for number, debt in enumerate(owed):
                asked = there + debt
                there = _project_on_one(asked, self._weights[number], self._limits[number])
                owed[number] = asked - there
            ends[rows] = there
            # Points alone may rest for many cycles before they go on (Birgin, Raydan 2005).
            changes = [(debt - past).abs().amax(-1) for debt, past in zip(owed, before, strict=True)]
            still = torch.stack(changes).amax(0) <= _EXACT
            rows, there, owed = rows[~still], there[~still], [debt[~still] for debt in owed]
            if len(rows) == 0:
                break
        return ends


def _project_on_one(points: Tensor, weights: Tensor, limit: Tensor) -> Tensor:
    """The nearest points of the cube with `weights x <= limit`, `(rows, n)`.

    These are `clamp(point - multiplier weights, 0, 1)`, with the least multiplier that is not negative and keeps the
    constraint. What it leaves of the excess falls piece by piece along straight lines, so it is found exactly.
    """
    bends = torch.cat([points / weights, (points - 1) / weights], dim=-1)
    bends = torch.where(bends.isfinite(), bends, 0.0).clamp(min=0)
    bends = torch.cat([torch.zeros_like(points[:, :1]), bends], dim=-1).sort(dim=-1).values
    excess = ((points[:, None] - bends[..., None] * weights).clamp(0, 1) * weights).sum(-1) - limit
    kept = excess <= 0
    after = torch.where(kept.any(-1), kept.int().argmax(-1), kept.shape[-1] - 1)[:, None]
    before = (after - 1).clamp(min=0)
    over, under = excess.gather(-1, before), excess.gather(-1, after)
    share = torch.where((over > 0) & (over > under), over / (over - under), 1.0)
    multiplier = torch.lerp(bends.gather(-1, before), bends.gather(-1, after), share)
    return (points - multiplier * weights).clamp(0, 1)


def read_constraints(
    texts: Sequence[str], ranges: Mapping[str, tuple[float, float]], pinned: Mapping[str, float]
) -> Constraints | None:
    """Read constraints such as "speed + 2*angle <= 9"; None where they leave every control as free as it is.

    On either side of `<=` or `>=` stand sums of controls times numbers, in the units of the controls; no code is run.

    Args:
        ranges: lower and upper bound of every control, by name, in the order of the box.
        pinned: controls that have a value.

    Raises:
        UserError: a text is something else, names something else, or cannot be kept.
    """
    rows = [row for text in texts for row in _read_constraint(text, list(ranges), pinned)]
    lower, upper = torch.tensor(list(ranges.values()), dtype=torch.float64).unbind(-1)
    weights, limits = [], []
    for text, weight, limit in rows:
        unit_weight = torch.tensor(weight, dtype=torch.float64) * (upper - lower)
        room = limit - float(torch.tensor(weight, dtype=torch.float64) @ lower)
        if not any(weight):
            if room < 0:
                raise UserError(f"constraints: {quote(text)} is never kept")
            continue
        weights.append(unit_weight)
        limits.append(room)
    return Constraints(torch.stack(weights), torch.tensor(limits, dtype=torch.float64)) if weights else None


def _read_constraint(
    text: str, names: Sequence[str], pinned: Mapping[str, float]
) -> list[tuple[str, list[float], float]]:
    """The text, the weight of each control and the limit, for each comparison in the text."""
    wanted = f"constraints: {quote(text)}: must compare sums of controls, as in 'speed + 2*angle <= 9'"
    try:
        if len(text) > _LONGEST_TEXT:
            raise ValueError("it is too long")
        read = ast.parse(text.strip(), mode="eval").body
        if not isinstance(read, ast.Compare) or not all(isinstance(sign, ast.LtE | ast.GtE) for sign in read.ops):
            raise ValueError("there is no <= and no >= in it")
        sides = [_read_sum(side, names, pinned) for side in (read.left, *read.comparators)]
    except SyntaxError as error:
        raise UserError(f"{wanted} ({error.msg})") from None
    except (ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise UserError(f"{wanted} ({error or 'it is too deep'})") from None
    found = []
    for left, sign, right in zip(sides, read.ops, sides[1:], strict=False):
        low, high = (left, right) if isinstance(sign, ast.LtE) else (right, left)
        *weight, limit = (a - b for a, b in zip(low, high, strict=True))
        found.append((text, weight, -limit))
    return found


def _read_sum(node: ast.expr, names: Sequence[str], pinned: Mapping[str, float]) -> list[float]:
    """The weight of each control, and last what is added to them."""
    nothing = [0.0] * len(names)
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            read = [*nothing, float(value)]
        case ast.Name(id=name) if name in pinned:
            read = [*nothing, pinned[name]]
        case ast.Name(id=name) if name in names:
            read = [float(name == one) for one in names] + [0.0]
        case ast.Name(id=name):
            raise ValueError(f"{name} is no control; these are {', '.join([*names, *pinned])}")
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=inner):
            read = _scale(_read_sum(inner, names, pinned), -1.0 if isinstance(sign, ast.USub) else 1.0)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as sign, right=right):
            other = _scale(_read_sum(right, names, pinned), -1.0 if isinstance(sign, ast.Sub) else 1.0)
            read = [a + b for a, b in zip(_read_sum(left, names, pinned), other, strict=True)]
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as sign, right=right):
            first, second = _read_sum(left, names, pinned), _read_sum(right, names, pinned)
            if isinstance(sign, ast.Mult) and not any(first[:-1]):
                first, second = second, first
            if any(second[:-1]):
                raise ValueError(f"{ast.unparse(node)} is not linear")
            read = _scale(first, second[-1] if isinstance(sign, ast.Mult) else 1 / second[-1])
        case _:
            raise ValueError(f"{ast.unparse(node)} is no sum of controls")
    if not all(map(math.isfinite, read)):
        raise ValueError(f"{ast.unparse(node)} is not finite")
    return read


def _scale(values: Sequence[float], factor: float) -> list[float]:
    return [factor * value for value in values]
