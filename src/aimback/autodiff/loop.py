"""Loops that run in Python and, where a compiler traces them, become loops of the compiled program.

Unrolled, a flight of some steps is a program of ten thousand operations, which compilers take
minutes over; as a loop it is one step, compiled in seconds, for any number of steps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from aimback.autodiff.dual import take_apart
from aimback.core.tracing import find_tracer

Carried = tuple[Any, ...]


def loop(goes_on: Callable[..., Any], body: Callable[..., Carried], carried: Carried) -> Carried:
    """`while goes_on(*carried): carried = body(*carried)`.

    Args:
        goes_on: -> a bool, or a tensor of one.
        carried: numbers, tensors and `Dual`s; `body` returns as many, of the same kinds, shapes and dtypes.
    """
    tracer = find_tracer()
    if tracer is None:
        while bool(goes_on(*carried)):
            carried = body(*carried)
        return carried
    start, together = take_apart(_tensors(carried))

    def turn(*tensors: torch.Tensor) -> list[torch.Tensor]:
        return take_apart(_tensors(body(*together(tensors))))[0]

    return together(tracer.write_loop(lambda *tensors: goes_on(*together(tensors)), turn, start))


def _tensors(operands: Sequence[Any]) -> list[Any]:
    """Make a tensor of every number."""
    return [torch.full((), one) if isinstance(one, int) else one for one in operands]
