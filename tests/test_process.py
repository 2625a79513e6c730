"""Whether a process still lives, whatever happened to the clock, the machine or the process."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from aimback.runtime import process
from aimback.runtime.process import lives, this_process

LINUX = Path("/proc/self/stat").is_file()
on_linux = pytest.mark.skipif(not LINUX, reason="there is no /proc")
# What a process says when it is there; its program's name is put into the middle of /proc/PID/stat.
NAMED = "from aimback.runtime.process import this_process; print(this_process(), flush=True); input()"
RENAMED = "open('/proc/self/comm', 'w').write('a) S 1 (b'); " + NAMED


@pytest.fixture(params=["from /proc", "without /proc"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if request.param == "without /proc":
        monkeypatch.setattr(process, "_PROC", tmp_path)
    elif not LINUX:
        pytest.skip("there is no /proc")
    return str(request.param)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    started = begin(NAMED)
    yield started
    started.kill()
    started.communicate()


def begin(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_process_is_told_from_a_later_one_with_its_number(place: str) -> None:
    host, pid, beginning = this_process().split()
    assert lives(this_process())
    assert not lives(f"{host} {pid} {beginning}1")
    assert not lives(f"{host} {psutil.Process().ppid()} {beginning}")
    assert lives("elsewhere 1 1.0")


@pytest.mark.parametrize("rest", ["", " 1", " one 1.0", " -1 1.0", " 1 None", f" {2**80} None", " 1 1.0 2.0"])
def test_what_names_no_process_does_not_live(rest: str, place: str) -> None:
    assert not lives(f"{socket.gethostname()}{rest}")


def test_one_that_has_ended_does_not_live_even_before_it_is_reaped(place: str) -> None:
    started = begin("input()")
    beginning = process._beginning(started.pid)
    name = f"{socket.gethostname()} {started.pid} {beginning}"
    assert beginning is not None and lives(name)
    started.kill()
    while psutil.Process(started.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert not lives(name)
    started.communicate()
    assert not lives(name)


@on_linux
@pytest.mark.parametrize("step", [-3600.0, -0.01, 0.01, 60.0])
def test_setting_the_clock_ends_no_process(
    step: float, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert other.stdout is not None
    names = [this_process(), other.stdout.readline().strip()]
    before = psutil.Process(other.pid).create_time()
    booted = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: booted + step)
    assert psutil.Process(other.pid).create_time() != before  # so psutil sees the clock being set
    assert all(map(lives, names))


@on_linux
def test_a_start_of_the_machine_ends_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = this_process()
    later = tmp_path / "sys/kernel/random/boot_id"
    later.parent.mkdir(parents=True)
    later.write_text("another\n")
    pid = name.split()[1]
    (tmp_path / pid).symlink_to(f"/proc/{pid}")
    monkeypatch.setattr(process, "_PROC", tmp_path)
    assert lives(this_process()) and not lives(name)


@on_linux
def test_a_program_may_be_called_anything() -> None:
    started = begin(RENAMED)
    assert started.stdout is not None
    assert lives(started.stdout.readline().strip())
    started.kill()
    started.communicate()
