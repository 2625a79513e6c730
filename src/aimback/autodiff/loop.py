"""Loops that run in Python and, where a compiler traces them, become loops of the compiled program.

Unrolled, a flight of some steps is a program of ten thousand operations, which compilers take
minutes over; as a loop it is one step, compiled in seconds, for any number of steps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from aimback.autodiff.dual import take_apart

Carried = tuple[Any, ...]


def loop(goes_on: Callable[..., Any], body: Callable[..., Carried], carried: Carried, fixed: Carried = ()) -> Carried:
    """`while goes_on(*carried, *fixed): carried = body(*carried, *fixed)`.

    Args:
        goes_on: -> a bool, or a tensor of one.
        carried: numbers, tensors and `Dual`s; `body` returns as many, of the same kinds, shapes and dtypes,
            and no two of them the same: a compiler would merge them and then lose one.
        fixed: what else both depend on. A traced loop sees no other tensor of its surroundings.
    """
    if not torch.compiler.is_compiling():
        while bool(goes_on(*carried, *fixed)):
            carried = body(*carried, *fixed)
        return carried
    start, together = take_apart(_tensors(carried))
    given, together_fixed = take_apart(_tensors(fixed))
    count = len(start)

    def ask(*tensors: Any) -> Any:
        return goes_on(*together(tensors[:count]), *together_fixed(tensors[count:]))

    def turn(*tensors: Any) -> Any:
        results = body(*together(tensors[:count]), *together_fixed(tensors[count:]))
        return _apart(take_apart(_tensors(results))[0])

    return together(torch.ops.higher_order.while_loop(ask, turn, _apart(start), tuple(given)))


def _tensors(operands: Sequence[Any]) -> list[Any]:
    """Make a tensor of every number."""
    return [torch.full((), one) if isinstance(one, int) else one for one in operands]


def _apart(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Copy tensors so that no two share memory, as a traced loop wants what it carries."""
    return tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors)
