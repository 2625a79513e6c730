"""MLflow's server away, silent, or killed while a pipeline runs: what is lost, and how long does the pipeline wait?"""

import contextlib
import itertools
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

from benchmarks.campaigns.scratch import Scratch

# (run's name, name of the value, step): a point of a curve, or a final value.
Points = set[tuple[str, str, int]]
_TOLD = ("train", "publish")


class Server:
    """`mlflow server` on a port and a SQLite file of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            f"sqlite:///{self.folder}/mlflow.db",
        ]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1"]
        env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port), "--workers", "1"],
            env=env,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
        )
        while True:
            with contextlib.suppress(OSError), urlopen(f"{self.uri}/health", timeout=5):
                return
            if self._process.poll() is not None:
                raise RuntimeError("mlflow server has ended")
            time.sleep(0.1)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def has(self, kind: str) -> bool:
        """Whether a run of this kind is there."""
        return bool(self._ask("SELECT 1 FROM tags WHERE key = 'kind' AND value = ? LIMIT 1", kind))

    def points(self) -> Points:
        """All of the finished runs."""
        query = "SELECT r.name, m.key, m.step FROM metrics m JOIN runs r USING (run_uuid) "
        return set(self._ask(query + "WHERE r.status = 'FINISHED' AND r.lifecycle_stage = 'active'"))

    def _ask(self, query: str, *values: str) -> list[tuple[str, str, int]]:
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.folder}/mlflow.db?mode=ro", uri=True)) as base:
                return base.execute(query, values).fetchall()
        except sqlite3.OperationalError:
            return []  # its tables are being made


def servers(count: int, folder: Path) -> list[str]:
    """So many pipelines for each fault; the server is there again afterwards, and `dvc repro publish` is run."""
    scratch, untold = Scratch(folder / "told", tracking="mlflow"), Scratch(folder / "untold", tracking="off")
    for one in (scratch, untold):
        one.edit("conf/training/default.yaml", {r"^max_epochs: \S+": "max_epochs: 400"})
    untold.run("dvc", "repro")  # the first one reads everything from the disk
    whole: Points = set()
    waited: dict[str, list[float]] = {name: [] for name in FAULTS}
    differing = dict.fromkeys(FAULTS, 0)
    for number in range(count):
        usual = _seconds_in_stages(untold, {}, lambda: None)
        for name, fault in FAULTS.items():
            server = Server(folder / f"{name} {number}")
            told = {"MLFLOW_TRACKING_URI": server.uri}
            with fault(server) as meanwhile:
                waited[name].append(_seconds_in_stages(scratch, told, meanwhile) - usual)
            scratch.run("aimback.workflow.verify")
            server.start()
            scratch.run("dvc", "repro", "publish", env=told)
            server.kill()
            whole = whole or server.points()
            differing[name] += len(whole ^ server.points())
    return [
        f"{count} times {name}: {differing[name]} of {len(whole)} points missing or too many once it is there again; "
        f"the stages that tell it took {min(seconds):+.0f} to {max(seconds):+.0f} s against `tracking=off`"
        for name, seconds in waited.items()
    ]


def _seconds_in_stages(scratch: Scratch, env: dict[str, str], meanwhile: Callable[[], None]) -> float:
    """In those that talk to MLflow; all but the one that publishes must be a success."""
    scratch.forget()
    dvc = scratch.start("dvc", "repro", env={**env, "PYTHONUNBUFFERED": "1"})
    assert dvc.stdout is not None
    beside = threading.Thread(target=meanwhile)
    beside.start()
    stage, began, seconds, printed = "", 0.0, 0.0, []
    for line in itertools.chain(dvc.stdout, ["Running stage 'none':"]):
        printed.append(line)
        if line.startswith("Running stage"):
            now = time.monotonic()
            seconds += now - began if stage in _TOLD else 0.0
            stage, began = line.split("'")[1].partition("@")[0], now
    beside.join()
    if dvc.wait() != 0 and "failed to reproduce 'publish'" not in "".join(printed):
        raise RuntimeError("".join(printed))
    return seconds


@contextlib.contextmanager
def _sound(server: Server) -> Iterator[Callable[[], None]]:
    server.start()
    yield lambda: None
    server.kill()


@contextlib.contextmanager
def _away(server: Server) -> Iterator[Callable[[], None]]:
    yield lambda: None


@contextlib.contextmanager
def _silent(server: Server) -> Iterator[Callable[[], None]]:
    with socket.create_server(("127.0.0.1", server.port)):
        yield lambda: None


@contextlib.contextmanager
def _killed(server: Server, kind: str) -> Iterator[Callable[[], None]]:
    """As soon as it has the first run of a kind."""

    def kill() -> None:
        while not server.has(kind):
            time.sleep(0.02)
        server.kill()

    server.start()
    yield kill


FAULTS: dict[str, Callable[[Server], contextlib.AbstractContextManager[Callable[[], None]]]] = {
    "a sound server": _sound,
    "nobody listens": _away,
    "a server that accepts and never answers": _silent,
    "a server killed in the middle, told of the training": lambda server: _killed(server, "training"),
    "a server killed at the end, told of the routes": lambda server: _killed(server, "route"),
}
