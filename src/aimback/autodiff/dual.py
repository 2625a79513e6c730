"""Forward-mode differentiation in one pass: a value that carries its derivatives along.

Every rule is the chain rule for one operation. A map written with tensor arithmetic and the torch
functions in `_RULES` runs unchanged on `Dual`s and so yields its outcome and its whole Jacobian
together, at the cost of a few forward evaluations. `torch.func.jacfwd` gives the same numbers, but
costs about a hundred forward evaluations on the small batches of tiny equations met here.
"""

import contextlib
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Union

import torch
from torch import Tensor
from torch.nn import functional as F

from aimback.core.tracing import is_traced

Operand = Union["Dual", Tensor, float]


class Dual:
    """A tensor with its derivatives in `k` directions.

    Args:
        value: `(...)`.
        tangent: `(k, ...)`: one derivative of the same shape a direction, leading; a tensor or an `Each`.
    """

    __slots__ = ("tangent", "value")

    def __init__(self, value: Tensor, tangent: Any) -> None:
        self.value = value
        self.tangent = tangent

    @property
    def shape(self) -> torch.Size:
        return self.value.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.value.dtype

    def __getitem__(self, index: Any) -> "Dual":
        index = index if isinstance(index, tuple) else (index,)
        return Dual(self.value[index], self.tangent[(slice(None), *index)])

    def __neg__(self) -> "Dual":
        return Dual(-self.value, -self.tangent)

    def __add__(self, other: Operand) -> "Dual":
        if isinstance(other, Dual):
            return Dual(self.value + other.value, self.tangent + other.tangent)
        value = self.value + other
        return Dual(value, self._as_wide_as(value))

    __radd__ = __add__

    def __sub__(self, other: Operand) -> "Dual":
        if isinstance(other, Dual):
            return Dual(self.value - other.value, self.tangent - other.tangent)
        value = self.value - other
        return Dual(value, self._as_wide_as(value))

    def __rsub__(self, other: Tensor | float) -> "Dual":
        return -self + other

    def __mul__(self, other: Operand) -> "Dual":
        if isinstance(other, Dual):
            return Dual(self.value * other.value, torch.addcmul(self.tangent * other.value, other.tangent, self.value))
        return Dual(self.value * other, self.tangent * other)

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> "Dual":
        if isinstance(other, Dual):
            value = self.value / other.value
            return Dual(value, torch.addcmul(self.tangent, other.tangent, value, value=-1) / other.value)
        return Dual(self.value / other, self.tangent / other)

    def __rtruediv__(self, other: Tensor | float) -> "Dual":
        value = other / self.value
        return Dual(value, self.tangent * (-value / self.value))

    def unbind(self, dim: int = -1) -> tuple["Dual", ...]:
        """Split along one dimension of the value, counted from the end (`dim` < 0)."""
        pairs = zip(self.value.unbind(_from_end(dim)), self.tangent.unbind(dim), strict=True)
        return tuple(Dual(value, tangent) for value, tangent in pairs)

    def _as_wide_as(self, value: Tensor) -> Any:
        # Adding a constant leaves the tangent alone, unless the constant widened the value.
        return self.tangent if value.shape == self.value.shape else self.tangent.expand(-1, *value.shape)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        rule = _RULES.get(function)
        if rule is None:
            name = getattr(function, "__name__", function)
            raise TypeError(f"dual numbers have no rule for {name}")
        return rule(*args, **(kwargs or {}))


class Each:
    """k tensors in the place of one with k rows: what is done to it is done to each of them.

    One operation on all rows is what an interpreter wants. A compiler wants them apart: then values
    and tangents have the same shape, and it fuses the arithmetic of a whole step into one loop.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = tuple(parts)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.parts), *self.parts[0].shape))

    def __getitem__(self, index: tuple[Any, ...]) -> "Each":
        _all_rows, *inner = index
        return Each([part[tuple(inner)] for part in self.parts])

    def __neg__(self) -> "Each":
        return Each([-part for part in self.parts])

    def __add__(self, other: Any) -> "Each":
        return _for_each(operator.add, self, other)

    def __mul__(self, other: Any) -> "Each":
        return _for_each(operator.mul, self, other)

    def __truediv__(self, other: Any) -> "Each":
        return _for_each(operator.truediv, self, other)

    def __sub__(self, other: Any) -> "Each":
        return _for_each(operator.sub, self, other)

    __rmul__ = __mul__

    def unbind(self, dim: int) -> Iterator["Each"]:
        return (Each(parts) for parts in zip(*(part.unbind(dim) for part in self.parts), strict=True))

    def expand(self, _rows: int, *shape: int) -> "Each":
        return Each([part.expand(*shape) for part in self.parts])

    def new_zeros(self, _rows: int, *shape: int) -> "Each":
        return Each([part.new_zeros(*shape) for part in self.parts])

    def movedim(self, _first: int, last: int) -> Tensor:
        """Where the rows are asked for as a dimension again."""
        return torch.stack(self.parts, dim=last)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> "Each":
        return _for_each(function, *args, **(kwargs or {}))


def _for_each(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Each:
    def part(argument: Any, index: int) -> Any:
        if isinstance(argument, Each):
            return argument.parts[index]
        return [part(one, index) for one in argument] if isinstance(argument, list) else argument

    flat = [one for argument in args for one in (argument if isinstance(argument, list) else [argument])]
    count = next(len(one.parts) for one in flat if isinstance(one, Each))
    return Each([function(*(part(argument, index) for argument in args), **kwargs) for index in range(count)])


def seed(values: Tensor) -> Dual:
    """The variables to differentiate by: `(..., k)` -> a Dual whose tangents are the unit vectors."""
    directions = values.shape[-1]
    unit = torch.eye(directions, dtype=values.dtype, device=values.device)
    if is_traced():
        return Dual(values, Each([row.expand(values.shape) for row in unit]))
    unit = unit.reshape(directions, *([1] * (values.ndim - 1)), directions)
    return Dual(values, unit.expand(directions, *values.shape))


def unify(operands: Sequence[Any]) -> tuple[Any, ...]:
    """Make Duals of all of them as soon as one is a Dual: constants get tangents of zero."""
    some = next((one for one in operands if isinstance(one, Dual)), None)
    if some is None:
        return tuple(operands)
    directions = some.tangent.shape[0]
    return tuple(
        one if isinstance(one, Dual) else Dual(one, some.tangent.new_zeros(directions, *one.shape)) for one in operands
    )


def take_apart(operands: Sequence[Any]) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], tuple[Any, ...]]]:
    """The tensors of some Duals and tensors, and how to put others of the same number together alike."""
    tensors: list[Tensor] = []
    for operand in operands:
        parts = operand.tangent.parts if isinstance(operand, Dual) else ()
        tensors += [_value(operand), *parts]

    def together(others: Sequence[Tensor]) -> tuple[Any, ...]:
        left = iter(others)
        return tuple(
            Dual(next(left), Each([next(left) for _ in operand.tangent.parts]))
            if isinstance(operand, Dual)
            else next(left)
            for operand in operands
        )

    return tensors, together


def value_of(operand: Any) -> Tensor:
    """The number alone, cut off from every derivative."""
    value: Tensor = operand.value if isinstance(operand, Dual) else operand
    return value.detach()


def record_nothing() -> contextlib.AbstractContextManager[Any]:
    """Enter `torch.no_grad()`, except in a traced program, which records nothing anyway."""
    return contextlib.nullcontext() if is_traced() else torch.no_grad()


def linearise(forward: Callable[[Any, Tensor], Any], controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
    """Value and Jacobian of a forward map written in operations that `Dual` knows.

    Args:
        controls: `(..., n_controls)`; conditions: `(..., n_conditions)`.

    Returns:
        The outcome `(..., n_outcomes)` and its Jacobian `(..., n_outcomes, n_controls)`.

    Raises:
        TypeError: the map uses an operation without a rule.
    """
    with record_nothing():
        outcome = forward(seed(controls), conditions)
    return outcome.value, outcome.tangent.movedim(0, -1)


def _from_end(dim: int) -> int:
    if dim >= 0:
        raise ValueError("a Dual's dimensions are counted from the end: use a negative dim")
    return dim


def _unary(
    function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor, Tensor], Tensor], **plain: Any
) -> Callable[..., Dual]:
    """The rule of an elementwise function, its derivative given as a function of (input, output).

    Args:
        plain: what else the function takes, in its order, with the values that the derivative is for.
    """

    def rule(x: Dual, *given: Any, **named: Any) -> Dual:
        if plain | dict(zip(plain, given, strict=False)) | named != plain or len(given) > len(plain):
            raise TypeError(f"{function.__name__} has a rule for dual numbers in its plain form alone")
        value = function(x.value)
        return Dual(value, x.tangent * derivative(x.value, value))

    return rule


def _where(condition: Tensor, x: Operand, y: Operand) -> Dual:
    value = torch.where(condition, _value(x), _value(y))
    directions = next(part.tangent.shape[0] for part in (x, y) if isinstance(part, Dual))

    def tangent(part: Operand) -> Any:
        return part.tangent.expand(directions, *value.shape) if isinstance(part, Dual) else 0.0

    return Dual(value, torch.where(condition, tangent(x), tangent(y)))


def _join(join: Callable[..., Tensor]) -> Callable[..., Dual]:
    def rule(parts: Sequence[Operand], dim: int = 0) -> Dual:
        some = next(part.tangent for part in parts if isinstance(part, Dual))
        tangents = [
            part.tangent if isinstance(part, Dual) else some.new_zeros(some.shape[0], *part.shape)  # type: ignore[union-attr]
            for part in parts
        ]
        return Dual(join([_value(part) for part in parts], dim=_from_end(dim)), join(tangents, dim=dim))

    return rule


def _addcmul(a: Operand, b: Operand, c: Operand, *, value: float = 1.0) -> Dual:
    tangent = a.tangent if isinstance(a, Dual) else None
    for factor, other in ((b, c), (c, b)):
        if isinstance(factor, Dual):
            tangent = (
                value * factor.tangent * _value(other)
                if tangent is None
                else torch.addcmul(tangent, factor.tangent, _value(other), value=value)
            )
    assert tangent is not None  # the rule is only asked for when one operand is a Dual
    return Dual(torch.addcmul(_value(a), _value(b), _value(c), value=value), tangent)


def _linear(x: Dual, weight: Tensor, bias: Tensor | None = None) -> Dual:
    return Dual(F.linear(x.value, weight, bias), F.linear(x.tangent, weight))


def _value(operand: Operand) -> Any:
    return operand.value if isinstance(operand, Dual) else operand


def _sigmoid_slope(x: Tensor, _: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 - s)


def _silu_slope(x: Tensor, value: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s + value * (1 - s)


def _gelu_slope(x: Tensor, _: Tensor) -> Tensor:
    normal = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * normal


_relu = _unary(torch.relu, lambda x, _: (x > 0).to(x.dtype), inplace=False)

_RULES: dict[Any, Callable[..., Any]] = {
    # Only the forms with a Tensor on the left come this way; a Dual on the left uses its own operators.
    torch.Tensor.add: lambda x, y: y + x,
    torch.Tensor.__add__: lambda x, y: y + x,
    torch.Tensor.sub: lambda x, y: y.__rsub__(x),
    torch.Tensor.__sub__: lambda x, y: y.__rsub__(x),
    torch.Tensor.mul: lambda x, y: y * x,
    torch.Tensor.__mul__: lambda x, y: y * x,
    torch.Tensor.div: lambda x, y: y.__rtruediv__(x),
    torch.Tensor.__truediv__: lambda x, y: y.__rtruediv__(x),
    torch.sin: _unary(torch.sin, lambda x, _: torch.cos(x)),
    torch.cos: _unary(torch.cos, lambda x, _: -torch.sin(x)),
    torch.exp: _unary(torch.exp, lambda _, value: value),
    torch.expm1: _unary(torch.expm1, lambda _, value: value + 1),
    torch.log: _unary(torch.log, lambda x, _: 1 / x),
    torch.sqrt: _unary(torch.sqrt, lambda _, value: 0.5 / value),
    torch.tanh: _unary(torch.tanh, lambda _, value: 1 - value * value),
    torch.sigmoid: _unary(torch.sigmoid, _sigmoid_slope),
    torch.relu: _relu,
    F.relu: _relu,
    F.silu: _unary(F.silu, _silu_slope, inplace=False),
    F.gelu: _unary(F.gelu, _gelu_slope, approximate="none"),
    F.softplus: _unary(F.softplus, lambda x, _: torch.sigmoid(x), beta=1.0, threshold=20.0),
    F.linear: _linear,
    torch.addcmul: _addcmul,
    torch.where: _where,
    torch.stack: _join(torch.stack),
    torch.cat: _join(torch.cat),
}
