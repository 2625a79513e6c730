"""Whether what is being computed is written down as the program of one row, and by whom."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from torch import Tensor


class Tracer(Protocol):
    """Who writes a program down has to be told of its loops: Python would run them."""

    def write_loop(
        self, goes_on: Callable[..., Tensor], body: Callable[..., Sequence[Tensor]], carried: Sequence[Tensor]
    ) -> list[Tensor]:
        """Write `while goes_on(*carried): carried = body(*carried)`; returns what is carried out of it.

        Args:
            goes_on: -> a truth value, `()`.
            body: returns as many tensors as it is given, of the same shapes.
        """
        ...


_tracer: ContextVar[Tracer | None] = ContextVar("tracer", default=None)


def find_tracer() -> Tracer | None:
    return _tracer.get()


def is_traced() -> bool:
    """Whether every tensor stands for that of any row: what it holds cannot be asked for, and rows are alone."""
    return _tracer.get() is not None


@contextmanager
def trace_for(tracer: Tracer) -> Iterator[None]:
    """Let what is computed be known to be traced."""
    token = _tracer.set(tracer)
    try:
        yield
    finally:
        _tracer.reset(token)
