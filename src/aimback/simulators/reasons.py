"""Why a run of a foreign simulator failed, on one line."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aimback.core.errors import UserError

LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class Failure:
    """A run that gave no outcome, and why.

    Attributes:
        case: the arguments of the simulator, by name.
    """

    case: Mapping[str, Any]
    reason: str


class FailedRunError(Exception):
    """A run has failed; the message is the whole reason."""


def describe_error(error: BaseException) -> str:
    """The reason that an exception gives; it need not even have a message that can be read."""
    name = type(error).__name__
    try:
        words = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - the user's class
        words = ""
    if words and not isinstance(error, FailedRunError | UserError):
        words = f"{name}: {words}"
    return (words or name)[:LONGEST_REASON]


def describe_exit(code: int) -> str:
    """How a process ended, by its exit code; those of signals are negative."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"
