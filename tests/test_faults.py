"""What kills and damage do to a DVC project, in a small one whose stages are over at once."""

import contextlib
import functools
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from aimback.core.errors import UserError
from aimback.runtime import doctor
from aimback.runtime.locks import hold_lock
from aimback.runtime.project import ROOT
from aimback.workflow.verify import Checked
from benchmarks.campaigns.damage import named_damage

PROJECT = {
    "make.py": """
        import pathlib, sys
        for name in sys.argv[1:]:
            path = pathlib.Path(name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"what is in {name}\\n" * 20)
    """,
    "dvc.yaml": """
        stages:
          file:
            matrix: {task: [one, two]}
            cmd: python make.py ${item.task}.txt
            deps: [make.py]
            outs: ["${item.task}.txt"]
          folder:
            cmd: python make.py folder/a folder/b
            deps: [make.py, one.txt]
            outs: [folder]
          note:
            cmd: python make.py note.txt
            deps: [folder]
            metrics: [{note.txt: {cache: false}}]
    """,
}


class Project:
    """A DVC project in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "DVC_SITE_CACHE_DIR": str(self.root / "site")}

    def start(self, *command: str, **more: object) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*command], cwd=self.root, env=self.environment(), text=True, stdout=pipe, stderr=subprocess.STDOUT, **more
        )

    def run(self, *command: str) -> tuple[int, str]:
        process = self.start(*command)
        printed, _ = process.communicate(timeout=120)
        return process.returncode, printed

    def dvc(self, *arguments: str) -> str:
        code, printed = self.run(sys.executable, "-m", "dvc", *arguments)
        assert code == 0, printed
        return printed

    def files(self) -> dict[str, bytes]:
        """All that dvc.lock names, outputs and objects, and dvc.lock."""
        named = [*Checked(self.root).files, Path("dvc.lock")]
        return {str(path): (self.root / path).read_bytes() for path in named}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    for name, text in PROJECT.items():
        (project.root / name).write_text(textwrap.dedent(text).lstrip())
    project.dvc("init", "--no-scm", "--quiet")
    project.dvc("repro", "--quiet")
    return project


@pytest.fixture
def project(original: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, to be damaged."""
    shutil.copytree(original.root, tmp_path / "copy", ignore=shutil.ignore_patterns("site"))
    return Project(tmp_path / "copy")


# ---- what a kill leaves behind ------------------------------------------------------------------------------------


@functools.cache
def stages_of(lock: bytes) -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load(lock)["stages"]
    return stages


def test_every_beginning_of_a_lock_file_is_mended_to_whole_stages(original: Project, tmp_path: Path) -> None:
    whole = (original.root / "dvc.lock").read_bytes()
    stages = stages_of(whole)
    lock = tmp_path / "dvc.lock"
    said = set()
    for length in range(len(whole) + 1):
        lock.write_bytes(whole[:length])
        said |= {line.partition(";")[0] for line in doctor.mend(tmp_path)}
        if not lock.exists():
            assert length <= whole.index(b"file@two")
            continue
        left = stages_of(lock.read_bytes())
        assert list(left) == list(stages)[: len(left)]
        *before, last = left
        assert all(left[name] == stages[name] for name in before)
        # DVC takes up the last stage again, unless it knows all of its outputs.
        assert left[last] == stages[last] or left[last].get("outs") != stages[last]["outs"]
        assert doctor.mend(tmp_path) == []
    assert said == {"dvc.lock: cut short by a kill", "dvc.lock: cut short by a kill, no stage was left"}


@pytest.mark.parametrize("part", [0.0, 0.6, 0.97])
def test_a_mended_lock_file_ends_as_the_same_bytes(project: Project, part: float) -> None:
    before = project.files()
    lock = project.root / "dvc.lock"
    lock.write_bytes(lock.read_bytes()[: int(part * lock.stat().st_size)])
    assert len(doctor.mend(project.root)) == 1
    printed = project.dvc("repro")
    # From the run cache; DVC keeps no run of a stage whose output is left to git.
    assert [line for line in printed.splitlines() if line.startswith("Running")] in ([], ["Running stage 'note':"])
    assert project.files() == before


def test_zeros_at_the_end_are_no_lock_file(project: Project) -> None:
    lock = project.root / "dvc.lock"
    whole = lock.read_bytes()
    lock.write_bytes(whole[:-9] + bytes(9))
    assert doctor.mend(project.root) == ["dvc.lock: cut short by a kill; kept its 3 whole stages"]
    assert whole.startswith(lock.read_bytes())


def test_what_no_kill_does_is_left_to_a_person(project: Project) -> None:
    lock = project.root / "dvc.lock"
    conflict = b"<<<<<<< HEAD\n" + lock.read_bytes()
    lock.write_bytes(conflict)
    with pytest.raises(UserError, match="not by a kill; `git checkout dvc.lock`"):
        doctor.mend(project.root)
    assert lock.read_bytes() == conflict


RWLOCK = json.dumps({"write": {"/a": {"pid": 2**22 + 1, "cmd": "dvc repro"}}, "read": {"/b": []}}).encode()


@pytest.mark.parametrize("length", [0, 1, len(RWLOCK) // 2, len(RWLOCK) - 1, len(RWLOCK)])
@pytest.mark.parametrize("place", [".dvc/tmp", ".dvc/tmp/exps"])
def test_the_rwlock_of_a_dead_dvc_is_removed(project: Project, length: int, place: str) -> None:
    (project.root / place).mkdir(exist_ok=True)
    rwlock = project.root / place / "rwlock"
    rwlock.write_bytes(RWLOCK[:length])
    assert doctor.mend(project.root) == [f"{place}/rwlock: left by a dvc that was killed; removed"]
    assert not rwlock.exists()
    assert doctor.mend(project.root) == []


def test_dvc_is_told_whether_there_is_git(project: Project) -> None:
    local = project.root / ".dvc" / "config.local"
    local.write_text("['remote \"mine\"']\n    url = /data/100%\n")
    for has_git, told in ((True, ""), (False, "true"), (False, "true"), (True, "")):
        doctor.tell_of_git(local, has_git)
        settings = project.dvc("config", "--local", "--list")
        assert f"core.no_scm={told}" in settings if told else "no_scm" not in settings
        assert "remote.mine.url=/data/100%" in settings.replace(f"{project.root}/.dvc/../", "")


def test_dvc_runs_again_where_its_rwlock_was_torn(project: Project) -> None:
    (project.root / ".dvc/tmp/rwlock").write_bytes(b"")
    code, printed = project.run(sys.executable, "-m", "dvc", "repro")
    assert code != 0 and "rwlock" in printed  # which is why there is a doctor
    doctor.mend(project.root)
    assert "up to date" in project.dvc("repro")


def test_a_number_that_was_given_to_another_process_holds_nothing(project: Project) -> None:
    """DVC would wait for it until a hand removes the file."""
    rwlock = project.root / ".dvc/tmp/rwlock"
    rwlock.write_text(json.dumps({"write": {str(project.root / "one.txt"): {"pid": os.getpid(), "cmd": "dvc"}}}))
    assert len(doctor.mend(project.root)) == 1
    assert not rwlock.exists()


def test_halves_of_files_are_swept_away_unless_a_stage_may_be_writing_them(tmp_path: Path) -> None:
    half = tmp_path / "outputs/cannon/data/.dataset-ab12cd34.npz"
    kept = [half.with_name("dataset.npz"), tmp_path / "outputs/by_hand/run/.a-ab12cd34.npz"]
    for file in (half, *kept):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    with hold_lock(tmp_path / "outputs/locks/generate@cannon"):
        assert doctor.mend(tmp_path) == []
    assert doctor.mend(tmp_path) == [f"{half.relative_to(tmp_path)}: half of a file, left by a kill; removed"]
    assert not half.exists() and all(file.exists() for file in kept)


WAIT = """
    import os, pathlib, time
    import pipelines
    pathlib.Path("half").write_text(str(os.getpid()))
    os.replace("half", "started")
    time.sleep(60)
"""


@pytest.fixture(params=["exec python wait.py", "python wait.py && true"], ids=["no shell between", "a shell between"])
def running(
    project: Project, request: pytest.FixtureRequest
) -> Iterator[tuple[Project, subprocess.Popen[str], psutil.Process]]:
    """A project, a dvc that is running a stage of it, and the stage's process."""
    (project.root / "wait.py").write_text(textwrap.dedent(WAIT))
    text = (project.root / "dvc.yaml").read_text()
    (project.root / "dvc.yaml").write_text(f"{text}  wait:\n    cmd: {request.param}\n    outs: [never]\n")
    dvc = project.start(sys.executable, "-m", "dvc", "repro", "wait", start_new_session=True)
    until = time.monotonic() + 60
    while not (project.root / "started").exists():
        assert time.monotonic() < until and dvc.poll() is None
        time.sleep(0.05)
    stage = psutil.Process(int((project.root / "started").read_text()))
    yield project, dvc, stage
    if dvc.poll() is None:
        os.killpg(dvc.pid, signal.SIGKILL)
    dvc.communicate(timeout=60)
    psutil.wait_procs([stage], timeout=10)


def test_a_running_dvc_is_left_alone(running: tuple[Project, subprocess.Popen[str], psutil.Process]) -> None:
    project, dvc, _ = running
    rwlock = project.root / ".dvc/tmp/rwlock"
    held = rwlock.read_bytes()
    assert str(dvc.pid).encode() in held
    assert doctor.mend(project.root) == []
    rwlock.write_bytes(held[:-3])
    with pytest.raises(UserError, match=rf"dvc \(process {dvc.pid}\) is running"):
        doctor.mend(project.root)
    assert rwlock.read_bytes() == held[:-3]
    # While DVC holds its lock, even what looks torn may be half written.
    lock = project.root / "dvc.lock"
    lock.write_bytes(lock.read_bytes()[:-5])
    with hold_lock(project.root / ".dvc/tmp/lock"):
        assert doctor.mend(project.root) == []


def test_a_second_dvc_is_refused_and_the_first_goes_on(
    running: tuple[Project, subprocess.Popen[str], psutil.Process],
) -> None:
    project, dvc, stage = running
    code, printed = project.run(sys.executable, "-m", "dvc", "repro", "wait")
    assert code != 0 and f"PID {dvc.pid}" in printed
    assert dvc.poll() is None and stage.is_running()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_a_stage_ends_with_its_dvc(
    running: tuple[Project, subprocess.Popen[str], psutil.Process], blow: signal.Signals
) -> None:
    project, dvc, stage = running
    dvc.send_signal(blow)
    gone, _ = psutil.wait_procs([stage], timeout=30)
    assert gone
    dvc.wait(timeout=30)
    doctor.mend(project.root)
    assert "up to date" in project.dvc("repro", "note")


def test_a_stage_ends_with_its_dvc_even_in_a_long_computation(tmp_path: Path) -> None:
    (tmp_path / "dvc.py").write_text(
        "import subprocess, sys\nsubprocess.Popen([sys.executable, 'stage.py'], stdout=sys.stdout)\ninput()\n"
    )
    # One call into C that never looks for signals, as a long step of PyTorch does not.
    (tmp_path / "stage.py").write_text(
        "import hashlib, pipelines\nprint('on', flush=True)\nhashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_STAGE": "stage", "SHELL": "/bin/sh"}
    dvc = subprocess.Popen(
        [sys.executable, "dvc.py"], cwd=tmp_path, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert dvc.stdout is not None and dvc.stdout.readline() == b"on\n"
    (stage,) = psutil.Process(dvc.pid).children()
    dvc.kill()
    gone, _ = psutil.wait_procs([stage], timeout=30)
    assert gone
    dvc.communicate(timeout=10)


def test_a_stage_by_hand_is_not_watched(tmp_path: Path) -> None:
    code = "import pipelines, threading; print(threading.active_count())"
    env = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


def test_killed_at_random_moments_it_ends_as_the_same_bytes(original: Project, tmp_path: Path) -> None:
    chance = random.Random(0)
    wanted = original.files()
    project = Project(tmp_path)
    for name in PROJECT:
        shutil.copy(original.root / name, tmp_path)
    project.dvc("init", "--no-scm", "--quiet")
    for number in range(6):
        dvc = project.start(sys.executable, "-m", "dvc", "repro", start_new_session=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            dvc.wait(timeout=chance.uniform(0.5, 3))
        with contextlib.suppress(ProcessLookupError):  # it may have come to its end
            os.killpg(dvc.pid, signal.SIGKILL) if number % 2 else dvc.kill()
        dvc.communicate()
        doctor.mend(project.root)
    project.dvc("repro")
    assert project.files() == wanted


# ---- damage -------------------------------------------------------------------------------------------------------


def test_a_finished_project_is_whole(original: Project) -> None:
    checked = Checked(original.root)
    assert checked.damages == []
    names = {str(path) for path in checked.files if ".dvc" not in path.parts}
    assert names == {"one.txt", "two.txt", "folder/a", "folder/b", "note.txt"}
    # As many objects, with the folder's listing and without what is left to git.
    assert len(checked.files) == 2 * len(names)


def flip(file: Path) -> None:
    """Change one bit so that neither size nor time tell."""
    at = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    os.utime(file, ns=(at.st_atime_ns, at.st_mtime_ns))


def shorten(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink])
def test_whatever_is_damaged_is_named(project: Project, damage: Callable[[Path], None]) -> None:
    for path in Checked(project.root).files:
        file = project.root / path
        before = file.read_bytes()
        damage(file)
        (found,) = Checked(project.root).damages
        assert (found.path, found.missing) == (path, not file.exists())
        file.unlink(missing_ok=True)
        file.write_bytes(before)
    assert Checked(project.root).damages == []


def test_random_damage_is_named(project: Project) -> None:
    assert named_damage(project.root, 40) == {"bit flips": 40, "truncations": 40}


def test_a_file_too_many_is_damage(project: Project) -> None:
    (project.root / "folder" / "stray").write_text("")
    assert [str(damage.path) for damage in Checked(project.root).damages] == ["folder/stray"]


CHOSEN = {
    "outputs": lambda path: ".dvc" not in path.parts,
    "objects": lambda path: ".dvc" in path.parts,
    "both": lambda path: path.suffix != ".dir",  # without the listing of a folder nothing tells what was in there
}


@pytest.mark.parametrize(
    ("where", "damage"),
    [
        pytest.param(where, damage, marks=[] if (where, damage) == ("both", flip) else pytest.mark.slow)
        for where, damage in itertools.product(CHOSEN, (flip, Path.unlink))
    ],
)
def test_the_command_that_is_named_mends(project: Project, where: str, damage: Callable[[Path], None]) -> None:
    before = project.files()
    chosen = [path for path in Checked(project.root).files if CHOSEN[where](path)]
    for path in chosen:
        damage(project.root / path)
    found = Checked(project.root).damages
    assert {one.path for one in found} == set(chosen)
    for cure in dict.fromkeys(one.cure for one in found):
        code, printed = project.run("sh", "-c", cure)
        assert code == 0, printed
    assert Checked(project.root).damages == []
    assert project.files() == before


def test_verify_as_a_command(project: Project) -> None:
    verify = (sys.executable, "-m", "aimback.workflow.verify")
    assert project.run(*verify) == (0, "all 10 outputs and cache objects that dvc.lock names are whole\n")
    flip(project.root / "one.txt")
    code, printed = project.run(*verify)
    assert code == 1
    assert printed.splitlines() == [
        "one.txt: is damaged; to mend: rm -rf one.txt && dvc checkout one.txt",
        "1 of 10 outputs and cache objects are not whole",
    ]
    (project.root / "dvc.lock").write_text("stages:\n  -")
    code, printed = project.run(*verify)
    assert code == 2 and "run `python -m aimback.runtime.doctor`" in printed
