"""How every command ends: a person reads one line, a caller reads the exit code.

| exit code | means |
|---|---|
| 0 | done |
| 1 | an error in the program; the trace is shown, and kept under outputs/logs |
| 2 | a person can mend it: one line says what; the trace is kept under outputs/logs |
| 128 + n | ended by signal n (130: Ctrl-C, 143: SIGTERM) |
"""

import contextlib
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from aimback.errors import UserError, out_of_memory

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
_LOGS = Path("outputs", "logs")
_LONGEST = 2000  # characters of a message; the trace that is kept has all of it


@contextlib.contextmanager
def ending(name: str, explain: Callable[[Exception], str | None] = lambda error: None) -> Iterator[None]:
    """Turn whatever is raised inside into an exit code and, where a person can mend it, one line.

    Args:
        name: of the command; its log is called so.
        explain: the line for an exception besides `UserError`; None where it is a fault of the program.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it is ends here
        message = str(error) if isinstance(error, UserError) else explain(error)
        if message is None and isinstance(error, OSError) and error.strerror:
            message = f"{error.filename or 'the system'}: {error.strerror}; see to that, then run again"
        if out_of_memory(error):
            message = f"there is not enough memory ({error}); ask for less at once, fewer examples, targets or starts"
        _keep_trace(name)
        if message is None:
            traceback.print_exc()
            sys.exit(1)
        print(f"error: {one_line(message)}", file=sys.stderr)
        sys.exit(2)


def one_line(message: str) -> str:
    """A message on one line, whatever it quotes: nothing moves the cursor, and what is very long loses its middle."""
    words = " ".join(message.split())
    line = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in words)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    print(f"ended by {signal.Signals(number).name}", file=sys.stderr)
    sys.exit(128 + number)


def _keep_trace(name: str) -> None:
    with contextlib.suppress(OSError):  # a full or read-only disk may be the very reason
        _LOGS.mkdir(parents=True, exist_ok=True)
        _LOGS.joinpath(f"{name}.log").write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
