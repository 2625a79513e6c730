"""aimback: find the controls that make a simulator hit a target, by several routes, and compare them."""

from pathlib import Path

__version__ = "0.1.0"

# Where conf/, pipelines/ and dvc.yaml lie: in a folder of the package where it was installed from a wheel, and at the
# root of a checkout. As part of the package's path, `aimback.conf` and `aimback.pipelines` can be found in both.
_PACKED, _CHECKOUT = Path(__file__).resolve().parent / "project", Path(__file__).resolve().parents[2]
HOME = _PACKED if _PACKED.is_dir() else _CHECKOUT
__path__.append(str(HOME))
