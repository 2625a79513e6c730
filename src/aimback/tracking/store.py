"""Where runs are kept: MLflow's own default place, or the one that MLFLOW_TRACKING_URI names."""

import contextlib
import fcntl
import hashlib
import http.client
import logging
import os
import socket
import sqlite3
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from aimback.errors import UserError
from aimback.files import written_whole
from aimback.process import lives
from aimback.tracking.view import TAG, VIEW, view_state

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

PROBE_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Store:
    """A place for runs and the experiment in it. Making one touches nothing.

    Args:
        uri: MLflow's tracking URI.
        experiment: the experiment's name.
        root: the folder whose git commit the runs come from.
    """

    uri: str
    experiment: str
    root: Path

    @property
    def database(self) -> Path | None:
        """The SQLite file; None for a server or another database."""
        return Path(unquote(self.uri.removeprefix(_SQLITE))).absolute() if self.uri.startswith(_SQLITE) else None

    @property
    def shown(self) -> str:
        """The URI without a user's name and password."""
        parts = urlsplit(self.uri)
        return self.uri.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2]) if parts.netloc else self.uri

    @property
    def digest(self) -> str:
        """A name for the place that tells no secret."""
        place = self.uri if self.database is None else str(self.database)
        return hashlib.sha256(f"{place}\n{self.experiment}".encode()).hexdigest()

    def connect(self) -> tuple["MlflowClient", str]:
        """A client and the experiment's id; makes what is missing.

        Takes some seconds for a fresh SQLite store, and at most some seconds where nobody answers.

        Raises:
            UserError: the store cannot be reached or used.
        """
        _configure()
        self._probe()
        with self.failing():
            if self.database is not None:
                _make_database(self.database, self.experiment)
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            client = MlflowClient(tracking_uri=self.uri)
            found = client.get_experiment_by_name(self.experiment)
            if found is None:
                with contextlib.suppress(MlflowException):  # another process was faster; if not, the next line says so
                    client.create_experiment(self.experiment, _artifacts(self.database))
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise UserError(self.complaint(f"the experiment {self.experiment!r} cannot be made"))
            if found.lifecycle_stage != "active":
                client.restore_experiment(found.experiment_id)
            if found.tags.get(TAG) != view_state():
                with contextlib.suppress(MlflowException, SQLAlchemyError):  # again: who is second finds it there
                    client.set_experiment_tag(found.experiment_id, TAG, view_state())
            return client, str(found.experiment_id)

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Turn what MLflow raises inside into a UserError of one line that says how to go on."""
        try:
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as error:
            raise UserError(f"MLflow cannot be imported ({error}); install it, or choose tracking=off") from error
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise UserError(self.complaint(reason)) from error

    def complaint(self, reason: str) -> str:
        return (
            f"MLflow at {self.shown}: {reason}; the results are kept, publish them again with `dvc repro publish` "
            "(MLFLOW_TRACKING_URI chooses another place)"
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among the processes that publish into the same SQLite file; a server is not locked."""
        if self.database is None:
            yield
        else:
            with _locked(self.database):
                yield

    def holds(self, run_ids: Sequence[str]) -> bool:
        """Whether the SQLite file has these runs, finished and not deleted; True for any other store.

        Looks without MLflow and without changing a byte.
        """
        if self.database is None:
            return True
        if not self.database.is_file():
            return False
        marks = ",".join("?" * len(run_ids))
        query = (
            f"SELECT COUNT(*) FROM runs WHERE run_uuid IN ({marks}) AND status = 'FINISHED' "
            "AND lifecycle_stage = 'active'"
        )
        try:
            with contextlib.closing(sqlite3.connect(f"file:{quote(str(self.database))}?mode=ro", uri=True)) as base:
                (count,) = base.execute(query, list(run_ids)).fetchone()
        except sqlite3.Error:
            return False  # locked or damaged: MLflow itself shall say which
        return bool(count == len(run_ids))

    def _probe(self) -> None:
        # MLflow's own retries would take minutes to find out that nobody is there.
        parts = urlsplit(self.uri)
        scheme = parts.scheme.partition("+")[0]
        if not parts.hostname or scheme not in _PORTS:
            return
        if scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname):
            return
        place = (parts.hostname, parts.port or _PORTS[scheme])
        try:
            if scheme == "http":
                _ask_for_a_word(*place)
            else:
                socket.create_connection(place, PROBE_SECONDS).close()
        except (OSError, http.client.HTTPException) as error:
            raise UserError(self.complaint(f"not reachable ({getattr(error, 'strerror', None) or error})")) from error


def _ask_for_a_word(host: str, port: int) -> None:
    """Any answer will do: a server may accept connections and never say one."""
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=PROBE_SECONDS)) as connection:
        connection.request("GET", "/health")
        connection.getresponse()


def open_store(root: Path, experiment: str = "aimback") -> Store:
    """MLFLOW_TRACKING_URI where it is set, else the SQLite file that a plain `mlflow ui` finds in `root`."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{quote(str(Path(root).absolute() / 'mlflow.db'))}"
    return Store(uri, experiment, Path(root))


def ui_link(experiment_id: str, port: int = 5000, host: str = "127.0.0.1") -> str:
    """The page of the MLflow UI with the charts of all routes side by side."""
    # The view holds the filter; a filter in the address would make the UI ignore the view.
    page = f"experiments/{experiment_id}/runs?compareRunsMode=CHART&viewStateShareKey={VIEW}"
    return f"http://{host}:{port}/#/{page}"


def mark_killed(client: "MlflowClient", experiment_id: str) -> None:
    """Runs whose process is gone are no longer running; MLflow would show them so for ever."""
    for run in _search(client, experiment_id, "attributes.status = 'RUNNING'"):
        process = run.data.tags.get("process")
        if process is not None and not lives(process):
            client.set_terminated(run.info.run_id, "KILLED")


def tagged(client: "MlflowClient", experiment_id: str, tag: str, value: str) -> list["StoredRun"]:
    """The active runs with a tag, the oldest first."""
    found = _search(client, experiment_id, f"tags.{tag} = '{value}'")
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def source_tags(root: Path) -> dict[str, str]:
    """The commit that is checked out in `root` and whether files differ from it; nothing without git."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {
        # MLflow shows the commit beside the source's name.
        "mlflow.source.name": "aimback",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
        "dirty": str(bool(changed)).lower(),
    }


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    # GIT_DIR and the like would lead it to another repository, GIT_CONFIG_* and the like to programs of their choice.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5, env=env).stdout.strip()


def _search(client: "MlflowClient", experiment_id: str, wanted: str) -> list["StoredRun"]:
    found: list[StoredRun] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], wanted, max_results=1000, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _configure() -> None:
    # Read when mlflow is imported; what a user has set stays.
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _artifacts(database: Path | None) -> str | None:
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH

    # MLflow takes its default relative to the working folder, which need not be the store's.
    return None if database is None else str(database.parent / DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)


def _make_database(database: Path, experiment: str) -> None:
    # MLflow makes its tables in place: two processes doing so at once, or one that is killed,
    # leave a broken file. Made aside under a lock and renamed, it is whole or not there.
    if database.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with _locked(database):
        if database.exists():
            return
        for left in database.parent.glob(f".{database.stem}-*"):  # by a process that was killed here
            left.unlink(missing_ok=True)
        with written_whole(database) as temporary:
            store = SqlAlchemyStore(f"{_SQLITE}{temporary}", _artifacts(database))  # type: ignore[no-untyped-call]
            store.create_experiment(experiment, None, [])  # type: ignore[no-untyped-call]
            store.engine.dispose()


@contextlib.contextmanager
def _locked(database: Path) -> Iterator[None]:
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
