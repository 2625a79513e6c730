"""How much is measured: all of it, or what two cores do in twenty minutes."""

import sys
from typing import TypeVar

IS_SHORT = sys.argv[1:] == ["field"]
_Extent = TypeVar("_Extent")


def pick(full: _Extent, short: _Extent) -> _Extent:
    """The seeds, tasks or sizes of a measurement that is committed, or of `python -m benchmarks field`."""
    return short if IS_SHORT else full
