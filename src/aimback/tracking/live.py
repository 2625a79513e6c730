"""A training that can be watched while it runs."""

import logging
import math
import queue
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aimback.errors import UserError
from aimback.tracking.record import identity, run_name
from aimback.tracking.store import Store, mark_killed, source_tags, this_process

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_logger = logging.getLogger(__name__)
_BATCH = 1000  # the most metrics MLflow takes at once
_ROUTE = "training"


class LiveTraining:
    """Logs a training's values by step into its own run, from a thread of its own.

    A call puts the values into a queue and returns; nothing that MLflow does, or fails to do, holds
    up the training or stops it. What did not get through is completed by `publish` from the history
    file, which is why the values must be that file's rows, one call a row.

    Use it as a context manager: the run ends FINISHED, FAILED (an exception) or KILLED (an
    interrupt). A process that is killed outright leaves it RUNNING; the next one marks it KILLED.

    Args:
        store: where to.
        task: the task's name.
        training: key of the training, the same that `Run.training` gets.
        params: flat params, the same that `Run.params` gets.
        patience: seconds to wait at the end for what is still in the queue.
        capacity: rows the queue holds; more are dropped.
        period: seconds from one batch to the next.
    """

    def __init__(
        self,
        store: Store,
        task: str,
        training: str,
        params: Mapping[str, str],
        *,
        patience: float = 10.0,
        capacity: int = 10_000,
        period: float = 1.0,
    ) -> None:
        self._store, self._task, self._training = store, task, training
        self._params = {"task": task, "route": _ROUTE, **params}
        self._patience, self._period = patience, period
        self._rows: queue.Queue[tuple[int, int, dict[str, float]]] = queue.Queue(capacity)
        self._ended = threading.Event()
        self._status = "FINISHED"
        self._dropped = False
        self._thread: threading.Thread | None = None

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Note the values of a step. Returns at once."""
        if self._thread is None:
            # Not earlier: what the training imports is imported now, so the two don't import at once.
            self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
            self._thread.start()
        try:
            self._rows.put_nowait((int(time.time() * 1000), step, dict(values)))
        except queue.Full:
            self._dropped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._status = "FAILED" if isinstance(error, Exception) else "KILLED"
        self._ended.set()
        if self._thread is not None:
            self._thread.join(self._patience)

    def _run(self) -> None:
        try:
            client, experiment_id = self._store.connect()
            with self._store.failing():
                self._log(client, experiment_id)
        except UserError as error:
            _logger.warning("the training is not shown live: %s", error)

    def _log(self, client: "MlflowClient", experiment_id: str) -> None:
        from mlflow.entities import Param, RunTag

        mark_killed(client, experiment_id)
        tags = {
            **identity("training", self._task, _ROUTE, self._params),
            **source_tags(self._store.root),
            "training": self._training,
            "process": this_process(),
        }
        run_id = client.create_run(experiment_id, run_name=run_name(self._task, _ROUTE), tags=tags).info.run_id
        client.log_batch(run_id, params=[Param(name, value) for name, value in self._params.items()])
        rows, last = 0, False
        while not last:
            last = self._ended.wait(self._period)  # read before the queue: after the end nothing is added
            taken, points = self._take()
            rows += taken
            for first in range(0, len(points), _BATCH):
                client.log_batch(run_id, metrics=points[first : first + _BATCH])
        if not self._dropped:
            client.log_batch(run_id, tags=[RunTag("points", str(rows))])
        client.set_terminated(run_id, self._status)

    def _take(self) -> tuple[int, list["Metric"]]:
        from mlflow.entities import Metric

        rows = 0
        points: list[Metric] = []
        while True:
            try:
                moment, step, values = self._rows.get_nowait()
            except queue.Empty:
                return rows, points
            rows += 1
            points.extend(
                Metric(name, float(value), moment, step) for name, value in values.items() if math.isfinite(value)
            )
