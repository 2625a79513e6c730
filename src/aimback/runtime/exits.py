"""How every command ends: a person reads one line, a caller reads the exit code.

| exit code | means |
|---|---|
| 0 | done |
| 1 | an error in the program; the trace is shown, and kept under outputs/logs |
| 2 | a person can mend it: one line says what; the trace is kept under outputs/logs |
| 128 + n | ended by signal n (130: Ctrl-C, 143: SIGTERM) |

The code tells what became of the work: a reader who leaves early (`| head`) does not change it.
"""

import contextlib
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from aimback.core.errors import UserError, is_out_of_memory
from aimback.runtime.project import ROOT

_LOGS = ROOT / "outputs" / "logs"
_LONGEST = 2000  # characters of a message; the trace that is kept has all of it


class _Stream(io.FileIO):
    """Standard output or error. What cannot be written does not stop the work; `lost` tells why at its end."""

    lost: OSError | None = None

    def write(self, text: Any) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.lost = error
            return len(text)


@contextlib.contextmanager
def report_errors(name: str, explain: Callable[[Exception], str | None] = lambda error: None) -> Iterator[None]:
    """Turn whatever is raised inside into an exit code and, where a person can mend it, one line.

    Args:
        name: of the command; its log is called so.
        explain: the line for an exception besides `UserError`; None where it is a fault of the program.
    """
    output = _guard_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        if not callable(before) or before is signal.default_int_handler:  # a scheduler's worker has a way of its own
            signal.signal(number, _end_by_signal)
    try:
        try:
            yield
        except SystemExit as ended:
            if ended.code:  # what went wrong matters more than what was not read
                raise
        finally:
            sys.stdout.flush()  # what was printed stands before what is said of an error
        if output is not None and output.lost is not None and output.lost.errno != errno.EPIPE:
            reason = output.lost.strerror
            raise UserError(f"standard output: {reason}; what was to be printed is lost, the work is done")
    except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it is ends here
        message = str(error) if isinstance(error, UserError) else explain(error)
        if message is None and isinstance(error, OSError) and error.strerror:
            message = f"{error.filename or 'the system'}: {error.strerror}; see to that, then run again"
        if is_out_of_memory(error):
            message = f"there is not enough memory ({error}); ask for less at once, fewer examples, targets or starts"
        _keep_trace(name)
        if message is None:
            traceback.print_exc()
            sys.exit(1)
        print(f"error: {join_lines(message)}", file=sys.stderr)
        sys.exit(2)


def join_lines(message: str) -> str:
    """A message on one line, whatever it quotes: nothing moves the cursor, and what is very long loses its middle."""
    words = " ".join(message.split())
    line = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in words)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"


def _guard_streams() -> _Stream | None:
    """Have all that is printed from here on go through a `_Stream`; standard output's, unless it is replaced."""
    for descriptor in range(3):  # a file that is opened later would take the place of a closed one
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        return None  # by a test, or by an outer `report_errors`
    output, errors = _Stream(1, "w", closefd=False), _Stream(2, "w", closefd=False)
    sys.stdout = _wrap(output, sys.stdout, by_line=output.isatty())
    sys.stderr = _wrap(errors, sys.stderr, by_line=True)
    return output


def _wrap(raw: _Stream, before: Any, by_line: bool) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", "utf-8")  # there is none where the caller has closed the stream
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=by_line)


def _end_by_signal(number: int, frame: FrameType | None) -> NoReturn:
    print(f"ended by {signal.Signals(number).name}", file=sys.stderr)
    sys.exit(128 + number)


def _keep_trace(name: str) -> None:
    with contextlib.suppress(OSError):  # a full or read-only disk may be the very reason
        _LOGS.mkdir(parents=True, exist_ok=True)
        _LOGS.joinpath(f"{name}.log").write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
