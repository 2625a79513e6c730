"""The other end of `LiveTraining`'s pipe: a process that writes what comes through it into a run."""

import json
import math
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimback.core.errors import UserError
from aimback.runtime.process import this_process
from aimback.tracking.record import run_name, tag_run
from aimback.tracking.store import Store, find_tagged, log_metrics, mark_killed, source_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient


def main() -> None:
    """Read a header, rows, and how the training ended."""
    header = json.loads(sys.stdin.readline())
    store = Store(**{**header["store"], "root": Path(header["store"]["root"])})
    try:
        client, experiment_id = store.connect()
        with store.failing():
            _log(client, experiment_id, store, header)
    except UserError as error:
        print(f"the training is not shown live: {error}", file=sys.stderr)


def _log(client: "MlflowClient", experiment_id: str, store: Store, header: Mapping[str, Any]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    mark_killed(client, experiment_id)
    params = header["params"]
    name = params["route"]
    tags = {
        **tag_run("training", header["task"], name, params),
        **source_tags(store.root),
        "training": header["training"],
        "process": this_process(),
    }
    title = run_name(header["task"], name)
    run_id, steps = _resume(client, experiment_id, header["training"], tags)
    if run_id is None:
        run_id = client.create_run(experiment_id, header["began"], tags, title).info.run_id
        client.log_batch(run_id, params=[Param(name, value) for name, value in params.items()])
    end: dict[str, Any] = {"status": "KILLED", "complete": False}
    for messages in _batches(header["period"]):
        points: list[Metric] = []
        for message in messages:
            if isinstance(message, dict):
                end = message
                continue
            moment, step, values = message
            if step in steps:  # a resumed training repeats what came after its last checkpoint
                continue
            steps.add(step)
            points += [Metric(name, value, moment, step) for name, value in values.items() if math.isfinite(value)]
        log_metrics(client, run_id, points)
    if end["complete"]:
        client.log_batch(run_id, tags=[RunTag("points", str(len(steps)))])
    client.set_terminated(run_id, end["status"])


def _resume(
    client: "MlflowClient", experiment_id: str, training: str, tags: Mapping[str, str]
) -> tuple[str | None, set[int]]:
    """The run of the same training that was killed, taken up again, and the steps that it has."""
    for run in find_tagged(client, experiment_id, "training", training):
        if run.info.status in ("KILLED", "FAILED") and "state" not in run.data.tags:
            run_id = str(run.info.run_id)
            client.update_run(run_id, status="RUNNING")
            for name, value in tags.items():
                client.set_tag(run_id, name, value)
            shown = next(iter(run.data.metrics), None)
            return run_id, {point.step for point in client.get_metric_history(run_id, shown)} if shown else set()
    return None, set()


def _batches(period: float) -> Iterator[list[Any]]:
    """What came through the pipe in each period, until its end."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    ended = False
    while not ended:
        batch = [lines.get()]
        until = time.monotonic() + period
        while batch[-1]:
            try:
                batch.append(lines.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        ended = not batch[-1]
        yield [json.loads(line) for line in batch if line]


if __name__ == "__main__":
    main()
