"""Where runs are kept: MLflow's own default place, or the one that MLFLOW_TRACKING_URI names."""

import contextlib
import fcntl
import hashlib
import http.client
import logging
import os
import random
import re
import socket
import sqlite3
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from aimback.core.errors import UserError
from aimback.core.files import write_whole
from aimback.core.repository import has_changes, head_commit
from aimback.runtime.process import lives
from aimback.runtime.project import SWEEP
from aimback.tracking.uris import local_path, sqlite_file, sqlite_uri
from aimback.tracking.view import TAG, VIEW, view_state

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as StoredRun

_Result = TypeVar("_Result")

PROBE_SECONDS = 5.0
# How long a set that is on its way waits for a server, a database or an object store that is started again.
PATIENCE_SECONDS = 120.0
# What MLflow itself leaves out, and what brings it.
_EXTRAS = {"psycopg": "postgres", "boto3": "s3", "botocore": "s3"}
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_BATCH = 1000  # the most metrics MLflow takes at once
_ARTIFACTS = "mlruns"  # the folder beside a database in which MLflow keeps them by itself
# Wherever the tables of MLflow say where artifacts lie.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)


class StoreFailure(UserError):  # noqa: N818 - a state of affairs, as StopIteration
    """The place for runs, or that for their artifacts, does not do what it is asked; it may a moment later."""


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
        file = sqlite_file(self.uri)
        return None if file is None else file.resolve()

    @property
    def is_own(self) -> bool:
        """Whether the store is a SQLite file in the project, which moves and is copied with it."""
        return self.database is not None and self.database.is_relative_to(self.root)

    @property
    def shown(self) -> str:
        """The file, or the URI without a user's name and password."""
        if self.database is not None:
            return str(self.database)
        parts = urlsplit(self.uri)
        return self.uri.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2]) if parts.netloc else self.uri

    @property
    def digest(self) -> str:
        """A name for the place that tells no secret; that of the project's own store moves with the project."""
        place = str(self.database.relative_to(self.root)) if self.database and self.is_own else self.shown
        # With another view, what is there is looked at again: its filter may ask for a tag that older runs lack.
        return hashlib.sha256(f"{place}\n{self.experiment}\n{view_state()}".encode()).hexdigest()

    def connect(self) -> tuple["MlflowClient", str]:
        """A client and the experiment's id; makes what is missing.

        Takes some seconds for a fresh SQLite store, and at most some seconds where nobody answers.

        Raises:
            UserError: the store cannot be reached or used.
        """
        _configure()
        self._probe()
        with self.failing(), self._alone_in_postgres():
            if self.database is not None:
                _make_database(self.database, f"{self._artifacts()}", self.experiment)
                self.rebase()
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            client = MlflowClient(tracking_uri=self.uri)
            found = client.get_experiment_by_name(self.experiment)
            if found is None:
                with contextlib.suppress(MlflowException):  # another process was faster; if not, the next line says so
                    client.create_experiment(self.experiment, self._artifacts())
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise StoreFailure(self.complaint(f"the experiment {self.experiment!r} cannot be made"))
            if found.lifecycle_stage != "active":
                client.restore_experiment(found.experiment_id)
            if found.tags.get(TAG) != view_state():
                with contextlib.suppress(MlflowException, SQLAlchemyError):  # again: who is second finds it there
                    client.set_experiment_tag(found.experiment_id, TAG, view_state())
            return client, str(found.experiment_id)

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Turn what MLflow raises inside into a `StoreFailure` of one line that says how to go on."""
        try:
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as error:
            raise UserError(f"MLflow cannot be imported ({error}); install it, or choose tracking=off") from error
        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise StoreFailure(self.complaint(_first_sentence(error))) from error
        except ImportError as error:
            if error.name not in _EXTRAS:
                raise
            needed = f"{error.name} is not installed; pip install 'aimback[{_EXTRAS[error.name]}]' brings it"
            raise UserError(self.complaint(needed)) from error
        except Exception as error:
            # MLflow lets through what the library of an object store raises, which need not be installed.
            if type(error).__module__.partition(".")[0] not in _EXTRAS:
                raise
            # Waiting brings no credentials.
            failure = UserError if type(error).__name__ == "NoCredentialsError" else StoreFailure
            raise failure(self.complaint(_first_sentence(error))) from error

    def insist(self, work: Callable[[], _Result]) -> _Result:
        """Do what may be done again from its beginning, and do so for a while where a shared place fails.

        A database may be started again, an object store be away, and of two processes that write the same row one is
        refused. A SQLite file has its lock against that.

        Raises:
            StoreFailure: the place still fails.
        """
        until, pause = time.monotonic() + PATIENCE_SECONDS, 0.5
        while True:
            try:
                return work()
            except StoreFailure as failure:
                if self.database is not None or time.monotonic() + pause > until:
                    raise
                if pause == 0.5:
                    print(f"{str(failure).partition(';')[0]}; trying again", file=sys.stderr)
            # Drawn anew by each process, so that two that were in each other's way are so no more.
            time.sleep(pause * random.Random().uniform(0.5, 1))
            pause = min(2 * pause, 8.0)

    def complaint(self, reason: str) -> str:
        return (
            f"MLflow at {self.shown}: {reason}; the results are kept, publish them again with `dvc repro publish` "
            "(MLFLOW_TRACKING_URI chooses another place)"
        )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Alone among the processes that publish into the same SQLite file; a server is not locked."""
        if self.database is None:
            yield
        else:
            with _lock(self.database):
                yield

    def rebase(self) -> None:
        """Let the artifacts of a project that was renamed, moved or copied be those in its folder of today.

        MLflow keeps absolute locations. Without this a renamed project would lose its artifacts and a copy would write
        into the original. Only the project's own store is changed, and there only what lies where our experiment's
        artifacts did.
        """
        if not self.is_own or self.database is None or not self.database.is_file():
            return
        home = self.database.parent / _ARTIFACTS
        if self._former_location(home) is None:
            return
        with _lock(self.database):
            there = self._former_location(home)  # None now, if another process was faster
            tables = self._tables()
            with contextlib.closing(sqlite3.connect(self.database)) as base, base:
                for table, column in _LOCATIONS if there else ():
                    if table in tables:
                        base.execute(
                            f"UPDATE {table} SET {column} = :home || substr({column}, :end + 1) "
                            f"WHERE {column} = :there OR substr({column}, 1, :end + 1) = :there || '/'",
                            {"home": home.as_uri(), "there": there, "end": len(there or "")},
                        )

    def _former_location(self, home: Path) -> str | None:
        """Where MLflow believes the artifacts to lie, if that is where this project was before."""
        query = "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?"
        found = self._read(query, [self.experiment]) if "experiments" in self._tables() else []
        if not found:
            return None
        number, location = found[0]
        there = str(location).removesuffix(f"/{number}")
        path = local_path(there)
        if there == home.as_uri() or path is None or path.name != _ARTIFACTS:
            return None
        chosen = path != home and path.is_relative_to(self.root) and path.is_dir()  # another folder of the project
        return None if chosen else there

    def holds(self, run_ids: Sequence[str]) -> bool:
        """Whether the SQLite file has these runs, finished and not deleted, and no training that no state took over.

        Looks without MLflow and without changing a byte. True for any other store.
        """
        if self.database is None:
            return True
        if not self.database.is_file():
            return False
        marks = ",".join("?" * len(run_ids))
        complete = (
            f"SELECT COUNT(*) FROM runs WHERE run_uuid IN ({marks}) AND status = 'FINISHED' "
            "AND lifecycle_stage = 'active'"
        )
        apart = (
            "SELECT status, process.value FROM runs JOIN experiments USING (experiment_id) "
            "JOIN tags AS training ON training.run_uuid = runs.run_uuid AND training.key = 'training' "
            "LEFT JOIN tags AS state ON state.run_uuid = runs.run_uuid AND state.key = 'state' "
            "LEFT JOIN tags AS process ON process.run_uuid = runs.run_uuid AND process.key = 'process' "
            "WHERE experiments.name = ? AND runs.lifecycle_stage = 'active' AND state.value IS NULL"
        )
        try:
            ((count,),) = self._read(complete, run_ids)
            trainings = self._read(apart, [self.experiment])
        except sqlite3.Error:
            return False  # locked or damaged: MLflow itself shall say which
        in_work = all(status == "RUNNING" and lives(process or "") for status, process in trainings)
        return bool(count == len(run_ids)) and in_work

    def _tables(self) -> set[str]:
        return {name for (name,) in self._read("SELECT name FROM sqlite_master WHERE type = 'table'", [])}

    def _read(self, query: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        address = f"file:{quote(str(self.database))}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as base:
            return base.execute(query, list(values)).fetchall()

    def _artifacts(self) -> str | None:
        """Where the artifacts of a new experiment go: beside a SQLite file, and where a server says.

        MLflow's own default is a folder below the working folder, which need not be the store's, and which is no place
        at all for whoever reads a database from another machine.

        Raises:
            UserError: the store is a database on a machine, and nobody has said where.
        """
        if self.database is not None:
            return (self.database.parent / _ARTIFACTS).as_uri()
        if urlsplit(self.uri).scheme in {"http", "https"}:
            return None
        chosen = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT")
        if not chosen:
            raise UserError(
                self.complaint(
                    "a database holds no artifacts; MLFLOW_DEFAULT_ARTIFACT_ROOT=s3://BUCKET/FOLDER says where the "
                    f"experiment {self.experiment!r} keeps them, an MLflow server in front of it knows by itself"
                )
            )
        return f"{chosen.rstrip('/')}/{quote(self.experiment)}"

    @contextlib.contextmanager
    def _alone_in_postgres(self) -> Iterator[None]:
        """Alone among those who open the same PostgreSQL: MLflow makes its tables there for whoever comes first, and
        two that come first fail. A process that ends, or a server that does, lets go."""
        if urlsplit(self.uri).scheme.partition("+")[0] != "postgresql":
            yield
            return
        from sqlalchemy import NullPool, create_engine, text

        engine = create_engine(self.uri, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(hashtext('aimback'))"))
            yield

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
            reason = f"not reachable ({getattr(error, 'strerror', None) or error})"
            raise StoreFailure(self.complaint(reason)) from error


def _ask_for_a_word(host: str, port: int) -> None:
    """Any answer will do: a server may accept connections and never say one."""
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=PROBE_SECONDS)) as connection:
        connection.request("GET", "/health")
        connection.getresponse()


def open_store(root: Path, experiment: str = "aimback") -> Store:
    """MLFLOW_TRACKING_URI where it is set, else the SQLite file that a plain `mlflow ui` finds in `root`.

    A file that the variable names relative to the working folder is meant relative to `root`: the stages of one
    pipeline work in several folders.

    Raises:
        UserError: the name of the folder cannot be kept by MLflow.
    """
    root = Path(root).resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    file = sqlite_file(uri) if uri else Path("mlflow.db")
    if file is not None and not (uri and file.is_absolute()):
        uri = sqlite_uri(root / file)
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{os.fsencode(root)!r}: MLflow cannot keep runs in a folder whose name is not UTF-8; "
            "rename it, or choose tracking=off"
        ) from None
    return Store(uri, experiment, root)


def ui_link(experiment_id: str, server: str) -> str:
    """The page of a server's MLflow UI with the charts of all routes side by side."""
    # The view holds the filter; a filter in the address would make the UI ignore the view.
    chosen = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={VIEW}"
    return f"{server}/#/experiments/{experiment_id}/runs?{chosen}"


def mark_killed(client: "MlflowClient", experiment_id: str) -> None:
    """Runs whose process is gone are no longer running; MLflow would show them so for ever."""
    for run in _search(client, experiment_id, "attributes.status = 'RUNNING'"):
        process = run.data.tags.get("process")
        if process is not None and not lives(process):
            client.set_terminated(run.info.run_id, "KILLED")


def find_tagged(client: "MlflowClient", experiment_id: str, tag: str, value: str | None = None) -> list["StoredRun"]:
    """The active runs with a tag, of any value where that is None; the oldest first."""
    found = _search(client, experiment_id, f"tags.{tag} != ''" if value is None else f"tags.{tag} = '{value}'")
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def log_metrics(client: "MlflowClient", run_id: str, points: Sequence["Metric"]) -> None:
    for first in range(0, len(points), _BATCH):
        client.log_batch(run_id, metrics=points[first : first + _BATCH])


def source_tags(root: Path) -> dict[str, str]:
    """The sweep that runs; the commit that is checked out in `root`, whether files differ from it, and DVC's name of
    the experiment that runs, where there is git."""
    sweep = os.environ.get(SWEEP)
    tags = {"sweep": sweep} if sweep else {}
    commit = head_commit(root)
    if commit is None:
        return tags
    experiment = os.environ.get("DVC_EXP_NAME")
    return {
        **tags,
        # MLflow shows the commit beside the source's name.
        "mlflow.source.name": "aimback",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
        "dirty": str(has_changes(root)).lower(),
        **({"dvc_experiment": experiment} if experiment else {}),
    }


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


def _first_sentence(error: Exception) -> str:
    """What MLflow says first. The whole, which may be a page, stands in the trace that a command keeps."""
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return textwrap.shorten(re.split(r"(?<=[.!?])\s", said)[0], 300, placeholder=" …").rstrip(".")


def _make_database(database: Path, artifacts: str, experiment: str) -> None:
    # MLflow makes its tables in place: two processes doing so at once, or one that is killed,
    # leave a broken file. Made aside under a lock and renamed, it is whole or not there.
    if database.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with _lock(database):
        if database.exists():
            return
        for left in database.parent.glob(f".{database.stem}-*"):  # by a process that was killed here
            left.unlink(missing_ok=True)
        with write_whole(database) as temporary:
            store = SqlAlchemyStore(sqlite_uri(temporary), artifacts)  # type: ignore[no-untyped-call]
            store.create_experiment(experiment, None, [])  # type: ignore[no-untyped-call]
            store.engine.dispose()


@contextlib.contextmanager
def _lock(database: Path) -> Iterator[None]:
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
