"""Stages as forks of a process that has its libraries: nobody can tell, but for the time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from aimback.runtime.preload import preload
from aimback.runtime.project import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stages are forked on Linux alone")

# What it was started with, and then whatever its first argument says.
PROBE = """
import json, os, signal, sys, time
told = {"pid": os.getpid(), "argv": sys.argv[1:], "folder": os.getcwd(), "given": os.environ.get("GIVEN")}
print(json.dumps(told | {"name": __name__, "forked": "torch" in sys.modules}), flush=True)
print("an error", file=sys.stderr)
exec(sys.argv[1])
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program that hands over as stages do."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe").mkdir()
    (folder / "probe" / "__init__.py").write_text("import aimback.runtime")
    (folder / "probe" / "main.py").write_text(PROBE)
    return folder


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, str]]:
    with preload() as found:
        name, deadline = found["AIMBACK_PRELOADED"].partition(":")[0], time.monotonic() + 30
        # A stage that comes before it listens works by itself, as it should.
        while f"@{name}" not in Path("/proc/net/unix").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield found


def start(probe: Path, found: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    path = os.pathsep.join([str(ROOT / "src"), str(probe)])
    return subprocess.Popen(
        [sys.executable, "-m", "probe.main", *arguments],
        cwd=probe,
        env={**os.environ, "DVC_STAGE": "probe", "GIVEN": "this", "PYTHONPATH": path, **found},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_line(started: "subprocess.Popen[str]") -> dict[str, object]:
    assert started.stdout is not None
    told: dict[str, object] = json.loads(started.stdout.readline())
    return told


def wait_for_the_end(pid: object) -> None:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int(str(pid))):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("last", "code"), [("pass", 0), ("sys.exit(0)", 0), ("sys.exit(3)", 3), ("sys.exit('why')", 1), ("1 / 0", 1)]
)
def test_a_fork_is_called_as_the_stage_was_and_ends_as_it_would(probe, served, last, code):
    started = start(probe, served, last, "wanted=[1, 2]")
    told = first_line(started)
    _, errors = started.communicate(timeout=30)
    assert started.returncode == code
    assert told.pop("pid") != started.pid
    assert told == {
        "argv": [last, "wanted=[1, 2]"],
        "folder": str(probe),
        "given": "this",
        "name": "__main__",
        "forked": True,
    }
    assert errors.startswith("an error\n")
    assert {"sys.exit('why')": "why", "1 / 0": "ZeroDivisionError"}.get(last, "") in errors


@pytest.mark.parametrize("name", [None, "aimback-none:{root}", "{served}:/elsewhere"])
def test_without_it_a_stage_works_itself(probe, served, name):
    alive = served["AIMBACK_PRELOADED"].partition(":")[0]
    found = {} if name is None else {"AIMBACK_PRELOADED": name.format(root=ROOT, served=alive)}
    started = start(probe, found, "sys.exit(4)")
    told = first_line(started)
    started.communicate(timeout=30)
    assert (started.returncode, told["pid"], told["forked"]) == (4, started.pid, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on(probe, served, number):
    wait = f"signal.signal({number:d}, lambda *_: sys.exit(7)); print('{{}}', flush=True); time.sleep(60)"
    started = start(probe, served, wait)
    first_line(started)
    first_line(started)
    started.send_signal(number)
    started.communicate(timeout=30)
    assert started.returncode == 7


def test_a_fork_ends_with_its_stage(probe, served):
    started = start(probe, served, "time.sleep(60)")
    told = first_line(started)
    started.kill()
    started.communicate(timeout=30)
    wait_for_the_end(told["pid"])


def test_a_stage_ends_with_its_fork(probe, served):
    started = start(probe, served, "os.kill(os.getpid(), signal.SIGKILL)")
    started.communicate(timeout=30)
    assert started.returncode == 128 + signal.SIGKILL


def test_it_ends_with_whoever_keeps_it():
    program = """
import os, signal, psutil
from aimback.runtime.preload import preload
with preload():
    print(*[child.pid for child in psutil.Process().children()], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    wait_for_the_end(done.stdout.split()[0])


def test_another_user_is_not_served(probe, served):
    if os.getuid() != 0:
        pytest.skip("only root can try it as another user")
    name = served["AIMBACK_PRELOADED"].partition(":")[0]
    program = f"""
import os, socket
os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
connection.connect(chr(0) + {name!r})
print(connection.recv(1))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "b''\n"
