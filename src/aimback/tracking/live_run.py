"""A training that can be watched while it runs."""

import collections
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aimback.tracking.store import Store


class LiveTraining:
    """Logs a training's values by step into its own run, from a process of its own.

    A call writes the values into a pipe and returns; nothing that MLflow does, or fails to do, holds
    up the training or stops it, nor does its import. What did not get through is completed by
    `publish` from the history file, which is why the values must be that file's rows, one call a row.

    Use it as a context manager: the run ends FINISHED, FAILED (an exception) or KILLED (an
    interrupt, or the training's process was killed outright: the pipe then ends without a word).

    Args:
        store: where to.
        task: the task's name.
        name: what stands for a route in the run's name, the same that `Run.route` gets.
        training: key of the training, the same that `Run.training` gets.
        params: flat params, the same that `Run.params` gets.
        patience: seconds to wait at the end for what is still on its way.
        period: seconds from one batch to the next.
        delay: seconds of training before any of it is shown. A shorter one would be over before anybody looks, and
            importing MLflow would cost it more than the training itself.
    """

    def __init__(
        self,
        store: Store,
        task: str,
        name: str,
        training: str,
        params: Mapping[str, str],
        *,
        patience: float = 10.0,
        period: float = 1.0,
        delay: float = 5.0,
    ) -> None:
        header = {
            "store": {"uri": store.uri, "experiment": store.experiment, "root": str(store.root)},
            "task": task,
            "began": int(time.time() * 1000),
            "training": training,
            "params": {"task": task, "route": name, **params},
            "period": period,
        }
        self._waiting = collections.deque[Any]([header])
        self._patience, self._delay = patience, delay
        self._began = math.inf
        self._logger: subprocess.Popen[bytes] | None = None

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Note the values of a step. Returns at once."""
        now = time.time()
        self._waiting.append([int(now * 1000), step, dict(values)])
        self._began = min(self._began, now)
        if self._logger is None and now - self._began >= self._delay:
            self._logger = self._start_logger()
        self._send()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._logger is None:
            return
        self._send()
        status = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
        last = {"status": status, "complete": not self._waiting}
        self._waiting.clear()
        self._waiting.append(last)
        self._send()
        assert self._logger.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._logger.stdin.close()
        try:
            self._logger.wait(self._patience)
        except subprocess.TimeoutExpired:
            # Else it might finish a second run of what `publish` has completed by then.
            self._logger.kill()
            self._logger.wait()

    def _start_logger(self) -> "subprocess.Popen[bytes]":
        # A queued experiment runs in a copy of the repository: its logger shall import that copy too.
        places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        logger = subprocess.Popen(
            [sys.executable, "-m", "aimback.tracking.logger"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
            start_new_session=True,  # Ctrl-C is the training's; the end of the pipe is the logger's
        )
        assert logger.stdin is not None
        os.set_blocking(logger.stdin.fileno(), False)
        return logger

    def _send(self) -> None:
        """Write what the pipe takes; the rest waits for the next call."""
        if self._logger is None or self._logger.stdin is None:
            return
        try:
            while self._waiting:
                # Whole or not at all, being short.
                os.write(self._logger.stdin.fileno(), json.dumps(self._waiting[0]).encode() + b"\n")
                self._waiting.popleft()
        except BlockingIOError:
            pass
        except BrokenPipeError:  # nobody reads any more
            self._waiting.clear()
