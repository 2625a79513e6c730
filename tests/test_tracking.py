"""MLflow gets exactly one complete set of runs per state, whatever was killed, deleted or repeated."""

import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
import torch
from mlflow.exceptions import MlflowException
from plans import plan_network

from aimback.core.errors import UserError
from aimback.data.dataset import simulate_dataset
from aimback.learn.surrogate import Surrogate
from aimback.runtime.process import this_process
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tracking import (
    Data,
    LiveTraining,
    Model,
    Published,
    Run,
    Store,
    flatten,
    is_published,
    open_store,
    publish,
    ui_link,
)
from aimback.tracking.record import finite, thin, without_tail
from aimback.tracking.store import source_tags
from aimback.tracking.view import NEWEST

SOURCE = Path(__file__).parents[1] / "src"
# mlflow, and what it brings, warns of its own deprecations.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory):
    """An empty store, made once: each costs seconds."""
    root = tmp_path_factory.mktemp("store")
    open_store(root).connect()
    return root / "mlflow.db"


@pytest.fixture
def store(tmp_path, fresh_database, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(fresh_database, tmp_path / "mlflow.db")
    return open_store(tmp_path)


def route(name, state="s1", **changes):
    curve = [(step, 10.0**-step) for step in range(8)]
    settings = {
        "state": state,
        "kind": "route",
        "task": "cannon_drag",
        "route": name,
        "params": flatten({"solver": {"starts": 8, "max_steps": 50}, "seed": 0}),
        "metrics": {"miss_median": 1e-3, "solved_fraction": 0.9, "break_even_targets": math.inf, "seconds_train": None},
        "series": {"miss": curve, "loss": curve},
        "note": "**direct wins**",
        "data": [Data("cannon_drag targets", "ab" * 32, 512, "targets")],
    }
    return Run(**(settings | changes))


def training(state="s1", rows=30, **changes):
    series = {"train_loss": [(step, 1 / (1 + step)) for step in range(rows)]}
    settings = {
        "state": state,
        "kind": "training",
        "task": "cannon_drag",
        "route": "training",
        "params": {"batch_size": "64"},
        "metrics": {"examples": 1000},
        "series": series,
        "training": "t1",
    }
    return Run(**(settings | changes))


def a_set(state="s1"):
    return [route("surrogate", state), route("direct", state), training(state)]


def a_model(folder):
    """A small network as a training leaves it."""
    task, generator = CannonDrag(), torch.Generator().manual_seed(0)
    dataset = simulate_dataset(task, 64, 0.25, generator, "cpu", torch.float64)
    network = Surrogate.for_dataset(dataset, task, plan_network(hidden_width=8, hidden_layers=1), generator)
    weights = folder / "weights.safetensors"
    network.float().save(weights, task)
    return Model(
        name="cannon_drag",
        weights=weights,
        checksum=weights.with_suffix(".sha256"),
        task={"_target_": "aimback.tasks.cannon_drag.CannonDrag", "drag": 0.05},
        inputs=["speed", "angle", "wind"],
        outputs=["distance"],
        example=[5.0, 0.5, 1.0],
    )


def stored(store):
    client, experiment = store.connect()
    return client, sorted(client.search_runs([experiment]), key=lambda run: run.info.run_name)


def test_a_set_is_complete_and_reads_back(store, tmp_path):
    figure = tmp_path / "loss.png"
    figure.write_bytes(b"png")
    runs = [route("surrogate", artifacts={"figures": [figure]}), route("direct"), training()]
    published = publish(store, ["s1"], lambda: runs, tmp_path / "marker.json")
    assert published.written == 3
    client, (direct, surrogate, live) = stored(store)
    assert [run.info.run_name for run in (direct, surrogate, live)] == [
        "cannon_drag · direct · s1",
        "cannon_drag · surrogate · s1",
        "cannon_drag · training · s1",
    ]
    assert {run.info.status for run in (direct, surrogate, live)} == {"FINISHED"}
    assert direct.data.tags["kind"] == "route"
    assert direct.data.tags["state"] == "s1"
    assert surrogate.data.params == direct.data.params | {"route": "surrogate"}
    assert set(surrogate.data.metrics) == set(direct.data.metrics)
    assert direct.data.metrics["miss_median_log10"] == -3
    assert direct.data.metrics["miss_median"] == 1e-3
    assert direct.data.tags["not_finite"] == "break_even_targets, seconds_train"
    assert direct.data.tags["mlflow.note.content"] == "**direct wins**"
    assert [(point.step, point.value) for point in client.get_metric_history(direct.info.run_id, "miss")] == [
        (step, 10.0**-step) for step in range(8)
    ]
    assert direct.inputs.dataset_inputs[0].dataset.name == "cannon_drag targets"
    assert [item.path for item in client.list_artifacts(surrogate.info.run_id, "figures")] == ["figures/loss.png"]
    # nothing that MLflow would show as 1.8e308
    assert all(abs(value) < 1e300 for value in direct.data.metrics.values())


def test_repeating_does_nothing_and_imports_no_mlflow(store, tmp_path):
    marker = tmp_path / "marker.json"
    publish(store, ["s1"], a_set, marker)
    program = (
        "import sys; from pathlib import Path; from aimback.tracking import open_store, publish\n"
        f"done = publish(open_store(Path({str(tmp_path)!r})), ['s1'], lambda: 1 / 0, Path({str(marker)!r}))\n"
        "assert done.written == 0 and len(done.run_ids) == 3\n"
        "assert not {'mlflow', 'torch', 'pandas', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": str(SOURCE)})
    assert len(stored(store)[1]) == 3


def test_without_the_marker_what_is_complete_is_found(store, tmp_path):
    first = publish(store, ["s1"], a_set, tmp_path / "one.json")
    again = publish(store, ["s1"], a_set, tmp_path / "two.json")
    assert again.written == 0
    assert again.run_ids == first.run_ids


def test_every_state_has_its_set(store, tmp_path):
    marker = tmp_path / "marker.json"
    publish(store, ["s1"], a_set, marker)
    assert publish(store, ["s2"], lambda: a_set("s2"), marker).written == 3
    assert publish(store, ["s1"], a_set, marker).written == 0
    assert len(stored(store)[1]) == 6


def test_a_half_written_set_is_completed(store, tmp_path):
    marker = tmp_path / "marker.json"
    whole = publish(store, ["s1"], a_set, marker)
    client, _ = stored(store)
    client.set_tag(whole.run_ids[0], "process", f"{socket.gethostname()} 999999999 1.0")
    client.update_run(whole.run_ids[0], "RUNNING")  # as if killed while it was written
    client.delete_run(whole.run_ids[1])
    assert is_published(store, ["s1"], marker) is None
    repaired = publish(store, ["s1"], a_set, marker)
    assert repaired.written == 2
    assert repaired.run_ids[2] == whole.run_ids[2]
    assert {run.info.run_id for run in stored(store)[1]} == set(repaired.run_ids)


def test_a_deleted_database_is_published_anew(store, tmp_path):
    marker = tmp_path / "marker.json"
    publish(store, ["s1"], a_set, marker)
    store.database.unlink()
    assert is_published(store, ["s1"], marker) is None
    # in a process of its own, as in life: this one still has the deleted file open
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from test_tracking import a_set; from aimback.tracking import open_store, publish\n"
        "root = Path(sys.argv[2])\n"
        "assert publish(open_store(root), ['s1'], a_set, root / 'marker.json').written == 3\n"
    )
    call = [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path)]
    subprocess.run(call, check=True, env=os.environ | {"PYTHONPATH": str(SOURCE)})
    assert is_published(store, ["s1"], marker) is not None


def test_the_commit_is_the_real_one_and_changes_are_said(tmp_path, monkeypatch):
    def git(*arguments):
        names = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        call = ["git", "-C", str(tmp_path), *names, *arguments]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()

    assert source_tags(tmp_path) == {}
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    tags = source_tags(tmp_path)
    assert tags["mlflow.source.git.commit"] == git("rev-parse", "HEAD")
    assert tags["dirty"] == "false" and "dvc_experiment" not in tags
    (tmp_path / "file").write_text("2")
    monkeypatch.setenv("DVC_EXP_NAME", "wise-owl")
    assert source_tags(tmp_path) == tags | {"dirty": "true", "dvc_experiment": "wise-owl"}
    # Unpacked inside that repository, or called by a hook of it, a project does not stand at its commit.
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert source_tags(inside) == {}
    assert source_tags(tmp_path)["mlflow.source.git.commit"] == tags["mlflow.source.git.commit"]


@pytest.mark.parametrize(
    "variables",
    [
        {"GIT_DIR": "{place}/other/.git"},
        {"GIT_WORK_TREE": "{place}/other"},
        {"GIT_INDEX_FILE": "{place}/marker"},
        {"GIT_OBJECT_DIRECTORY": "{place}/other"},
        {"GIT_CEILING_DIRECTORIES": "{place}"},
        {"GIT_EXEC_PATH": "{place}/other"},
        {"GIT_CONFIG_GLOBAL": "{place}/config"},
        {"GIT_CONFIG_SYSTEM": "{place}/config"},
        {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "core.fsmonitor",
            "GIT_CONFIG_VALUE_0": "touch '{place}/marker'; #",
        },
        {"GIT_CONFIG_PARAMETERS": "'core.fsmonitor'='touch {place}/marker; #'"},
        {"GIT_TRACE": "{place}/marker"},
        {"GIT_TRACE2_EVENT": "{place}/marker"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_git_looks_at_our_repository_whatever_the_environment_says(variables, tmp_path, monkeypatch):
    root, name = tmp_path / "ours", ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    subprocess.run(["git", "-C", str(root), *name, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "config").write_text(f"[core]\n\tfsmonitor = touch '{tmp_path}/marker'; #\n")
    plain = source_tags(root)
    assert plain["dirty"] == "false"
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value.format(place=tmp_path))
    assert source_tags(root) == plain
    assert not (tmp_path / "marker").exists()


def test_of_two_equal_runs_the_elder_stays(store, tmp_path):
    first = publish(store, ["s1"], lambda: [route("direct")], tmp_path / "one.json")
    client, experiment = store.connect()
    tags = {"state": "s1", "kind": "route", "task": "cannon_drag", "route": "direct"}
    twin = client.create_run(experiment, run_name="whatever", tags=tags)
    client.set_terminated(twin.info.run_id)
    again = publish(store, ["s1"], lambda: [route("direct")], tmp_path / "two.json")
    assert again.run_ids == first.run_ids
    assert [run.info.run_id for run in stored(store)[1]] == list(first.run_ids)


def watch(store, rows, patience=60.0, delay=0.0):
    params = {"batch_size": "64"}
    with LiveTraining(
        store, "cannon_drag", "training", "t1", params, period=0.05, patience=patience, delay=delay
    ) as live:
        for step in range(rows):
            live(step, {"train_loss": 1 / (1 + step), "validation_loss": math.nan})


@pytest.mark.parametrize("key", ["t1", "another"])
@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED", "RUNNING"])
def test_a_training_that_no_state_took_over_is_cleared_away(store, tmp_path, key, status):
    """As `dvc repro --force --single-item train@...` leaves one behind, or a queue that was killed."""
    marker = tmp_path / "marker.json"
    whole = publish(store, ["s1"], a_set, marker)
    client, experiment = store.connect()
    tags = {"training": key, "points": "30", "process": f"{socket.gethostname()} 999999999 1.0"}
    left = client.create_run(experiment, run_name="cannon_drag · training", tags=tags)
    if status != "RUNNING":
        client.set_terminated(left.info.run_id, status)
    assert is_published(store, ["s1"], marker) is None
    again = publish(store, ["s1"], a_set, marker)
    assert again == Published(whole.experiment_id, whole.run_ids, 0)
    assert {run.info.run_id for run in stored(store)[1]} == set(whole.run_ids)
    assert is_published(store, ["s1"], marker) is not None


def test_a_training_that_is_at_work_is_left_alone(store, tmp_path):
    marker = tmp_path / "marker.json"
    publish(store, ["s1"], a_set, marker)
    client, experiment = store.connect()
    program = "from aimback.runtime.process import this_process; print(this_process(), flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as other:
        process = other.stdout.readline().strip()
        at_work = client.create_run(experiment, tags={"training": "t2", "process": process})
        assert is_published(store, ["s1"], marker) is not None
        publish(store, ["s2"], lambda: a_set("s2"), marker)
        assert client.get_run(at_work.info.run_id).info.lifecycle_stage == "active"
        other.communicate("\n")


def test_files_that_change_meanwhile_make_no_complete_run(store, tmp_path):
    def refuse():
        raise UserError("another run is at work")

    marker = tmp_path / "marker.json"
    with pytest.raises(UserError, match="another run"):
        publish(store, ["s1"], a_set, marker, refuse)
    assert {run.info.status for run in stored(store)[1]} == {"RUNNING"}
    assert publish(store, ["s1"], a_set, marker).written == 3
    assert len(stored(store)[1]) == 3


@pytest.mark.parametrize("how", ["renamed", "copied", "moved into its parent", "moved below itself"])
def test_a_project_elsewhere_keeps_its_artifacts_and_its_models(store, tmp_path, how):
    before = tmp_path / "a" / "50%25 b?c#d"
    before.mkdir(parents=True)
    shutil.move(tmp_path / "mlflow.db", before)
    model = a_model(before)
    runs = [training(model=model, artifacts={"files": [model.weights]})]
    done = publish(open_store(before), ["s1"], lambda: runs, before / "marker.json")
    content = {file: file.read_bytes() for file in before.rglob("*") if file.is_file()}
    now = {
        "renamed": tmp_path / "a" / "ü (1)",
        "copied": tmp_path / "a" / "ü (1)",
        "moved into its parent": tmp_path / "a",
        "moved below itself": before / "below",
    }[how]
    if how == "copied":
        shutil.copytree(before, now)
    else:
        aside = before.rename(tmp_path / "aside")
        now.mkdir(parents=True, exist_ok=True)
        for place in aside.iterdir():
            place.rename(now / place.name)
        aside.rmdir()
    # Nothing has to be published anew.
    assert is_published(open_store(now), ["s1"], now / "marker.json").run_ids == done.run_ids
    client, experiment = open_store(now).connect()
    assert [item.path for item in client.list_artifacts(done.run_ids[0], "files")] == ["files/weights.safetensors"]
    (logged,) = client.search_logged_models([experiment])
    assert Path(url2pathname(urlsplit(logged.artifact_location).path), "MLmodel").is_file()
    assert now in Path(url2pathname(urlsplit(logged.artifact_location).path)).parents
    assert [one.source for one in client.search_model_versions()] == [logged.artifact_location]
    more = [training("s2", artifacts={"": [now / "marker.json"]})]
    again = publish(open_store(now), ["s2"], lambda: more, tmp_path / "marker.json")
    assert (now / "mlruns" / experiment / again.run_ids[0] / "artifacts" / "marker.json").is_file()
    if how == "copied":
        assert {file: file.read_bytes() for file in before.rglob("*") if file.is_file()} == content
    else:
        assert not (tmp_path / "aside").exists()
        assert how == "moved below itself" or not before.exists()


@pytest.mark.parametrize("location", ["s3://bucket/mlruns/1", "file:///data/chosen/1", "{root}/notebooks/mlruns/1"])
def test_a_chosen_place_for_artifacts_stays(store, tmp_path, location):
    (tmp_path / "notebooks" / "mlruns").mkdir(parents=True)
    with sqlite3.connect(store.database) as base:
        base.execute("UPDATE experiments SET artifact_location = ?", [location.format(root=tmp_path)])
    store.rebase()
    client, experiment = store.connect()
    assert client.get_experiment(experiment).artifact_location == location.format(root=tmp_path)


def test_a_store_outside_the_project_is_not_rewritten(store, tmp_path, monkeypatch):
    with sqlite3.connect(store.database) as base:
        base.execute("UPDATE experiments SET artifact_location = '/before/mlruns/1'")
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    client, experiment = open_store(project).connect()
    assert client.get_experiment(experiment).artifact_location == "/before/mlruns/1"
    assert list(project.iterdir()) == []


def test_a_relative_place_is_below_the_project(tmp_path, monkeypatch):
    (tmp_path / "subfolder").mkdir()
    monkeypatch.chdir(tmp_path / "subfolder")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///my%20runs.db")
    assert open_store(tmp_path).database == tmp_path / "my runs.db"


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"\\xff.*not UTF-8; rename it, or choose tracking=off"):
        open_store(tmp_path / os.fsdecode(b"\xff"))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("No such place. See https://mlflow.org/docs/latest for more.", "No such place;"),
        (f"{'word ' * 58}https://mlflow.org/docs/latest.html#a-long-way more", f"{'word ' * 58}…;"),
        ("first line\nsecond line", "first line;"),
        ("", "MlflowException;"),
    ],
)
def test_mlflows_messages_are_cut_between_words_and_kept_whole_in_the_trace(store, said, told):
    with pytest.raises(UserError) as caught, store.failing():
        raise MlflowException(said)
    assert str(caught.value).startswith(f"MLflow at {store.database}: {told}")
    assert str(caught.value.__cause__) == said


def test_a_watched_training_is_taken_over_once(store, tmp_path):
    watch(store, 30)
    client, (live,) = stored(store)
    assert live.info.status == "FINISHED"
    assert live.data.tags["points"] == "30"
    assert len(client.get_metric_history(live.info.run_id, "train_loss")) == 30
    first = publish(store, ["s1"], lambda: [training()], tmp_path / "one.json")
    assert first.run_ids == (live.info.run_id,)
    taken = client.get_run(live.info.run_id)
    assert taken.data.tags["state"] == "s1"
    assert taken.data.metrics["examples"] == 1000
    assert taken.info.run_name == "cannon_drag · training · s1"
    assert taken.info.start_time < live.info.end_time == taken.info.end_time
    assert len(client.get_metric_history(live.info.run_id, "train_loss")) == 30
    # the same training in another state, as when only the solver changed: a run of its own
    second = publish(store, ["s2"], lambda: [training("s2")], tmp_path / "two.json")
    assert second.run_ids != first.run_ids
    assert len(client.get_metric_history(second.run_ids[0], "train_loss")) == 30


def test_a_training_that_is_over_soon_is_not_shown_live(store):
    watch(store, 30, delay=60.0)
    assert stored(store)[1] == []


def test_a_training_watched_in_part_is_replaced(store, tmp_path):
    watch(store, 12)
    done = publish(store, ["s1"], lambda: [training(rows=30)], tmp_path / "marker.json")
    client, (only,) = stored(store)
    assert only.info.run_id == done.run_ids[0]
    assert len(client.get_metric_history(only.info.run_id, "train_loss")) == 30


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_training_that_ends_badly_says_so(store, error, status):
    def train():
        with LiveTraining(store, "cannon_drag", "training", "t1", {}, period=0.05, patience=60.0, delay=0.0) as live:
            live(0, {"train_loss": 1.0})
            raise error

    with pytest.raises(error):
        train()
    assert stored(store)[1][0].info.status == status


def test_a_run_of_a_dead_process_is_marked_killed(store):
    client, experiment = store.connect()
    dead = f"{socket.gethostname()} 999999999 1.0"
    left = client.create_run(experiment, run_name="cannon_drag · training", tags={"process": dead, "training": "t0"})
    other = client.create_run(experiment, run_name="mine", tags={"process": this_process()})
    watch(store, 2)
    assert client.get_run(left.info.run_id).info.status == "KILLED"
    assert client.get_run(other.info.run_id).info.status == "RUNNING"


@pytest.fixture
def silent_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]  # bound, never listening: refused


def test_an_unreachable_server_is_one_line(tmp_path, silent_port, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{silent_port}")
    with pytest.raises(UserError, match="dvc repro publish") as caught:
        publish(open_store(tmp_path), ["s1"], a_set, tmp_path / "marker.json")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "marker.json").exists()


def test_a_server_that_never_answers_is_one_line(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(UserError, match=r"not reachable \(timed out\); the results are kept"):
            publish(open_store(tmp_path), ["s1"], a_set, tmp_path / "marker.json")


def test_an_unreachable_server_never_stops_a_training(tmp_path, silent_port, capfd):
    store = Store(f"http://127.0.0.1:{silent_port}", "aimback", tmp_path)
    start = time.perf_counter()
    watch(store, 1000)
    assert time.perf_counter() - start < 15
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("the training is not shown live: MLflow at http://127.0.0.1")


def test_calls_do_not_wait_for_a_server_that_never_answers(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        store = Store(f"http://127.0.0.1:{mute.getsockname()[1]}", "aimback", tmp_path)
        start = time.perf_counter()
        watch(store, 20_000, patience=0.0)
        assert time.perf_counter() - start < 5


def test_a_training_killed_outright_is_marked_by_its_logger(store, tmp_path):
    """The pipe ends without a word."""
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom aimback.tracking import LiveTraining, Store\n"
        "store = Store(sys.argv[1], 'aimback', Path(sys.argv[2]))\n"
        "with LiveTraining(store, 'cannon_drag', 'training', 't1', {}, delay=0.0) as live:\n"
        "    live(0, {'train_loss': 1.0})\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, store.uri, str(tmp_path)], check=False)
    deadline = time.monotonic() + 60
    while not (runs := stored(store)[1]) or runs[0].info.status == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert runs[0].info.status == "KILLED"
    watch(store, 30)  # as it goes on, from its last checkpoint
    (resumed,) = stored(store)[1]
    assert (resumed.info.run_id, resumed.info.status) == (runs[0].info.run_id, "FINISHED")
    assert resumed.data.tags["points"] == "30"
    points = store.connect()[0].get_metric_history(resumed.info.run_id, "train_loss")
    assert sorted(point.step for point in points) == list(range(30))


@pytest.mark.parametrize(("sweep", "left"), [({"sweep": "2026"}, 1), ({}, 0)])
def test_a_training_of_a_sweep_is_left_to_its_job(store, tmp_path, sweep, left):
    client, experiment = store.connect()
    killed = client.create_run(experiment, tags={"training": "t2", **sweep})
    client.set_terminated(killed.info.run_id, "KILLED")
    publish(store, ["s1"], a_set, tmp_path / "marker.json")
    assert [run.info.run_id for run in stored(store)[1]].count(killed.info.run_id) == left


def test_a_sweep_is_newest_as_a_whole(store, tmp_path, monkeypatch):
    newest = []
    for state, sweep in {"s1": "a", "s2": "b", "s3": "b", "s4": ""}.items():
        monkeypatch.setenv("AIMBACK_SWEEP", sweep)
        publish(store, [state], lambda state=state: [route("direct", state)], tmp_path / f"{state}.json")
        newest.append({run.data.tags["state"] for run in stored(store)[1] if run.data.tags["newest"] == "true"})
    assert newest == [{"s1"}, {"s2"}, {"s2", "s3"}, {"s4"}]
    monkeypatch.setenv("AIMBACK_SWEEP", "c")  # what an earlier one has made belongs to this one too
    publish(store, ["s2"], lambda: [route("direct", "s2")], tmp_path / "again.json")
    assert [run.data.tags["sweep"] for run in stored(store)[1] if run.data.tags["state"] == "s2"] == ["c"]


def test_a_damaged_database_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(UserError, match=r"mlflow\.db"):
        publish(open_store(tmp_path), ["s1"], a_set, tmp_path / "marker.json")


@pytest.mark.slow
def test_eight_processes_open_a_fresh_store_at_once(tmp_path):
    program = (
        "import sys; from pathlib import Path; from aimback.tracking import open_store\n"
        f"client, experiment = open_store(Path({str(tmp_path)!r})).connect()\n"
        "run = client.create_run(experiment); client.set_terminated(run.info.run_id)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment |= {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    (tmp_path / ".mlflow-left.db").write_bytes(b"")  # by one that was killed
    started = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(8)]
    assert [process.wait() for process in started] == [0] * 8
    with sqlite3.connect(tmp_path / "mlflow.db") as base:
        assert base.execute("SELECT COUNT(*) FROM runs WHERE status = 'FINISHED'").fetchone() == (8,)
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not (tmp_path / ".mlflow-left.db").exists()


@pytest.mark.slow
def test_killed_while_the_store_is_made_nothing_is_broken(tmp_path):
    program = f"from pathlib import Path; from aimback.tracking import open_store; open_store(Path({str(tmp_path)!r}))"
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment |= {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    for seconds_after_its_first_byte in (0.0, 0.7):
        maker = subprocess.Popen([sys.executable, "-c", f"{program}.connect()"], env=environment)
        before = set(tmp_path.glob(".mlflow-*.db"))
        while maker.poll() is None and set(tmp_path.glob(".mlflow-*.db")) <= before:
            time.sleep(0.01)
        time.sleep(seconds_after_its_first_byte)
        maker.kill()
        assert maker.wait() == -signal.SIGKILL and not (tmp_path / "mlflow.db").exists()
    subprocess.run([sys.executable, "-c", f"{program}.connect()"], env=environment, check=True)
    with sqlite3.connect(tmp_path / "mlflow.db") as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert list(tmp_path.glob(".mlflow-*.db")) == []


def test_series_are_thinned_to_their_ends():
    series = [(step, float(step)) for step in range(10_000)]
    kept = thin(series, 500)
    assert len(kept) == 500
    assert kept[0] == series[0]
    assert kept[-1] == series[-1]
    assert thin(series[:20], 500) == series[:20]


def test_what_has_stopped_is_cut():
    assert without_tail([(0, 3.0), (1, 1.0), (2, 1.0), (3, 1.0)]) == [(0, 3.0), (1, 1.0)]
    assert without_tail([(0, 1.0)]) == [(0, 1.0)]
    assert without_tail([]) == []


def test_params_are_flat_and_bounded():
    flat = flatten({"solver": {"starts": 8, "box": {"a": [0, 1]}}, "long": "x" * 9999})
    assert flat["solver.starts"] == "8"
    assert flat["solver.box.a"] == "[0, 1]"
    assert len(flat["long"]) == 500


def test_what_is_not_finite_is_named():
    assert finite({"a": 1.0, "b": math.inf, "c": None, "d": math.nan}) == ({"a": 1.0}, ["b", "c", "d"])


def test_the_link_opens_a_view_that_is_in_the_store(store, tmp_path):
    done = publish(store, ["s1"], lambda: [route("direct")], tmp_path / "marker.json")
    link = ui_link(done.experiment_id, "http://127.0.0.1:5000")
    assert link.startswith("http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&")
    client, experiment = store.connect()
    key = link.rpartition("viewStateShareKey=")[2]
    view = json.loads(client.get_experiment(experiment).tags[f"mlflow.sharedViewState.{key}"])
    state = json.loads(view["state"])
    by_name = {chart.get("metricKey"): chart for chart in state["compareRunCharts"]}
    assert by_name["loss"]["scaleType"] == by_name["miss"]["scaleType"] == "log"
    assert {chart["metricSectionId"] for chart in by_name.values()} <= {
        one["uuid"] for one in state["compareRunSections"]
    }
    # and that filter finds the routes
    assert len(client.search_runs([experiment], state["searchFilter"])) == 1


def test_a_route_has_one_hue_and_a_task_its_shade(store, tmp_path):
    runs = [route(name, task=task) for task in ("a", "b") for name in ("surrogate", "direct")]
    publish(store, ["s1"], lambda: runs, tmp_path / "marker.json")
    colours = [run.data.tags["mlflow.runColor"] for run in stored(store)[1]]
    assert len(set(colours)) == 4


def test_the_surrogate_is_a_model_that_loads_back_in_another_process(store, tmp_path):
    model = a_model(tmp_path)
    done = publish(store, ["s1"], lambda: [training(model=model)], tmp_path / "marker.json")
    client, experiment = store.connect()
    (logged,) = client.search_logged_models([experiment])
    assert logged.source_run_id == done.run_ids[0]
    folder = Path(url2pathname(urlsplit(logged.artifact_location).path))
    assert (folder / "input_example.json").is_file()
    assert {file.suffix for file in folder.rglob("*") if file.is_file()}.isdisjoint({".pkl", ".pt", ".pth", ".ckpt"})
    # aimback is not on the path there: the model brings it along
    program = (
        "import sys; import mlflow; import pandas as pd\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "row = pd.DataFrame([[4.0, 0.7, -1.0]], columns=['speed', 'angle', 'wind'])\n"
        "print(model.metadata.signature.outputs.input_names(), repr(float(model.predict(row)['distance'][0])))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    call = [sys.executable, "-c", program, str(folder)]
    shown = subprocess.run(call, check=True, env=environment, capture_output=True, text=True, cwd=tmp_path).stdout
    trained = Surrogate.load(model.weights, CannonDrag(), dtype=torch.float64)
    given = torch.tensor([[4.0, 0.7]], dtype=torch.float64), torch.tensor([[-1.0]], dtype=torch.float64)
    assert shown.strip() == f"['distance'] {float(trained(*given))!r}"


def test_a_state_has_one_registered_version_of_its_model(store, tmp_path):
    model = a_model(tmp_path)

    def versions(state):
        """Who has a version, after a state was published."""
        runs = [training(state, model=model, note="as learnt")]
        (run_id,) = publish(store, [state], lambda: runs, tmp_path / "marker.json").run_ids
        found = client.search_model_versions("name = 'cannon_drag'")
        assert run_id in {one.run_id for one in found}
        return sorted((one.tags["state"], one.run_id) for one in found)

    client, _ = store.connect()
    versions("s1")
    first, second = versions("s2")
    assert (first[0], second[0]) == ("s1", "s2")
    assert versions("s1") == [first, second]
    # What a killed publisher left: a version of a run that is not complete.
    client.delete_run(first[1])
    ((state, run), other) = versions("s1")
    assert state == "s1" and run != first[1] and other == second
    (version,) = client.search_model_versions(f"run_id = '{run}'")
    assert version.description == "as learnt" and client.get_registered_model("cannon_drag").description


def test_where_there_is_no_registry_runs_are_published_all_the_same(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "nowhere://at-all")
    done = publish(store, ["s1"], lambda: [training(model=a_model(tmp_path))], tmp_path / "marker.json")
    assert store.holds(done.run_ids)


def test_the_view_shows_what_was_published_last(store, tmp_path):
    marker = tmp_path / "marker.json"
    first = publish(store, ["s1"], a_set, marker)
    second = publish(store, ["s2"], lambda: a_set("s2"), marker)
    client, experiment = store.connect()

    def shown():
        return {run.info.run_id for run in client.search_runs([experiment], NEWEST)}

    assert shown() == set(second.run_ids)
    publish(store, ["s1"], a_set, marker)
    assert shown() == set(first.run_ids)


def test_a_run_takes_as_long_as_what_it_tells_of(store, tmp_path):
    publish(store, ["s1"], lambda: [training(seconds=7200.0)], tmp_path / "marker.json")
    (run,) = stored(store)[1]
    assert run.info.end_time - run.info.start_time == 7200_000


def test_the_marker_tells_no_secret(store, tmp_path):
    marker = tmp_path / "marker.json"
    publish(store, ["s1"], lambda: [route("direct")], marker)
    assert set(json.loads(marker.read_text())) == {"states", "store", "experiment_id", "run_ids"}
