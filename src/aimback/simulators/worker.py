"""The processes of a pool: a keeper for each worker, and below it the runner that holds the user's code.

The keeper runs none of the user's code, has one thread and few imports. So it can fork a new runner within
milliseconds when one has died, and nothing that hangs keeps it from ending the runner's whole session: at an order, and
when the process that wanted the runs has ended, however it ended. A fork of a keeper shares no thread, no lock and no
random state with anybody.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import psutil

from aimback.simulators.reasons import LONGEST_REASON, FailedRunError, describe_error

START, END = b"s", b"e"  # the orders that a keeper knows
_TAIL = 4000  # bytes of what a runner printed that are remembered
_SECONDS_TO_END = 0.5
_SECONDS_BETWEEN_LOOKS = 0.5


def keep(descriptor: int, parent: int) -> None:
    """Start and end runners as ordered, until `parent` has ended or has closed the socket.

    Every order is answered by one line of JSON. That to `START` comes with the socket of a new runner; that to `END`
    tells how the last runner ended, as `os.waitpid` does, and the last line that it printed.

    Args:
        descriptor: of the socket that orders come from.
        parent: the process that gives them.
    """
    keeper = _Keeper(socket.socket(fileno=descriptor))
    with contextlib.suppress(OSError):  # of a socket whose other end is gone
        while os.getppid() == parent and keeper.look():
            pass
    keeper.retire()


class _Keeper:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._home = os.getcwd()  # noqa: PTH109 - nothing is imported that is not needed
        self._runner = 0
        self._output = -1
        self._tail = b""

    def look(self) -> bool:
        """Wait for an order or a print of the runner, not for long. -> whether there may come more."""
        sources: list[Any] = [self._control] if self._output < 0 else [self._control, self._output]
        ready, _, _ = select.select(sources, [], [], _SECONDS_BETWEEN_LOOKS)
        if self._output in ready:
            self._listen()
        if self._control in ready:
            order = self._control.recv(1)
            if order == START:
                self._start()
            elif order == END:
                self._end()
            return bool(order)
        return True

    def retire(self) -> None:
        """End the runner; an idle one ends by itself, since nobody holds the other end of its socket any more."""
        if self._runner:
            until = time.monotonic() + _SECONDS_TO_END
            while time.monotonic() < until and not os.waitid(
                os.P_PID, self._runner, os.WEXITED | os.WNOHANG | os.WNOWAIT
            ):
                time.sleep(0.01)
            _end_session(self._runner)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._output, printing = os.pipe()
        self._runner = os.fork()
        if self._runner == 0:
            for place in (self._control.detach(), ours.detach(), self._output):
                os.close(place)
            _leave(printing)
            _serve(Connection(theirs.detach()), self._home)
            sys.exit()  # as any Python ends, so that what the user's code wanted done at exit is done
        os.close(printing)
        theirs.close()
        with ours:
            socket.send_fds(self._control, [b"{}\n"], [ours.fileno()])

    def _end(self) -> None:
        status, self._runner = _end_session(self._runner), 0
        for _ in range(100):  # somebody who has escaped may print for ever
            if self._output < 0 or not select.select([self._output], [], [], 0)[0]:
                break
            self._listen()
        if self._output >= 0:
            os.close(self._output)
        lines = self._tail.decode(errors="replace").split("\n")
        last = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
        self._output, self._tail = -1, b""
        self._control.sendall(json.dumps({"status": status, "last": last[:LONGEST_REASON]}).encode() + b"\n")

    def _listen(self) -> None:
        printed = os.read(self._output, 65536)
        self._tail = (self._tail + printed)[-_TAIL:]
        if not printed:
            os.close(self._output)
            self._output = -1


def _end_session(runner: int) -> int:
    """Kill a runner and all that it has started, and reap it. -> its status, which is its own where it ended first."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(runner, signal.SIGKILL)
    for _ in range(2):  # one that has been started during the first look is seen by the second
        for process in psutil.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if process != runner and os.getsid(process) == runner:
                    os.kill(process, signal.SIGKILL)
    return os.waitpid(runner, 0)[1]


def _leave(printing: int) -> None:
    """Leave the keeper's session and streams: nothing that this fork prints disturbs anybody."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for place, stream in enumerate((nothing, printing, printing)):
        os.dup2(stream, place)
    os.close(nothing)
    os.close(printing)
    # New objects: those of before take the streams for what they were.
    sys.stdout, sys.stderr = (open(place, "w", 1, "utf-8", "replace", closefd=False) for place in (1, 2))  # noqa: SIM115


def _serve(connection: Connection, home: str) -> None:
    """Receive a simulator and then cases, and answer each by (it went well, its value or the reason why not)."""
    try:
        # A simulator that cannot be loaded here is told of like a case that fails.
        simulator, reason = None, None
        try:
            simulator = connection.recv()
        except EOFError:
            raise
        except BaseException as error:  # noqa: BLE001 - the user's modules are imported here
            reason = describe_error(error)
        connection.send((reason is None, reason))
        while True:
            method, case = connection.recv()
            connection.send(_run(simulator, method, case, home))
    except (EOFError, OSError):  # nobody wants more
        return


def _run(simulator: Any, method: str, case: Mapping[str, Any], home: str) -> tuple[bool, object]:
    try:
        os.chdir(home)  # the case before may have gone elsewhere
        return True, _make_plain(getattr(simulator, method)(case))
    except BaseException as error:  # noqa: BLE001 - sys.exit() in the user's code is a failed case too
        return False, describe_error(error)


def _make_plain(value: object) -> object:
    """Of numbers, text, None, arrays, lists and mappings only: what the other side can read without the user's code."""
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, Mapping):
        return {str(name): _make_plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_make_plain(part) for part in value]
    if hasattr(value, "detach"):  # a tensor, which may have a graph or lie on a GPU
        value = value.detach().cpu()
    import numpy as np

    array = np.asarray(value)
    if array.dtype.kind not in "biufcU":
        raise FailedRunError(f"it returned a {type(value).__name__}, not numbers")
    # A subclass of arrays would need the user's modules on the other side.
    return array.item() if array.ndim == 0 else np.ascontiguousarray(array)
