"""Results on servers that many share: real ones, which the tests start, restart and take away."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Repository
from services import Server, mlflow_server, object_store, postgres

from aimback.core.errors import UserError
from aimback.tracking import Run, Store, open_store, publish
from aimback.tracking.store import find_tagged

SOURCE = Path(__file__).parents[1] / "src"
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    # mlflow, and what it brings, warns of its own deprecations.
    pytest.mark.filterwarnings("default"),
]
# Two routes, with a file each.
PUBLISHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_shared import a_set
from aimback.tracking import open_store, publish
root = Path(sys.argv[1])
root.mkdir()
state = sys.argv[2]
publish(open_store(root), [state], lambda: a_set(state, root), root / "marker.json")
"""


def a_set(state: str, folder: Path) -> list[Run]:
    """Two routes with a file each; a value and its step stand twice in each, as a resumed training may leave it."""
    file = folder / "answer.txt"
    file.write_text(state)
    curve = [(0, 1.0), (1, 0.5), (1, 0.5), (2, 0.25)]
    about = {"params": {"seed": "0"}, "metrics": {"miss": 1.0}, "series": {"miss": curve}, "artifacts": {"": [file]}}
    return [Run(state=state, kind="route", task="cannon_drag", route=name, **about) for name in ("surrogate", "direct")]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str]]]:
    with object_store(tmp_path_factory.mktemp("s3") / "data") as (server, variables):
        yield server, variables


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[Server, str]]:
    with postgres() as found:
        yield found


@pytest.fixture(params=["database", "server"])
def shared(request, objects, database, monkeypatch) -> Iterator[dict[str, str]]:
    """What a client's environment says: the database itself, or a server in front of it, told by its URI alone."""
    psycopg = pytest.importorskip("psycopg")
    if request.param == "database":
        told = {"MLFLOW_TRACKING_URI": database[1], "MLFLOW_DEFAULT_ARTIFACT_ROOT": "s3://aimback/runs", **objects[1]}
        server = None
    else:
        # One of its own: whoever makes an experiment decides for all where its artifacts lie.
        name = request.function.__name__
        with psycopg.connect(database[1], autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        server = mlflow_server(database[1].replace("/postgres", f"/{name}"), "s3://aimback/served", objects[1])
        told = {"MLFLOW_TRACKING_URI": server.__enter__()[1]}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    yield told
    if server is not None:
        server.__exit__(None, None, None)


def sets(store: Store, *states: str) -> Counter[tuple[str, str]]:
    """How often each route of each state is there, complete: finished, with its points and its file."""
    client, experiment = store.connect()
    found: Counter[tuple[str, str]] = Counter()
    for state in states:
        for run in find_tagged(client, experiment, "state", state):
            assert run.info.status == "FINISHED"
            points = {(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "miss")}
            assert points == {(0, 1.0), (1, 0.5), (2, 0.25)}
            file = client.download_artifacts(run.info.run_id, "answer.txt")
            assert Path(file).read_text() == state
            found[state, run.data.tags["route"]] += 1
    return found


def once_each(*states: str) -> Counter[tuple[str, str]]:
    return Counter((state, route) for state in states for route in ("surrogate", "direct"))


def start(root: Path, state: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", PUBLISHER, str(root), state, str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def test_twenty_publish_at_once(shared, tmp_path):
    """Ten states of their own and ten times the same one, into a store that nobody has opened before."""
    experiment = f"of-{shared['MLFLOW_TRACKING_URI'].partition(':')[0]}"
    states = [f"{experiment}-{number}" for number in range(10)]
    names = [*states, *[f"{experiment}-same"] * 10]
    started = [start(tmp_path / str(number), state) for number, state in enumerate(names)]
    said = [process.communicate()[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * 20, said
    assert sets(open_store(tmp_path), *set(names)) == once_each(*set(names))


def test_what_is_away_for_a_while_is_waited_for(shared, objects, database, tmp_path, capfd):
    """The object store is gone at first, the database when that is back: nothing lost, nothing twice."""
    kind = shared["MLFLOW_TRACKING_URI"].partition(":")[0]
    state = f"away-{kind}"
    store = open_store(tmp_path)
    store.connect()

    def restart() -> None:
        time.sleep(5)
        objects[0].start()
        database[0].stop()
        time.sleep(30)
        database[0].start()

    objects[0].stop()
    meanwhile = threading.Thread(target=restart)
    meanwhile.start()
    try:
        publish(store, [state], lambda: a_set(state, tmp_path), tmp_path / "marker.json")
    finally:
        meanwhile.join()
    assert "trying again" in capfd.readouterr().err
    assert sets(store, state) == once_each(state)


def test_a_database_is_told_where_artifacts_go(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://nobody@127.0.0.1/none")
    monkeypatch.delenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", raising=False)
    with pytest.raises(UserError, match="MLFLOW_DEFAULT_ARTIFACT_ROOT=s3://BUCKET/FOLDER says where"):
        open_store(tmp_path)._artifacts()


def test_a_colleague_s_clone_takes_everything_from_the_store(objects, tmp_path):
    """All outputs come by `dvc pull`, from a server that is not Amazon's, and nothing is computed."""
    pytest.importorskip("dvc_s3", reason="needs dvc-s3: pip install 'aimback[s3]'")
    mine = Repository(tmp_path / "mine", git=True)
    mine.given = dict(objects[1])
    for words in ("remote add --default store s3://aimback/dvc", "config core.autostage true"):
        mine.run("dvc", *words.split()).ok()
    settings = ("task=[cannon_vacuum]", "routes=[direct]", "tracking=off", "diagnose=none", "data.examples=50")
    mine.run("aimback.workflow.run", *settings, "data.targets=20").ok()
    mine.commit("what was run")
    mine.run("dvc", "push", "--quiet").ok()
    hers = mine.clone(tmp_path / "hers")
    shutil.rmtree(mine.root)
    hers.run("dvc", "pull", "--quiet").ok()
    assert set(hers.run("dvc", "repro").ok().stages()) <= {"publish"}
    hers.git("diff", "--exit-code")
