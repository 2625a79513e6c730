"""What killed experiments of DVC leave behind, and what the doctor makes of it."""

import base64
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from aimback.runtime import doctor
from aimback.runtime.experiments import mend_experiments
from benchmarks.campaigns.queue_workers import Queue

AGAIN = "experiment {}: its worker was killed; it is queued again, `dvc queue start` takes it up"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Queue:
    return Queue(tmp_path_factory.mktemp("queue") / "with a space")


@pytest.fixture(scope="module")
def pristine(original: Queue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(original.root, tmp_path_factory.mktemp("pristine") / "copy"))


@pytest.fixture(scope="module")
def queued(original: Queue, pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    again(original, pristine)
    original.put("two", 2, "--queue")
    original.put("three", 3, "--queue")
    return Path(shutil.copytree(original.root, tmp_path_factory.mktemp("queued") / "copy"))


def again(queue: Queue, state: Path) -> Queue:
    """The project as it was; in the same place, because DVC notes where that is."""

    def is_gone() -> bool:  # at once, but where a process that the test before has killed is not yet gone itself
        shutil.rmtree(queue.root, ignore_errors=True)
        return not queue.root.exists()

    queue.wait(is_gone)
    shutil.copytree(state, queue.root)
    return queue


@pytest.fixture
def queue(original: Queue, pristine: Path) -> Queue:
    """The project without experiments."""
    return again(original, pristine)


Taken = tuple[Queue, dict[str, bytes], Path]


@pytest.fixture
def taken(original: Queue, queued: Path) -> Taken:
    """Two queued experiments, the first taken by a worker that was killed; the queue before, and the message."""
    queue = again(original, queued)
    before = queue.left()
    first = min(queue.broker.glob("in/*.celery.msg"))
    message = queue.broker / "processed" / first.name
    first.rename(message)
    body = json.loads(base64.b64decode(json.loads(message.read_bytes())["body"]))
    commit = body[0][0]["stash_rev"]
    assert body[0][0]["name"] == "two"
    queue.git("reflog", "delete", "--updateref", "--rewrite", "refs/exps/celery/stash@{1}")
    copy = queue.exps / "tmpabc"
    (copy / "outputs").mkdir(parents=True)
    noted = queue.exps / "run" / commit / commit
    noted.parent.mkdir(parents=True)
    noted.with_suffix(".run").write_text(json.dumps({"root_dir": str(copy), "name": "two", "status": 2}))
    noted.with_suffix(".json").write_text(json.dumps({"pid": os.getpid(), "returncode": None}))
    return queue, before, message


def result_of(queue: Queue, message: Path) -> Path:
    return queue.exps / "celery/result" / f"celery-task-meta-{json.loads(message.read_bytes())['headers']['id']}"


@pytest.mark.parametrize("result", [None, b"", b'{"status": "SUCC', b'{"status": "STARTED"}'])
def test_an_experiment_whose_worker_was_killed_is_queued_as_it_was(taken: Taken, result: bytes | None) -> None:
    queue, before, message = taken
    if result is not None:
        result_of(queue, message).write_bytes(result)
    assert queue.left() != before
    assert doctor.mend(queue.root) == [AGAIN.format("two")]
    after = queue.left()
    stashes = [sorted(state.pop("stash").splitlines()) for state in (before, after)]
    assert stashes[0] == stashes[1] and len(stashes[0]) == 2
    assert after == before
    assert list(queue.exps.glob("run/*/*")) == []
    assert queue.states() == {"two": "queued x=2", "three": "queued x=3"}
    assert doctor.mend(queue.root) == []


def test_a_kill_before_the_worker_took_the_commit_is_mended_too(taken: Taken) -> None:
    queue, _, message = taken
    doctor.mend(queue.root)
    stash = queue.left()["stash"]
    (queue.broker / "in" / message.name).rename(message)
    assert doctor.mend(queue.root) == [AGAIN.format("two")]
    assert queue.left()["stash"] == stash


def ended(queue: Queue, message: Path) -> None:
    result_of(queue, message).write_text('{"status": "SUCCESS"}')


def edited(queue: Queue, message: Path, key: str, value: Any) -> None:
    content = json.loads(message.read_bytes())
    body = json.loads(base64.b64decode(content["body"]))
    body[0][0][key] = value
    content["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    message.write_text(json.dumps(content))


LEFT_ALONE: dict[str, Callable[[Queue, Path], object]] = {
    "it has ended": ended,
    "it has failed": lambda queue, message: result_of(queue, message).write_text('{"status": "FAILURE"}'),
    "a copied project": lambda queue, message: edited(queue, message, "dvc_root", "/elsewhere"),
    "an option for a commit": lambda queue, message: edited(queue, message, "stash_rev", "--output=/tmp/x"),
    "no commit": lambda queue, message: edited(queue, message, "head_rev", None),
    "another body": lambda queue, message: message.write_text(
        json.dumps({**json.loads(message.read_bytes()), "body": "W10="})
    ),
    "another task": lambda queue, message: message.write_bytes(message.read_bytes().replace(b"run_exp", b"run_all")),
    "a list": lambda queue, message: message.write_text("[1]"),
    "torn": lambda queue, message: message.write_bytes(message.read_bytes()[:-30]),
    "empty": lambda queue, message: message.write_bytes(b""),
    "no headers": lambda queue, message: message.write_text("{}"),
}


@pytest.mark.parametrize("change", LEFT_ALONE)
def test_what_is_not_as_dvc_leaves_it_after_a_kill_is_left_alone(taken: Taken, change: str) -> None:
    queue, _, message = taken
    LEFT_ALONE[change](queue, message)
    before = queue.left()
    assert doctor.mend(queue.root) == []
    assert queue.left() == before


def test_nothing_is_touched_while_a_dvc_is_at_work_or_where_its_worker_has_just_ended(taken: Taken) -> None:
    queue, _, message = taken
    before = queue.left()
    assert mend_experiments(queue.root, lambda: True) == []
    assert queue.left() == before

    def at_work() -> bool:
        ended(queue, message)
        return False

    assert mend_experiments(queue.root, at_work) == []


def test_what_git_cannot_queue_again_is_named_with_what_to_do(taken: Taken) -> None:
    queue, _, message = taken
    edited(queue, message, "stash_rev", "f" * 40)
    edited(queue, message, "name", "lost")
    before = queue.left()
    (said,) = doctor.mend(queue.root)
    assert said.startswith("experiment lost: its worker was killed, and git cannot queue it again (fatal: ")
    assert said.endswith("; `dvc queue kill lost` marks it as failed")
    assert queue.left() == before


# ---- real workers -------------------------------------------------------------------------------------------------


def strike(*victims: psutil.Process | int) -> None:
    for victim in victims:
        os.kill(victim if isinstance(victim, int) else victim.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_and_what_it_ran(queue: Queue) -> None:
    queue.put("two", 2, "--queue")
    queue.put("three", 3, "--queue")
    queue.start_worker(60)
    stage = queue.stage()
    assert doctor.mend(queue.root) == []  # a dvc is at work
    strike(*queue.processes("queue-worker"), *queue.processes("exec-run"), stage)
    queue.wait(queue.is_quiet)
    assert queue.states() == {"two": "running x=2", "three": "queued x=3"}  # which is why there is a doctor
    assert doctor.mend(queue.root) == [AGAIN.format("two")]
    assert queue.states() == {"two": "queued x=2", "three": "queued x=3"}
    queue.start_worker()
    queue.wait(lambda: queue.are({"two": "success x=2", "three": "success x=3"}))
    assert list(queue.exps.glob("tmp*")) == []
    strike(*queue.processes("queue-worker"))  # which would wait for more
    queue.wait(queue.is_quiet)
    assert doctor.mend(queue.root) == []


@pytest.mark.slow
def test_a_worker_killed_alone_leaves_its_run_to_its_end(queue: Queue) -> None:
    queue.put("two", 2, "--queue")
    queue.start_worker(60)
    stage = queue.stage()
    strike(*queue.processes("queue-worker"))
    assert doctor.mend(queue.root) == []
    strike(*queue.processes("exec-run"), stage)
    queue.wait(queue.is_quiet)
    assert doctor.mend(queue.root) == [AGAIN.format("two")]


@pytest.mark.slow
def test_a_killed_experiment_in_a_copy(queue: Queue) -> None:
    started = subprocess.Popen(
        ["dvc", "exp", "run", "--temp", "--name", "five", "--set-param", "x=5"],
        cwd=queue.root,
        env=queue.environment(60),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stage = queue.stage()
    assert doctor.mend(queue.root) == []
    started.kill()
    started.wait()
    strike(stage)
    assert queue.states() == {"five": "running x=5"}
    said = "experiment five: `dvc exp run --temp` was killed; what it left is removed, run it again"
    assert said in doctor.mend(queue.root)
    assert queue.states() == {}
    queue.put("five", 5, "--temp")
    assert queue.states() == {"five": "done x=5"}
    assert doctor.mend(queue.root) == []
