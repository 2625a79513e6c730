"""A function of a row as one fused program, without a solver around it: what a solve cannot be faster than."""

import ctypes
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from aimback.compile.cpu import build_library
from aimback.compile.writer import write_step

_FRAME = Path(__file__).with_name("rows.cpp")


def fused(
    function: Callable[..., Tensor | tuple[Tensor, ...]], *example: Tensor, optimise: bool = True
) -> Callable[[Tensor], Tensor]:
    """Compile a function of tensors `(rows, ...)`, none of whose rows depends on another one.

    Args:
        example: what it takes; the first row is looked at.
        optimise: see `Cpu`.

    Returns:
        The function of all numbers that it takes of a row, as columns `(numbers, rows)`; it returns such columns.
    """
    row = [part[:1].clone() for part in example]

    def take_row(*tensors: Tensor) -> tuple[Tensor, ...]:
        result = function(*tensors)
        return (result,) if isinstance(result, Tensor) else result

    with torch.no_grad():
        given = sum(part.numel() for part in take_row(*row))
    assert given <= 256, "as many columns as rows.cpp has room for"
    text = write_step(take_row, row)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.so"
        build_library(_FRAME, text, row[0].dtype, path, optimise)
        apply = ctypes.CDLL(str(path)).apply_to_rows

    def fused_function(columns: Tensor) -> Tensor:
        taken, rows = columns.shape
        results = columns.new_empty(given, rows)
        apply(*map(_argument, (columns, taken, results, given, rows)))
        return results

    return fused_function


def _argument(value: Tensor | int) -> ctypes.c_void_p | ctypes.c_int64:
    return ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else ctypes.c_int64(value)


def columns_of(*parts: Tensor) -> Tensor:
    """Tensors `(rows, ...)` as `fused` takes them."""
    return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1).T.contiguous()
