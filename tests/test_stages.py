"""How a stage begins and ends: alone, with a place to write, and by a signal without a result."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.progress import Progress

from aimback.core.errors import UserError
from aimback.data.dataset import save_dataset, simulate_dataset
from aimback.runtime.exits import report_errors
from aimback.runtime.locks import hold_lock
from aimback.runtime.project import ROOT
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.workflow import stage
from aimback.workflow.compose import compose_settings
from aimback.workflow.progress import Bar
from aimback.workflow.stage import Job, hold_job


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new one in the project, because stages write nowhere else."""
    (ROOT / "outputs" / "by_hand").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "outputs" / "by_hand") as name:
        yield Path(name)


def start(
    name: str, folder: Path, *overrides: str, before: tuple[str, ...] = (), stage: str | None = None
) -> subprocess.Popen[str]:
    """A stage that writes into `folder`, by hand or, under the name that it has there, as if by dvc."""
    return subprocess.Popen(
        [*before, sys.executable, "-m", f"pipelines.{name}", f"hydra.run.dir={folder}", *overrides],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "HYDRA_"))}
        | ({"DVC_STAGE": stage} if stage else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_stage_in_one_line_and_without_a_result(folder: Path, blow: signal.Signals, code: int) -> None:
    child = start("generate", folder, "task=trebuchet", "data.examples=100000")
    until = time.monotonic() + 120
    while not (folder / "locks" / "generate@trebuchet").exists():
        assert time.monotonic() < until and child.poll() is None
        time.sleep(0.05)
    child.send_signal(blow)
    _, complaints = child.communicate(timeout=60)
    assert (child.returncode, complaints) == (code, f"ended by {blow.name}\n")
    assert list((folder / "trebuchet").rglob("*")) == []


def test_a_job_is_done_by_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = None
    job = Job("cannon", "", settings, "generate", tmp_path)
    lock = tmp_path / "locks" / "generate@cannon"
    with hold_job(job):
        pass
    monkeypatch.setattr(stage, "_SECONDS_FOR_AN_ORPHAN", 0.1)
    with hold_lock(lock):
        with hold_job(Job("other cannon", "", settings, "generate", tmp_path)):
            pass
        with pytest.raises(UserError, match="another process is running generate@cannon"), hold_job(job):
            raise AssertionError
    with hold_job(job), pytest.raises(BlockingIOError), hold_lock(lock):
        raise AssertionError


@pytest.mark.parametrize("change", [lambda file: file.write_text("other"), lambda file: file.unlink()])
def test_what_was_read_may_not_change_meanwhile(tmp_path: Path, change: Any) -> None:
    settings: Any = SimpleNamespace(inputs=(tmp_path,))
    job = Job("cannon", "", settings, "invert", tmp_path)
    file = tmp_path / "cannon" / "data.npz"
    file.parent.mkdir()
    file.write_text("one")
    with hold_job(job):
        assert job.find("data.npz") == file
    with pytest.raises(UserError, match=r"data.npz: was changed while invert@cannon was at work"), hold_job(job):
        change(file)


def test_a_job_waits_for_one_that_is_about_to_end(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = "import sys, time; from pathlib import Path; from aimback.runtime.locks import hold_lock\n"
    code += "with hold_lock(Path(sys.argv[1])): print('on', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, str(lock)], cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"on\n"
    with pytest.raises(BlockingIOError), hold_lock(lock):
        raise AssertionError
    child.kill()  # nothing is tidied up, and yet nothing is held
    with hold_lock(lock, patience=10):
        pass
    child.communicate()


@pytest.mark.parametrize("stage", [None, "generate@cannon_drag"])
def test_a_stage_says_where_it_has_written_by_hand_and_which_targets_are_invalid_always(
    stage: str | None, folder: Path, tmp_path: Path
) -> None:
    targets = tmp_path / "my targets.csv"
    targets.write_text("distance,wind\n10,0\nten,0\n10,\n10,0,0\n20,0\ninf,0\n")
    child = start(
        "generate", folder / "made", "task=cannon_drag", "data.examples=20", f"targets='{targets}'", stage=stage
    )
    said, complaints = child.communicate(timeout=120)
    assert (child.returncode, complaints) == (0, "")
    *first, invalid, last = said.splitlines() if stage is None else [*said.splitlines(), ""]
    assert first == ([] if stage is None else ["stage 2 of 11"])
    assert invalid == (
        f"cannon_drag: {targets}: 4 of 6 rows are invalid and left out: "
        "line 3: distance is 'ten', not a finite number; line 4: wind is empty; "
        "line 5: 3 cells, the header has 2 (a decimal comma?); and 1 more"
    )
    assert last == ("" if stage else f"generate: written to {(folder / 'made').relative_to(ROOT)}")


def test_more_may_have_arrived_than_are_done() -> None:
    with Progress(disable=True) as progress:
        Bar(progress, "cannon: solving", 1000, "within the tolerance").tell(234, 1000)
        (row,) = progress.tasks
    assert (row.completed, row.fields["count"]) == (234, "1000 of 1000 within the tolerance")


@pytest.fixture
def on_a_disk_of(folder: Path) -> Callable[[str], tuple[str, ...]]:
    """What to put before a command so that a folder is a disk of that size; on systems that let an ordinary user."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ("unshare", "-rm", "mount", "-t", "tmpfs", "none", str(disk))
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets a user mount no disk")

    def before(size: str) -> tuple[str, ...]:
        script = f'mount -t tmpfs -o size={size} none {disk} && "$@"; code=$?; ls -AR {disk}; exit $code'
        return ("unshare", "-rm", "sh", "-c", script, "sh")

    return before


def test_a_disk_too_small_for_the_data_set_is_told_before_the_work(
    folder: Path, on_a_disk_of: Callable[[str], tuple[str, ...]]
) -> None:
    overrides = ("task=cannon_vacuum", "data.examples=100000")
    child = start("generate", folder / "disk", *overrides, before=on_a_disk_of("1m"))
    left, complaints = child.communicate(timeout=120)
    assert child.returncode == 2
    (line,) = complaints.splitlines()
    assert line.startswith("error: ")
    assert "no space left on the disk: 2.4 MB are needed, 1.0 MB are free" in line
    assert "dataset" not in left


def test_on_a_full_disk_a_stage_leaves_nothing_that_looks_finished(
    folder: Path, on_a_disk_of: Callable[[str], tuple[str, ...]]
) -> None:
    task = CannonVacuum()
    data = simulate_dataset(task, 100, 0.2, torch.Generator().manual_seed(0))
    (folder / "made" / "cannon_vacuum" / "data").mkdir(parents=True)
    save_dataset(folder / "made" / "cannon_vacuum" / "data" / "dataset.npz", data, task)
    overrides = ("task=cannon_vacuum", f"inputs=[{folder / 'made'}]", "training.max_epochs=1")
    # Room for what Hydra writes, and not for some thousand weights.
    child = start("train", folder / "disk", *overrides, "surrogate.hidden_width=256", before=on_a_disk_of("64k"))
    left, complaints = child.communicate(timeout=120)
    assert child.returncode == 2
    *warned, line = complaints.splitlines()
    assert line.startswith("error: ") and "weights.safetensors: no space left on the disk: more than the 0." in line
    assert all("no checkpoint of epoch 1" in warning for warning in warned)
    assert "weights" not in left


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """What a command prints that ends by an error, and its exit code."""
    monkeypatch.setattr("aimback.runtime.exits._LOGS", tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(error: Exception) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended, report_errors("train"):
            raise error
        return ended.value.code, capsys.readouterr().err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "name",
    [
        "EFBIG",
        "ENOSPC",
        "EACCES",
        "EPERM",
        "EROFS",
        "ENAMETOOLONG",
        "EMFILE",
        "ENFILE",
        "EISDIR",
        "ENOTDIR",
        "ELOOP",
        "EDQUOT",
    ],
)
@pytest.mark.parametrize("file", ["outputs/a.npz", None])
def test_what_the_system_refuses_is_one_line(ends: Any, name: str, file: str | None) -> None:
    code = getattr(errno, name)
    said = os.strerror(code)
    assert ends(OSError(code, said, file)) == (
        2,
        f"error: {file or 'the system'}: {said}; see to that, then run again\n",
    )


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("a\nb\r\n\tc", "a b c"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("t\udcffr", r"t\udcffr"),
        ("täter", "täter"),
        ("a" * 3000 + "end", "a" * 1000 + " ... " + "a" * 997 + "end"),
    ],
)
def test_a_message_is_one_line_whatever_it_quotes(ends: Any, tmp_path: Path, message: str, line: str) -> None:
    assert ends(UserError(message)) == (2, f"error: {line}\n")
    assert "UserError" in (tmp_path / "train.log").read_text()


def test_a_fault_of_the_program_is_none_of_that(ends: Any) -> None:
    code, complaints = ends(ZeroDivisionError("division by zero"))
    assert code == 1 and complaints.startswith("Traceback")


@pytest.mark.parametrize(
    ("file", "maker"),
    [
        ("data/dataset.npz", "generate"),
        ("routes/networks/surrogate/weights.safetensors", "train"),
        ("routes/proposers/hybrid/ledger.json", "amortise"),
        ("routes/surrogate/solution.npz", "invert"),
        ("evaluate/answers.csv", "evaluate"),
        ("evaluate/claims/pictures/C1.npz", "diagnose"),
    ],
)
def test_a_missing_input_says_which_stage_makes_it(tmp_path: Path, file: str, maker: str) -> None:
    settings = compose_settings(f"inputs=[{tmp_path},{tmp_path}/other]")
    job = Job("trebuchet", "", settings, "diagnose", tmp_path)
    with pytest.raises(
        UserError,
        match=f"{file}: there is no such file; make it by .*{maker} task=trebuchet.*inputs=.*aimback task=treb",
    ):
        job.find(file)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("an array of 24 TiB")])
def test_too_little_memory_is_one_line(error: Exception, ends: Any, tmp_path: Path) -> None:
    code, complaints = ends(error)
    assert code == 2
    (line,) = complaints.splitlines()
    assert line.startswith(f"error: there is not enough memory ({error}); ask for less")
    assert str(error) in (tmp_path / "train.log").read_text()
