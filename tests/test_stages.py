"""How a stage begins and ends: alone, with a place to write, and by a signal without a result."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aimback.errors import UserError
from pipelines import stage
from pipelines.ending import ROOT
from pipelines.locks import locked
from pipelines.stage import Job, alone


def start(name: str, folder: Path, *overrides: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A stage by hand that writes into `folder`."""
    return subprocess.Popen(
        [*before, sys.executable, "-m", f"pipelines.{name}", f"hydra.run.dir={folder}", *overrides],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "HYDRA_"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_stage_in_one_line_and_without_a_result(
    tmp_path: Path, blow: signal.Signals, code: int
) -> None:
    child = start("generate", tmp_path, "task=trebuchet", "data.examples=100000")
    until = time.monotonic() + 120
    while not (tmp_path / "locks" / "generate@trebuchet").exists():
        assert time.monotonic() < until and child.poll() is None
        time.sleep(0.05)
    child.send_signal(blow)
    _, complaints = child.communicate(timeout=60)
    assert (child.returncode, complaints) == (code, f"ended by {blow.name}\n")
    assert list((tmp_path / "trebuchet").rglob("*")) == []


def test_a_job_is_done_by_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = None
    job = Job("cannon", settings, "generate", tmp_path)
    lock = tmp_path / "locks" / "generate@cannon"
    with alone(job):
        pass
    monkeypatch.setattr(stage, "_SECONDS_FOR_AN_ORPHAN", 0.1)
    with locked(lock):
        with alone(Job("other cannon", settings, "generate", tmp_path)):
            pass
        with pytest.raises(UserError, match="another process is running generate@cannon"), alone(job):
            raise AssertionError
    with alone(job), pytest.raises(BlockingIOError), locked(lock):
        raise AssertionError


@pytest.mark.parametrize("change", [lambda file: file.write_text("other"), lambda file: file.unlink()])
def test_what_was_read_may_not_change_meanwhile(tmp_path: Path, change: Any) -> None:
    settings: Any = SimpleNamespace(inputs=(tmp_path,))
    job = Job("cannon", settings, "invert", tmp_path)
    file = tmp_path / "cannon" / "data.npz"
    file.parent.mkdir()
    file.write_text("one")
    with alone(job):
        assert job.made("data.npz") == file
    with pytest.raises(UserError, match=r"data.npz: was changed while invert@cannon was at work"), alone(job):
        change(file)


def test_a_job_waits_for_one_that_is_about_to_end(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = "import sys, time; from pathlib import Path; from pipelines.locks import locked\n"
    code += "with locked(Path(sys.argv[1])): print('on', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, str(lock)], cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"on\n"
    with pytest.raises(BlockingIOError), locked(lock):
        raise AssertionError
    child.kill()  # nothing is tidied up, and yet nothing is held
    with locked(lock, patience=10):
        pass
    child.communicate()


def test_on_a_full_disk_a_stage_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    """A disk of 1 MiB of its own; on systems that give an ordinary user one."""
    script = f'mount -t tmpfs -o size=1m none {tmp_path} && "$@"; code=$?; ls -AR {tmp_path}; exit $code'
    probe = (
        subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True, check=False)
        if sys.platform == "linux"
        else None
    )
    if probe is None or probe.returncode != 0:
        pytest.skip("this system lets a user mount no disk")
    child = start(
        "generate",
        tmp_path,
        "task=cannon_vacuum",
        "data.examples=100000",
        before=("unshare", "-rm", "sh", "-c", script, "sh"),
    )
    left, complaints = child.communicate(timeout=120)
    assert child.returncode == 2
    (line,) = complaints.splitlines()
    assert line.startswith("error: ")
    assert "no space left on the disk: 2.4 MB are needed, 1.0 MB are free" in line
    assert "dataset" not in left
