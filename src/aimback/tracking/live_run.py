"""A training that can be watched while it runs."""

import contextlib
import json
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
    ) -> None:
        self._header = {
            "store": {"uri": store.uri, "experiment": store.experiment, "root": str(store.root)},
            "task": task,
            "training": training,
            "params": {"task": task, "route": name, **params},
            "period": period,
        }
        self._patience = patience
        self._dropped = False

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Note the values of a step. Returns at once."""
        self._write([int(time.time() * 1000), step, dict(values)])

    def __enter__(self) -> Self:
        # A queued experiment runs in a copy of the repository: its logger shall import that copy too.
        places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        self._logger = subprocess.Popen(
            [sys.executable, "-m", "aimback.tracking.logger"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
            start_new_session=True,  # Ctrl-C is the training's; the end of the pipe is the logger's
        )
        assert self._logger.stdin is not None
        self._pipe = self._logger.stdin.fileno()
        os.set_blocking(self._pipe, False)
        self._write(self._header)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        status = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
        self._write({"status": status, "complete": not self._dropped})
        assert self._logger.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._logger.stdin.close()
        try:
            self._logger.wait(self._patience)
        except subprocess.TimeoutExpired:
            # Else it might finish a second run of what `publish` has completed by then.
            self._logger.kill()
            self._logger.wait()

    def _write(self, message: Any) -> None:
        try:
            os.write(self._pipe, json.dumps(message).encode() + b"\n")  # whole or not at all, being short
        except (BlockingIOError, BrokenPipeError):
            self._dropped = True
