"""Many cases through a simulator that may hang, crash or leak, in a few processes of their own.

Each worker is a keeper and a runner (`aimback.simulators.worker`), started as a new Python. A fork of this process
would not do: it has the threads of PyTorch and perhaps a GPU, which do not survive one. Nor do multiprocessing's ways
to start afresh: they import the caller's main module in every worker, a stage with PyTorch and all.

No library does this. In `pebble` 5.2.3 all workers share one pipe and its lock: one that dies while it answers breaks
the pool, and one that ignores SIGTERM makes all wait for three seconds. `concurrent.futures` loses every running
case with any worker that dies, and stops none that hangs.
"""

import contextlib
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from aimback.core.errors import UserError
from aimback.runtime.surroundings import clean
from aimback.simulators.contract import CaseSimulator
from aimback.simulators.reasons import describe_error, describe_exit
from aimback.simulators.worker import END, START

LEAST_RUNS = 20  # so many before a share of failures says anything
_SECONDS_TO_LOAD = 120.0  # for the imports of the user's code
_LOADS = 3
_REASONS = 3  # that a summary names
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from aimback.simulators.worker import keep; keep({descriptor}, {parent})"
)


@dataclass(frozen=True)
class Result:
    """What became of one case.

    Attributes:
        value: what the simulator gave, made of numbers, text, None, arrays, lists and mappings only.
        reason: why it failed, on one line; None where it did not.
    """

    value: object = None
    reason: str | None = None


class Pool:
    """Workers that run the cases of one simulator. Use it as a context, or close it.

    A worker starts with the first case that needs it and stays until the pool is closed. It computes with one thread,
    and what it prints is heard only where it dies: its last line then belongs to the reason.

    Args:
        simulate: it is pickled into every worker.
        workers: how many run at once.
        timeout: seconds that one run may take; it is killed then, with all processes that it has started.
        retries: how often a case is run again that raised, or whose process died. One that timed out is not.
        folder: the working folder of every run; this process's own if None.
        places: what is imported from; where this process imports from if None.
    """

    def __init__(
        self,
        simulate: CaseSimulator,
        workers: int,
        timeout: float,
        retries: int = 0,
        folder: Path | None = None,
        places: Sequence[str] | None = None,
    ) -> None:
        self._simulate, self._timeout, self._retries = simulate, timeout, retries
        self._workers = [_Worker(folder, places) for _ in range(workers)]
        self._loads = 1  # that may fail in succession, the last of them ends it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(
        self,
        cases: Sequence[Mapping[str, float | np.ndarray]],
        progress: Callable[[int, Result], None] | None = None,
        method: str = "__call__",
        failures: float = 0.5,
    ) -> list[Result]:
        """Run all cases. -> their results, in the order of the cases.

        Args:
            progress: called after every case, as they come to an end, with its place and its result.
            method: of the simulator, "jacobian" for derivatives.
            failures: share of failed runs, of at least `LEAST_RUNS`, above which it gives up.

        Raises:
            UserError: the simulator cannot be loaded, or too many runs have failed.
        """
        results: dict[int, Result] = {}
        waiting = deque((place, self._retries) for place in range(len(cases)))
        failed = 0
        try:
            while len(results) < len(cases):
                free = sum(worker.connection is not None and worker.task is None for worker in self._workers)
                for worker in self._workers:
                    if worker.connection is None and free < len(waiting):
                        worker.start(self._simulate)
                        free += 1
                    if waiting and worker.is_idle:
                        worker.task = waiting.popleft()
                        worker.send((method, cases[worker.task[0]]), self._timeout)
                for worker, answer in self._listen():
                    fine, value = answer
                    if worker.task is None:  # it was loading
                        # Where that went well before, a single failure may have come from outside.
                        self._loads = _LOADS if fine else self._loads - 1
                        if not fine:
                            worker.discard()
                        if self._loads <= 0:
                            raise UserError(f"the simulator cannot be loaded: {value}")
                        continue
                    (place, retries), worker.task = worker.task, None
                    if not fine and retries and worker.in_time:
                        waiting.appendleft((place, retries - 1))
                        continue
                    result = results[place] = Result(value) if fine else Result(reason=str(value))
                    failed += not fine
                    if progress is not None:
                        progress(place, result)
                    check_failures(results.values(), failed, failures)
        except BaseException:
            self.close()
            raise
        return [results[place] for place in range(len(cases))]

    def _listen(self) -> "list[tuple[_Worker, tuple[bool, object]]]":
        """Wait for those that are at work. -> whoever has answered, died or run out of time, and its answer."""
        busy = [worker for worker in self._workers if worker.until is not None]
        until = min(worker.until for worker in busy if worker.until is not None)
        patience = None if until == math.inf else max(until - time.monotonic(), 0.0)
        ready = wait([worker.connection for worker in busy if worker.connection is not None], patience)
        now = time.monotonic()
        # What has been answered in time counts, however late it is read.
        return [(worker, worker.receive(worker.connection in ready)) for worker in busy
                if worker.connection in ready or (worker.until is not None and worker.until <= now)]  # fmt: skip

    def close(self) -> None:
        """End all workers: idle ones at their leisure, for half a second, others by force."""
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.wait()


class Inline:
    """Cases that this process runs itself, with the same `run` and `close` as a `Pool`.

    Args:
        simulate: runs a case.
    """

    def __init__(self, simulate: CaseSimulator) -> None:
        self._simulate = simulate

    def run(
        self,
        cases: Sequence[Mapping[str, float | np.ndarray]],
        progress: Callable[[int, Result], None] | None = None,
        method: str = "__call__",
        failures: float = 0.5,
    ) -> list[Result]:
        """See `Pool.run`; only when all cases are done are their failures counted."""
        results = []
        for place, case in enumerate(cases):
            try:
                result = Result(getattr(self._simulate, method)(case))
            except Exception as error:  # noqa: BLE001 - a run that fails is a row that is marked
                result = Result(reason=describe_error(error))
            results.append(result)
            if progress is not None:
                progress(place, result)
        check_failures(results, sum(result.reason is not None for result in results), failures)
        return results

    def close(self) -> None:
        """Nothing is to be ended."""


def list_places() -> list[str]:
    """Where this process imports from, as whole paths."""
    return [os.path.abspath(place) for place in sys.path]  # noqa: PTH100 - "" is the working folder


def check_failures(results: Collection[Result], failed: int, allowed: float) -> None:
    """Raises `UserError` if more than the share that is allowed have failed, of at least `LEAST_RUNS`."""
    if len(results) >= LEAST_RUNS and failed > allowed * len(results):
        raise UserError(f"{summarise_failures(list(results))}; simulator.failures allows fewer")


def summarise_failures(results: Sequence[Result]) -> str:
    """Say on one line how many of the runs failed and why: "63 of 120 runs failed: 40 timed out after 30 s, ..."."""
    reasons = [result.reason for result in results if result.reason is not None]
    # Reasons that differ in a number only are one; the first of them is quoted.
    kinds = [re.sub(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", "0", reason) for reason in reasons]
    first = dict(zip(reversed(kinds), reversed(reasons), strict=True))
    counts = Counter(kinds).most_common()
    named = [f"{count} {first[kind]}" for kind, count in counts[:_REASONS]]
    if others := sum(count for _, count in counts[_REASONS:]):
        named.append(f"{others} for other reasons")
    return f"{len(reasons)} of {len(results)} runs failed" + (f": {', '.join(named)}" if named else "")


class _Worker:
    """A keeper and its runner, seen from here.

    Attributes:
        connection: to the runner; None where there is none.
        task: the case that it runs, and how often that may be run again.
        until: when its time runs out; None where it has nothing to do.
        in_time: whether the last answer came before that.
    """

    def __init__(self, folder: Path | None, places: Sequence[str] | None) -> None:
        self._folder, self._places = folder, places
        self._keeper: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.connection: Connection[Any, Any] | None = None
        self.task: tuple[int, int] | None = None
        self.until: float | None = None
        self._seconds = 0.0
        self.in_time = True

    @property
    def is_idle(self) -> bool:
        return self.connection is not None and self.until is None

    def start(self, simulate: CaseSimulator) -> None:
        """Start a runner, below a new keeper if need be, and have it load the simulator."""
        if self._control is None:
            self._control, theirs = socket.socketpair()
            places = list_places() if self._places is None else list(self._places)
            program = _PROGRAM.format(path=places, descriptor=theirs.fileno(), parent=os.getpid())
            # In a session of its own: Ctrl-C is for us, who end our workers.
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-c", program],
                cwd=self._folder,
                env=clean(dict(os.environ)) | _ONE_THREAD,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            theirs.close()
        _, (descriptor,) = self._order(START)
        self.connection = Connection(descriptor)
        self.send(simulate, _SECONDS_TO_LOAD)

    def send(self, message: object, seconds: float) -> None:
        """Give it something to do, in so many seconds. A runner that has died meanwhile is noticed at its answer."""
        assert self.connection is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)
        self._seconds, self.until = seconds, time.monotonic() + seconds

    def receive(self, has_answered: bool) -> tuple[bool, object]:
        """Its answer; where there is none, the runner is ended, and the answer is the reason."""
        assert self.connection is not None
        self.until, self.in_time = None, has_answered
        if has_answered:
            with contextlib.suppress(EOFError, OSError):
                fine, value = self.connection.recv()
                return fine, value
        told = self.discard()
        if not has_answered:
            return False, f"timed out after {self._seconds:g} s"
        how = describe_exit(os.waitstatus_to_exitcode(told["status"]))
        return False, f"{how}: {told['last']}" if told["last"] else how

    def discard(self) -> dict[str, Any]:
        """End the runner, if there is one, with all that it has started. -> how it ended, and what it said last."""
        if self.connection is None:
            return {}
        self.connection.close()
        self.connection = None
        told, _ = self._order(END)
        return told

    def _order(self, order: bytes) -> tuple[dict[str, Any], list[int]]:
        """Tell the keeper. -> its answer, and the descriptors that came with it."""
        assert self._control is not None
        content, descriptors = b"", list[int]()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(order)
            while not content.endswith(b"\n"):
                part, came, _, _ = socket.recv_fds(self._control, 65536, 1)
                if not part:
                    break
                content, descriptors = content + part, descriptors + came
        if not content:
            raise RuntimeError("the keeper of a simulator's process has ended")
        return json.loads(content), descriptors

    def hang_up(self) -> None:
        """Tell the keeper and the runner that no more will come."""
        for end in (self.connection, self._control):
            if end is not None:
                end.close()
        self.connection = self._control = self.task = self.until = None

    def wait(self) -> None:
        """Wait until the keeper has ended, and the runner before it."""
        if self._keeper is not None:
            self._keeper.wait()
            self._keeper = None
