"""No command ends in a trace because nobody reads what it prints, or nobody can."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Repository

# Each prints something, and what it works on is there.
COMMANDS = {
    "verify": ("aimback.workflow.verify",),
    "publish": ("pipelines.publish",),
    "doctor": ("aimback.runtime.doctor",),
    "help": ("aimback.workflow.ui", "--help"),
    "help of a stage": ("pipelines.generate", "--help"),
    "settings of a stage": ("pipelines.train", "--cfg", "job"),
    "help of aimback": ("aimback.workflow.run", "--help"),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A project whose pipeline has come to its end, as far as its records tell."""
    copy = Repository(tmp_path_factory.mktemp("streams"), git=False)
    copy.edit("params.yaml", "tracking:\n  enabled: true\n", "tracking:\n  enabled: false\n")
    tree = yaml.safe_load((copy.root / "params.yaml").read_text())
    stages = {f"generate@{task}": {"cmd": "python"} for task in tree["tasks"]}
    (copy.root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    program = (
        "import json; from aimback.workflow import params, runs; from pipelines.publish import name_report\n"
        "print(json.dumps(name_report(runs.read_states(params.read_params()))))"
    )
    call = [sys.executable, "-c", program]
    states = subprocess.run(call, cwd=copy.root, env=copy.environment(), stdout=subprocess.PIPE, check=True).stdout
    report = copy.root / "outputs" / "report"
    report.mkdir(parents=True)
    (report / "index.html").touch()
    (report / "summary.txt").touch()
    (report / "states.json").write_bytes(states)
    return copy


def start(repository: Repository, command: tuple[str, ...], **streams: object) -> subprocess.Popen[bytes]:
    left = repository.root / ".dvc" / "tmp" / "rwlock"  # so that there is something for the doctor to tell
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("{")
    call = [sys.executable, "-m", *command]
    return subprocess.Popen(call, cwd=repository.root, env=repository.environment(), **streams)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_reader_who_leaves_at_once(repository: Repository, command: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start(repository, command, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, errors = process.communicate()
    assert (errors, process.returncode) == (b"", 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_full_disk_under_standard_output(repository: Repository, command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(repository, command, stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate()
    assert errors.decode().startswith("error: standard output: No space left on device;")
    assert (errors.count(b"\n"), process.returncode) == (1, 2)


@pytest.mark.parametrize(
    "closed", ["<&- >&- 2>&-", *(pytest.param(one, marks=pytest.mark.slow) for one in ("<&-", ">&-", "2>&-"))]
)
@pytest.mark.parametrize("command", [COMMANDS["verify"], COMMANDS["help of a stage"]], ids=["verify", "help"])
def test_closed_streams(repository: Repository, command: tuple[str, ...], closed: str) -> None:
    call = ["/bin/sh", "-c", f'exec "$0" -m {" ".join(command)} {closed}', sys.executable]
    done = subprocess.run(call, cwd=repository.root, env=repository.environment(), capture_output=True, check=False)
    assert (done.stderr, done.returncode) == (b"", 0)


@pytest.mark.parametrize("place", ["/dev/full", "closed"])
def test_the_exit_code_is_right_where_no_error_can_be_told(repository: Repository, place: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    if place != "closed":
        os.close(writing)
        writing = os.open(place, os.O_WRONLY)
    process = start(repository, ("pipelines.train", "nosuch=1"), stdout=subprocess.PIPE, stderr=writing)
    os.close(writing)
    process.communicate()
    assert process.returncode == 2


def test_what_is_no_text_is_printed_all_the_same(repository: Repository) -> None:
    program = "from aimback.runtime.exits import report_errors\n"
    program += "with report_errors('verify'): print('a', '\\udcff', '\u20ac')"
    environment = {**repository.environment(), "PYTHONIOENCODING": "ascii"}
    call = [sys.executable, "-c", program]
    done = subprocess.run(call, cwd=repository.root, env=environment, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"a \\udcff \\u20ac\n", b"")
