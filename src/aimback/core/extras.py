"""Libraries that only some simulators and solvers need, and that only some installations have."""

from importlib.util import find_spec

from aimback.core.errors import UserError


def check_installed(library: str, extra: str) -> None:
    """Check that a library can be imported, without importing it.

    Args:
        extra: of this package, that brings it.

    Raises:
        UserError: it cannot.
    """
    if find_spec(library) is None:
        raise UserError(f"{library} is not installed; pip install 'aimback[{extra}]' brings it")
