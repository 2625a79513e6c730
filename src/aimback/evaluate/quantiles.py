"""Quantiles of more numbers than are held at once."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_IN_MEMORY = 4_194_304  # bytes; beyond that they lie in a file without a name
_AT_ONCE = 1_048_576  # numbers
_BITS = 21  # a third of the bits of a number without its sign


class Quantiles:
    """Numbers that are not negative, gathered in several calls; NaN counts as the greatest: what failed is not missing.

    Args:
        folder: where they are kept meanwhile; None: where the system keeps such files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(folder) if folder else None)  # noqa: SIM115 - it lives as long as this
        self._count = 0

    def __del__(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def add(self, numbers: Tensor) -> None:
        """Gather more of them."""
        # Without a sign, the bits of floats are in the order of their values, infinity and NaN last.
        self._file.write(numbers.to(torch.float64).abs().numpy().tobytes())
        self._count += len(numbers)

    def find(self, share: float) -> float:
        """The number below which this share of them lies, by the nearest rank: one of them, and no arithmetic with
        infinities. There must be one."""
        rank, first, shift, many = round(share * (self._count - 1)), 0, 3 * _BITS, self._count
        while many > _AT_ONCE and shift:  # finds the bits that the number begins with, a third at a time
            shift -= _BITS
            counts = np.zeros(1 << _BITS, np.int64)
            for bits in self._read(first, shift + _BITS):
                counts += np.bincount((bits >> shift) % len(counts), minlength=len(counts))
            ends = np.cumsum(counts)
            digit = int(np.searchsorted(ends, rank, side="right"))
            many, before = int(counts[digit]), int(ends[digit] - counts[digit])
            first, rank = first << _BITS | digit, rank - before
        found = np.sort(np.concatenate(list(self._read(first, shift))))[rank] if shift else np.int64(first)
        return float(found.view(np.float64))

    def _read(self, first: int, shift: int) -> Iterator[np.ndarray]:
        """The bits of those that begin with these bits."""
        self._file.seek(0)
        while data := self._file.read(8 * _AT_ONCE):
            bits = np.frombuffer(data, np.int64)
            yield bits[bits >> shift == first]
        self._file.seek(0, 2)
