"""Executables as simulators: what goes in, what comes out, and what a run that goes astray leaves behind."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from aimback.core.errors import UserError
from aimback.simulators import command as module
from aimback.simulators.command import Command
from aimback.simulators.pool import Pool, Result
from aimback.simulators.reasons import FailedRunError

ECHO = "import sys; print(*sys.argv[1:])"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Command]:
    """A command whose program, in Python, is `text`; it is called `sim.py` and lies at the root."""

    def make(text: str, arguments: str = "", timeout: float = 60, **others: Any) -> Command:
        (tmp_path / "sim.py").write_text(f"#!{sys.executable}\n{text}\n")
        (tmp_path / "sim.py").chmod(0o755)
        return Command(f"./sim.py {arguments}", tmp_path, tmp_path / "outputs" / "runs", timeout, **others)

    return make


def wait_for_its_end(pid: int) -> None:
    """A process that is killed ends a little later, and whoever reaps it may take longer."""
    until = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.02)


def folders(command: Command) -> list[str]:
    return sorted(path.name for path in command.runs.iterdir())


def test_numbers_go_there_and_back_to_the_bit(make: Callable[..., Command]) -> None:
    numbers = [0.1, 1 / 3, -1e-300, 1.7976931348623157e308, 5e-324, -0.0, 3.0]
    command = make(ECHO, "{a}")
    for number in numbers:
        outcome = command({"a": number})
        assert isinstance(outcome, float) and outcome.hex() == number.hex()
    assert command({"a": np.array(numbers)}) == pytest.approx(numbers, rel=0)
    assert folders(command) == []


def test_no_shell_ever_sees_it(make: Callable[..., Command]) -> None:
    command = make(
        "import sys, json; print(json.dumps({'a': sys.argv[1:]}))", "'{a} b' --x={a:.2e} $HOME '*' ';ls' '{{}}'"
    )
    assert command({"a": 1.5}) == {"a": ["1.5 b", "--x=1.50e+00", "$HOME", "*", ";ls", "{}"]}


def test_files_of_the_project_are_found_from_anywhere(tmp_path: Path, make: Callable[..., Command]) -> None:
    make(ECHO)
    root = tmp_path / "odd {name} 50%"
    root.mkdir()
    (root / "sim.py").write_text("import sys; print(open(sys.argv[2]).read(), sys.argv[1])")
    (root / "data.txt").write_text("7")
    assert Command(f"{sys.executable} sim.py {{a}} data.txt", root, root / "runs", 60)({"a": 2.0}) == [7.0, 2.0]


@pytest.mark.parametrize(
    ("printed", "outcome"),
    [
        ("1", 1.0),
        ("progress 10 %\n1, 2;3\t4\n\n", [1.0, 2.0, 3.0, 4.0]),
        ("1e3,\n", 1000.0),
        ("nan inf", [pytest.approx(float("nan"), nan_ok=True), float("inf")]),
        ('log\n{"y": 2, "z": [1, 2]}\n', {"y": 2, "z": [1, 2]}),
        ('{\n  "y": 2\n}\n', {"y": 2}),
    ],
)
def test_answers_are_read(make: Callable[..., Command], printed: str, outcome: object) -> None:
    assert make(f"print({printed!r})")({}) == outcome


def test_an_input_file_is_filled_in_and_a_result_file_is_read(tmp_path: Path, make: Callable[..., Command]) -> None:
    (tmp_path / "input.json").write_text("[{speed:.6e}, {speed}, {{}}]\n")
    text = "import json; x = json.load(open('input.json')); open('out.csv', 'w').write(f'a,b\\n{x[0]},{x[1]}')"
    command = make(text, template=Path("input.json"), answer="out.csv")
    assert command({"speed": 1 / 3}) == [0.3333333, 1 / 3]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import sys; print('x\\nno licence\\n', file=sys.stderr); sys.exit(3)", "ended with exit code 3: no licence"),
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("print('result: 12')", "the last line of standard output is not numbers: result: 12"),
        ("", "standard output is empty"),
        (
            "print(b'\\xff', flush=True)\nimport os; os.write(1, b'\\xff\\xfe')",
            "the last line of standard output is not numbers: ��",
        ),
    ],
)
def test_a_failed_run_says_why_and_keeps_its_folder(make: Callable[..., Command], text: str, reason: str) -> None:
    command = make(text)
    with pytest.raises(FailedRunError, match=f"^{reason}$"):
        command({})
    (kept,) = folders(command)
    assert kept.startswith("failed-")
    assert reason in (command.runs / kept / "reason.txt").read_text()


def test_a_result_file_that_is_missing_or_lies_elsewhere_is_a_failure(make: Callable[..., Command]) -> None:
    for text in ("print(1)", "import os; os.symlink('/etc/hostname', 'out')"):
        with pytest.raises(FailedRunError, match="it wrote no out"):
            make(text, answer="out")({})


def test_so_many_folders_of_failed_runs_are_kept(make: Callable[..., Command], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_FOLDERS", 2)
    command = make("import sys; sys.exit(sys.argv[1])", "{a}")
    for a in range(4):
        with pytest.raises(FailedRunError):
            command({"a": a})
    reasons = {(command.runs / folder / "reason.txt").read_text().split(" ")[-1].strip() for folder in folders(command)}
    assert reasons == {"2.0", "3.0"}


def test_a_run_that_hangs_is_killed_with_all_that_it_started(make: Callable[..., Command]) -> None:
    text = (
        "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid, flush=True); open('/proc/self/stat').read()"
    )
    command = make(f"import signal, time; signal.signal(15, signal.SIG_IGN); {text}; time.sleep(1000)", timeout=1)
    with pytest.raises(FailedRunError, match="^timed out after 1 s$"):
        command({})
    (kept,) = folders(command)
    wait_for_its_end(int((command.runs / kept / "stdout.txt").read_text()))


def test_what_a_run_leaves_running_is_killed(make: Callable[..., Command]) -> None:
    child = make("import subprocess; print(subprocess.Popen(['sleep', '1000']).pid)")({})
    assert isinstance(child, float)
    wait_for_its_end(int(child))


@pytest.mark.parametrize("where", ["1", "os.open('big', os.O_CREAT | os.O_WRONLY)"])
def test_a_run_that_writes_without_end_is_killed(
    make: Callable[..., Command], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(module, "LARGEST_FOLDER", 2**22)
    command = make(f"import os, time\nhere = {where}\nwhile os.write(here, bytes(2**20)): time.sleep(0.01)")
    with pytest.raises(FailedRunError, match=r"^wrote \d+ MiB, more than the 4 MiB allowed$"):
        command({})


def test_an_answer_that_is_too_long_is_not_read(make: Callable[..., Command], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_ANSWER", 2**20)
    with pytest.raises(FailedRunError, match="standard output is larger than 1 MiB"):
        make("print('1 ' * 2**20)")({})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": ""}, "there is none"),
        ({"command": "./sim.py 'a"}, "cannot be split: No closing quotation"),
        ({"command": "./absent {a}"}, "./absent is no executable; relative ones belong to"),
        ({"command": "absent-anywhere {a}"}, "absent-anywhere is no executable"),
        ({"command": "./text {a}"}, "text is no executable"),
        ({"command": "./sim.py {a.real}"}, "{a.real} is no placeholder"),
        ({"command": "./sim.py {a!r}"}, "{a} is no placeholder"),
        ({"command": "./sim.py {}"}, "{} is no placeholder"),
        (
            {"command": "./sim.py {a"},
            "expected '}' before end of string; braces that are no placeholder are written {{ and }}",
        ),
        ({"command": "./sim.py {a:5d}"}, "Unknown format code 'd'"),
        ({"template": Path("absent")}, "there is no template absent"),
        ({"template": Path("latin")}, "the template latin cannot be read"),
        ({"template": Path("text")}, "are written {{ and }}"),
        ({"answer": "../out"}, 'answer must be "stdout" or a file'),
        ({"runs": Path("/tmp")}, "must lie in the project"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, make: Callable[..., Command], change: dict[str, Any], message: str
) -> None:
    make(ECHO)
    (tmp_path / "text").write_text("{ x }}")
    (tmp_path / "latin").write_bytes(b"\xe9")
    settings = {"command": "./sim.py {a}", "root": tmp_path, "runs": tmp_path / "runs", "timeout": 60}
    with pytest.raises(UserError) as caught:
        Command(**settings | change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_are_checked_both_ways(make: Callable[..., Command]) -> None:
    make(ECHO, "{a} {b:g}").check_names(["a", "b"])
    with pytest.raises(UserError, match=r"there is no control or condition b for \{b\}; there are a"):
        make(ECHO, "{a} {b}").check_names(["a"])
    with pytest.raises(UserError, match="c changes nothing"):
        make(ECHO, "{a}").check_names(["a", "c"])


def test_many_run_at_once_in_a_pool(make: Callable[..., Command]) -> None:
    hang = "import sys, time\nif sys.argv[1] == '3.0': time.sleep(1000)"
    command = make(f"{hang}\nopen('x', 'w').write(sys.argv[1]); print(open('x').read())", "{a}", timeout=2)
    with Pool(command, workers=2, timeout=60) as pool:
        results = pool.run([{"a": float(a)} for a in range(10)])
    assert results == [Result(float(a)) if a != 3 else Result(reason="timed out after 2 s") for a in range(10)]
    assert len(folders(command)) == 1


def test_a_run_whose_worker_is_killed_ends_and_its_folder_counts_as_failed(make: Callable[..., Command]) -> None:
    command = make(
        "import os, sys, time\nif sys.argv[1] == '1.0': print(os.getpid(), flush=True); time.sleep(1000)\nprint(1)",
        "{a}",
    )
    with Pool(command, workers=1, timeout=2) as pool:
        assert pool.run([{"a": 1.0}]) == [Result(reason="timed out after 2 s")]
        (left,) = folders(command)
        wait_for_its_end(int((command.runs / left / "stdout.txt").read_text()))
        assert pool.run([{"a": 2.0}]) == [Result(1.0)]
    assert folders(command) == [left.replace("run-", "failed-")]
