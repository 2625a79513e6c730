"""Exactly one complete set of runs for every state of the pipeline."""

import json
import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aimback.core.files import write_text
from aimback.runtime.process import lives, this_process
from aimback.tracking.model import log_model, register_model
from aimback.tracking.record import Data, Run, finite, tag_run, thin, without_tail
from aimback.tracking.store import Store, find_tagged, log_metrics, mark_killed, source_tags
from aimback.tracking.view import LOGARITHMIC, name_logarithm

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput
    from mlflow.entities import Run as StoredRun

SERIES_POINTS = 500
# A route has the same hue everywhere, a task its shade; MLflow's own colours are drawn by chance.
_SHADES = {
    "surrogate": ("#D55E00", "#F2A65A", "#8F3F00", "#FFC999"),
    "direct": ("#0072B2", "#6DB9E8", "#004468", "#B0DCF5"),
    "hybrid": ("#009E73", "#6CCFB2", "#005C43", "#B5E8D9"),
    "training": ("#6B6B6B", "#A8A8A8", "#3D3D3D", "#D0D0D0"),
    "proposer": ("#8C6BB1", "#BFA8D6", "#5B3F82", "#DCCFEA"),
    "diagnosis": ("#B8860B", "#DDB957", "#7A5A07", "#EBD9A2"),
}
_PARAMS = 100  # the most that MLflow takes at once


@dataclass(frozen=True)
class Published:
    """What is in the store now.

    Attributes:
        experiment_id: the experiment's id in the store.
        run_ids: of the set, in the order of the runs.
        written: how many of them were written now; 0 where all was there.
    """

    experiment_id: str
    run_ids: tuple[str, ...]
    written: int


def is_published(store: Store, states: Sequence[str], marker: Path) -> Published | None:
    """What an earlier `publish` of the same states left, if it is still there. Imports no MLflow."""
    try:
        noted = json.loads(marker.read_text(encoding="utf-8"))
        same = noted["states"] == sorted(states) and noted["store"] == store.digest
        earlier = Published(noted["experiment_id"], tuple(noted["run_ids"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        store.rebase()
    except sqlite3.Error:
        return None  # locked or damaged: MLflow itself shall say which
    return earlier if same and store.holds(earlier.run_ids) else None


def publish(
    store: Store,
    states: Sequence[str],
    runs: Callable[[], Sequence[Run]],
    marker: Path,
    confirm: Callable[[], None] = lambda: None,
) -> Published:
    """Bring the runs of `states` into the store, once.

    What is complete stays; what a killed process left is replaced; a run that `LiveTraining` wrote
    to its end is taken over, and what it wrote besides is deleted. Where `marker` says that all is
    there, nothing is done (milliseconds).

    Args:
        store: where to.
        states: keys of the pipeline states whose sets these are.
        runs: makes the runs; called only where there is something to do.
        marker: a file that remembers what is published; not a stage's output.
        confirm: is called before a run counts as complete, and raises where the files that went into it have changed.

    Raises:
        UserError: the store cannot be reached or used. Nothing is lost; a repeated call goes on.
    """
    earlier = is_published(store, states, marker)
    if earlier is not None:
        return earlier
    wanted = list(runs())
    client, experiment_id = store.connect()
    run_ids, written = store.insist(lambda: _bring(client, experiment_id, store, wanted, confirm))
    noted = {"states": sorted(states), "store": store.digest, "experiment_id": experiment_id, "run_ids": run_ids}
    write_text(marker, json.dumps(noted, indent=1) + "\n")
    return Published(experiment_id, tuple(run_ids), written)


def _bring(
    client: "MlflowClient", experiment_id: str, store: Store, wanted: Sequence[Run], confirm: Callable[[], None]
) -> tuple[list[str], int]:
    """Write what is missing of the runs; their ids, and how many were written.

    Done again after it has failed anywhere, it goes on: what it left unfinished counts for nothing.
    """
    with store.lock(), store.failing():
        mark_killed(client, experiment_id)
        source = source_tags(store.root)
        tasks = list(dict.fromkeys(run.task for run in wanted))
        run_ids, written = [], 0
        for run in wanted:
            complete = _complete(client, experiment_id, run)
            if complete is None:
                complete = _write(client, experiment_id, run, store, source | _colour(run, tasks), confirm)
                written += 1
            run_ids.append(complete)
        # Two that publish to one server at the same time both see nothing there: the elder stays.
        run_ids = [_complete(client, experiment_id, run) or run_id for run, run_id in zip(wanted, run_ids, strict=True)]
        # A training that was run by itself, or whose pipeline never came to its end. Where that pipeline still does,
        # the training is written again from its history. That of a sweep may belong to a job that waits in a queue.
        _keep(client, [one for one in _find_trainings(client, experiment_id) if "sweep" not in one.data.tags])
        for run, run_id in zip(wanted, run_ids, strict=True):
            if run.model is not None:
                register_model(client, experiment_id, run_id, run.state, run.model, run.note)
        _mark_newest(client, experiment_id, run_ids, source.get("sweep"))
    return run_ids, written


def _complete(client: "MlflowClient", experiment_id: str, run: Run) -> str | None:
    """The complete run of this route and state; incomplete and surplus ones are deleted."""
    tags = {"kind": run.kind, "task": run.task, "route": run.route}
    same_state = find_tagged(client, experiment_id, "state", run.state)
    found = [one for one in same_state if tags.items() <= one.data.tags.items()]
    kept = _keep(client, found, lambda one: one.info.status == "FINISHED")
    return None if kept is None else str(kept.info.run_id)


def _keep(
    client: "MlflowClient", found: Sequence["StoredRun"], fits: Callable[["StoredRun"], bool] = lambda one: False
) -> "StoredRun | None":
    """The first run that fits; all others are deleted, but for those that another process is at work on."""
    kept = next(filter(fits, found), None)
    for one in found:
        if one is not kept and not _in_work(one):
            client.delete_run(one.info.run_id)
    return kept


def _in_work(stored: "StoredRun") -> bool:
    process = stored.data.tags.get("process", "")
    return stored.info.status == "RUNNING" and process != this_process() and lives(process)


def _write(
    client: "MlflowClient",
    experiment_id: str,
    run: Run,
    store: Store,
    more: dict[str, str],
    confirm: Callable[[], None],
) -> str:
    from mlflow.entities import Metric, Param, RunTag

    params = {"task": run.task, "route": run.route, **run.params}
    metrics, absent = finite(run.metrics)
    metrics |= {name_logarithm(name): math.log10(metrics[name]) for name in LOGARITHMIC if metrics.get(name, 0) > 0}
    tags = {**tag_run(run.kind, run.task, run.route, params), **more, "process": this_process()}
    tags |= {"not_finite": ", ".join(absent)} if absent else {}
    tags |= {**run.tags, **({"mlflow.note.content": run.note} if run.note else {})}
    live = _find_live(client, experiment_id, run)
    now = int(time.time() * 1000)
    points = [Metric(name, value, now, 0) for name, value in metrics.items()]
    run_id: str
    if live is None:
        began = now if run.seconds is None else now - int(run.seconds * 1000)
        run_id = client.create_run(experiment_id, began, {**tags, "state": run.state}, run.name).info.run_id
        for name, series in run.series.items():
            sound = without_tail([(step, value) for step, value in series if math.isfinite(value)])
            points += [Metric(name, float(value), now, int(step)) for step, value in thin(sound, SERIES_POINTS)]
    else:
        run_id = live.info.run_id
        client.update_run(run_id, name=run.name)
        params = {name: value for name, value in params.items() if name not in live.data.params}
    log_metrics(client, run_id, points)
    named = [Param(name, value) for name, value in params.items()]
    for first in range(0, len(named), _PARAMS):
        client.log_batch(run_id, params=named[first : first + _PARAMS])
    if run.data:
        client.log_inputs(run_id, datasets=[_data_input(data) for data in run.data])
    for folder, files in run.artifacts.items():
        for file in files:
            client.log_artifact(run_id, str(file), folder or None)
    if run.model is not None:
        log_model(store.uri, run_id, run.model)
    confirm()
    # Last of all: a finished run with a state counts as complete. The newest tag is there from now on, so that others
    # only change it: two that add it to one run are in each other's way.
    tags |= {"state": run.state, "newest": "true"}
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    took = None if run.seconds is None else now
    client.set_terminated(run_id, "FINISHED", took if live is None else live.info.end_time)
    return run_id


def _mark_newest(client: "MlflowClient", experiment_id: str, run_ids: Sequence[str], sweep: str | None) -> None:
    """What was published last is what the view shows: a run, or all that there is of a sweep."""
    marked = {
        run.info.run_id: run.data.tags.get("sweep") for run in find_tagged(client, experiment_id, "newest", "true")
    }
    for run_id in run_ids:
        if run_id not in marked:
            client.set_tag(run_id, "newest", "true")
        if sweep and marked.get(run_id) != sweep:  # what an earlier sweep has published is of this one too
            client.set_tag(run_id, "sweep", sweep)
    for run_id in marked.keys() - set(run_ids):
        if not sweep or marked[run_id] != sweep:
            client.set_tag(run_id, "newest", "false")


def _find_live(client: "MlflowClient", experiment_id: str, run: Run) -> "StoredRun | None":
    """The run that `LiveTraining` wrote of this training, if it has every step and no state has it yet."""
    if not run.training:
        return None
    points = str(max((len(series) for series in run.series.values()), default=0))
    found = _find_trainings(client, experiment_id, run.training)
    return _keep(client, found, lambda one: one.info.status == "FINISHED" and one.data.tags.get("points") == points)


def _find_trainings(client: "MlflowClient", experiment_id: str, training: str | None = None) -> list["StoredRun"]:
    """The runs that `LiveTraining` wrote and that no state has taken over."""
    found = find_tagged(client, experiment_id, "training", training)
    return [one for one in found if "state" not in one.data.tags]


def _colour(run: Run, tasks: Sequence[str]) -> dict[str, str]:
    shades = _SHADES.get(run.route, ())
    return {"mlflow.runColor": shades[tasks.index(run.task) % len(shades)]} if shades else {}


def _data_input(data: Data) -> "DatasetInput":
    # Written out: mlflow.data.from_numpy would want the arrays and load pandas for the same four words.
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps({"num_rows": data.rows})
    dataset = Dataset(data.name, data.digest[:16], "local", json.dumps({"uri": data.name}), profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", data.context)])
