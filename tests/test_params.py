"""What is wrong with params.yaml, a file of conf/ or the command line is one line that names it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aimback.core.errors import UserError
from aimback.runtime.exits import report_errors
from aimback.runtime.project import CONF, ROOT
from aimback.settings import tree
from aimback.workflow import compose, entry, params, ui
from aimback.workflow.params import read_mapping, read_params
from pipelines import publish

BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
SOUND: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


# ---- one file


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"- a\n- b", "must hold names and values, got ['a', 'b']"),
        (b"text", "must hold names and values, got 'text'"),
        (b"7", "must hold names and values, got 7"),
        (b"a:\n\tb: 1", r"line 2: found character '\t' that cannot start any token"),
        (b"a: [1", "line 1: expected ',' or ']'"),
        (b"a: b: c", "line 1: mapping values are not allowed here"),
        (b"a: 1\nb: 2\na: 3", "line 3: the name 'a' is there twice"),
        (b"a: {b: 1, b: 2}", "line 1: the name 'b' is there twice"),
        (b"a: *b", "line 1: found undefined alias 'b'"),
        (b"? [1]\n: 2", "line 1: found unhashable key"),
        (b"a: !!python/object/apply:os.system [x]", "line 1: could not determine a constructor"),
        (b"a: !!binary aGk=", "b'hi' can be no value of a setting"),
        (b"a: !!set {b}", "{'b'} can be no value of a setting"),
        (b"1: 2", "names must be text, got 1"),
        (b"a: {true: 1}", "names must be text, got True"),
        (b"a: 1\n---\nb: 2", "line 2: but found another document"),
        (b"a: \xff", "is not UTF-8 (byte 4)"),
        ("a: é".encode("utf-16"), "is not UTF-8 (byte 1)"),
        (b"a: \0", "unacceptable character"),
        (b"a: " + b"9" * 5000, "Exceeds the limit"),
        (b"{a: " * 2000, "is nested too deeply"),
        (b"a: &a [*a]", "holds more than 100,000 values"),
        (BOMB.encode(), "holds more than 100,000 values"),
        (b"a: " + b"x" * 200_000, "holds more than 100,000 bytes"),
    ],
)
def test_a_file_that_is_not_right_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_mapping(file, "do this")
    assert says in str(refused.value)
    assert str(refused.value).startswith(f"{file}: ") and str(refused.value).endswith("; do this")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda file: None, "there is no such file"),
        (Path.mkdir, "is no file"),
        (os.mkfifo, "is no file"),
        (lambda file: file.symlink_to("/dev/zero"), "is no file"),
        (lambda file: file.symlink_to(file.with_name("nowhere")), "there is no such file"),
        (lambda file: file.symlink_to(file), "there is no such file"),
        (lambda file: file.parent.joinpath("x" * 300).write_text(""), "File name too long"),
    ],
)
def test_what_is_no_file_is_one_line(tmp_path: Path, make: Callable[[Path], Any], says: str) -> None:
    file = tmp_path / "a.yaml"
    try:
        make(file)
    except OSError:
        file = tmp_path / ("x" * 300)
    with pytest.raises(UserError, match=says):
        read_mapping(file, "do this")


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("", {}),
        ("null", {}),
        ("a: 1e-3", {"a": 0.001}),
        ("a: 2020-01-01", {"a": "2020-01-01"}),
        ("a: &b 1\nc: *b", {"a": 1, "c": 1}),
    ],
)
def test_it_is_read_as_hydra_reads_it(tmp_path: Path, content: str, value: object) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(content)
    assert read_mapping(file, "") == value


# ---- params.yaml


@pytest.fixture
def params_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another file in the place of params.yaml."""
    file = tmp_path / "params.yaml"
    for module in (params, compose, ui, entry):
        monkeypatch.setattr(module, "PARAMS", file)
    return file


def test_a_hash_that_begins_like_a_number_is_text(params_yaml: Path) -> None:
    params_yaml.write_text("hash: 1192425e874cced8\nnumber: 1e-3\n")
    assert read_mapping(params_yaml, "") == {"hash": "1192425e874cced8", "number": 1e-3}


def test_it_is_read(params_yaml: Path) -> None:
    params_yaml.write_text(yaml.safe_dump(SOUND))
    assert read_params() == SOUND


# Nothing asks for the others before the settings do, and they check them.
@pytest.mark.parametrize(
    "key",
    [*sorted(SOUND.keys() - {"inputs", "jacobians", "objective", "only"}), "tracking.enabled", "tracking.experiment"],
)
@pytest.mark.parametrize("value", [..., [["a"]], 1.5])
def test_a_key_that_is_missing_or_of_another_type_is_named(params_yaml: Path, key: str, value: object) -> None:
    tree: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SOUND))
    above, _, name = key.rpartition(".")
    group = tree[above] if above else tree
    group[name] = value
    if value is ...:
        del group[name]
    params_yaml.write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=f"params.yaml: {key} (is missing|must be .*, got .*); make it anew"):
        read_params()


@pytest.mark.parametrize("tasks", [{}, {"cannon": 1}, {"cannon": None}])
def test_tasks_are_groups_of_settings(params_yaml: Path, tasks: object) -> None:
    params_yaml.write_text(yaml.safe_dump({**SOUND, "task": tasks}))
    with pytest.raises(UserError, match="task must be groups of settings, at least one"):
        read_params()


def by_hand() -> None:
    arguments, sys.argv = sys.argv, ["check", "-cd", ".", "-cn", "params", "hydra.output_subdir=null"]
    try:
        entry.entry(lambda cfg: None)()
    finally:
        sys.argv = arguments


def experiment() -> None:
    with report_errors("ui"):
        ui._experiment()


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run a command and get its exit code and what it complains about."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(command: Callable[[], None]) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            command()
        return ended.value.code, capsys.readouterr().err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("content", ["- a", "a: [", "a: 1\na: 2", BOMB, "a: é".encode("utf-16"), None], ids=repr)
@pytest.mark.parametrize("command", [publish.main, compose.main, experiment, by_hand])
def test_every_reader_ends_in_one_line(
    params_yaml: Path,
    ends: Any,
    command: Callable[[], None],
    content: str | bytes | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "so that compose takes the file as it is")
    if content is None:
        params_yaml.mkdir()
    else:
        params_yaml.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, complaints = ends(command)
    assert code == 2
    (line,) = complaints.splitlines()
    assert line.startswith("error: ") and "params.yaml" in line
    # In the place of a folder compose cannot write a new one, and says so.
    assert "rm -rf params.yaml && aimback" in line or (command is compose.main and content is None)


def test_a_task_that_no_stage_was_run_of_is_named(params_yaml: Path, ends: Any) -> None:
    params_yaml.write_text(yaml.safe_dump({**SOUND, "task": {"nosuch": {}}}))
    code, complaints = ends(publish.main)
    assert (code, complaints) == (2, "error: dvc.lock: there is no stage of the task 'nosuch'; run `dvc repro`\n")


# ---- conf/


@pytest.mark.parametrize("content", ["- a", "a:\n\tb: 1", "a: [", b"a: \xff", BOMB], ids=repr)
@pytest.mark.parametrize("name", ["config.yaml", "data/default.yaml", "task/cannon_drag.yaml"])
@pytest.mark.parametrize("command", ["compose", "by hand"])
def test_a_file_of_conf_that_cannot_be_read_is_named(
    params_yaml: Path, ends: Any, monkeypatch: pytest.MonkeyPatch, command: str, name: str, content: str | bytes
) -> None:
    file = CONF / name
    original = params._parse
    damaged = params_yaml.with_name("damaged.yaml")
    damaged.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(params, "_parse", lambda path: original(damaged if path == file else path))
    monkeypatch.setattr(sys, "argv", ["check"])
    code, complaints = ends(compose.main if command == "compose" else entry.entry(lambda cfg: None))
    assert code == 2
    (line,) = complaints.splitlines()
    assert line.startswith(f"error: conf/{name}: ") and "git checkout conf" in line


@pytest.mark.parametrize(
    "content", ["", "null", "defaults: 7", "defaults: []", "defaults: [a]", "defaults:\n  - task: 3"]
)
def test_a_table_of_contents_without_tasks_is_one_line(
    params_yaml: Path, ends: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(content)
    for module in (params, compose):
        monkeypatch.setattr(module, "CONF", tmp_path / "conf")
    code, complaints = ends(compose.main)
    assert (code, complaints.count("\n")) == (2, 1)
    assert not params_yaml.exists()


# ---- the command line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["seed=\udcff"], "is not UTF-8"),
        (["targets=t\udcc3.csv"], "is not UTF-8"),
        (["seed=1\x1b[31m"], r"'seed=1\\x1b\[31m': holds a character that cannot be shown"),
        (["a=\0"], "cannot be shown"),
        (["a=\x7f"], "cannot be shown"),
        (["seed=" + "1" * 10**6], "has 1,000,005 characters, at most 8,192 are read"),
        (["seed=1"] * 5000, "has 30,000 characters"),
    ],
)
def test_a_command_line_that_hydra_cannot_read_is_refused(arguments: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        entry.check_input(arguments)
    assert len(str(refused.value)) < 300 and str(refused.value).isprintable()


def test_any_other_command_line_goes_to_hydra() -> None:
    entry.check_input(["targets='täter (1).csv'", "inputs=[a,\n b]", "+x=😀", "seed=1"])


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("task=nosuch", "task=nosuch: there is no such choice; choose one of ball_ground_wall, ball_with_wall, "),
        (
            "task=[cannon_drag,cannon_drg]",
            "task=cannon_drg: there is no such choice; did you mean cannon_drag? Choose ",
        ),
        ("solver=adm", "solver=adm: there is no such choice; did you mean adam? Choose one of adam, bayesian, "),
        ("preset=neural_adjoin", "there is no such choice; did you mean neural_adjoint? Choose one of "),
        ("hardware=quantum", "hardware=quantum: there is no such choice; choose one of auto, cpu, gpu\n"),
        ("tsk=cannon_drag", "tsk: unknown key; did you mean task?\n"),
        ("traning.learning_rate=1", "did you mean training.learning_rate?"),
        ("+training.learning_rat=1", "did you mean learning_rate?"),
        ("seed=${seed}", "seed"),
        ("seed=[1", ""),
    ],
)
def test_a_wrong_command_line_is_one_line_that_gives_the_choices(
    ends: Any, monkeypatch: pytest.MonkeyPatch, choice: str, says: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["check", choice])
    code, complaints = ends(entry.entry(lambda cfg: print(tree.read_settings(cfg))))
    assert code == 2
    assert complaints.startswith("error: ") and says in complaints and complaints.count("\n") == 1


def test_a_missing_group_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(entry, "CONFS", (tmp_path,))
    assert entry._missing("data/default").startswith("conf/data/default.yaml: there is no such file; ")


def test_a_stage_as_a_command() -> None:
    command = [os.fsencode(sys.executable), b"-m", b"pipelines.generate", b"seed=\xff\x1b[31m"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("error: ") and line.isprintable()
