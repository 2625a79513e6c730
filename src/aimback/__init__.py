"""aimback: find the controls that make a simulator hit a target, by several routes, and compare them.

`invert`, `prepare` and `compare` are for notebooks; they and PyTorch are imported when they are first asked for.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aimback.library.contest import compare
    from aimback.library.inversion import invert, prepare

__version__ = "0.1.0"

# Where conf/, pipelines/ and dvc.yaml lie: in a folder of the package where it was installed from a wheel, and at the
# root of a checkout. As part of the package's path, `aimback.conf` and `aimback.pipelines` can be found in both.
_PACKED, _CHECKOUT = Path(__file__).resolve().parent / "project", Path(__file__).resolve().parents[2]
HOME = _PACKED if _PACKED.is_dir() else _CHECKOUT
__path__.append(str(HOME))

__all__ = ["compare", "invert", "prepare"]

# By name, and not by an import: this package is below every room, and those are above it.
_HOMES = {
    "compare": "aimback.library.contest",
    "invert": "aimback.library.inversion",
    "prepare": "aimback.library.inversion",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'aimback' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
