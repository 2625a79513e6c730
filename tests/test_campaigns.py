"""Short runs of what `python -m benchmarks.campaigns` does by the thousand."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aimback.tracking import open_store
from benchmarks.campaigns import settings
from benchmarks.campaigns.folders import outcome
from benchmarks.campaigns.mutations import arrays, hostile, overrides, tables
from benchmarks.campaigns.own_error import tried


def test_no_mutated_command_line_ends_in_a_trace() -> None:
    assert overrides(40).keys() <= {"accepted", "refused in one line"}


def test_no_mutated_file_of_targets_ends_in_a_trace(tmp_path: Path) -> None:
    became = tables(500, tmp_path)
    assert became.keys() == {"read", "read, with rows marked", "refused in one line"}


def test_no_good_row_is_lost_among_hostile_ones(tmp_path: Path) -> None:
    assert hostile(100, tmp_path).keys() == {"every good row read", "refused in one line"}


def test_no_wrong_array_passes_or_ends_in_a_trace(tmp_path: Path) -> None:
    assert arrays(150, tmp_path).keys() == {"read, and whole", "refused in one line"}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an empty store, made once: each costs seconds."""
    root = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        open_store(root).connect()
    return root


@pytest.mark.filterwarnings("default")  # mlflow, and what it brings, warns of its own deprecations
@pytest.mark.parametrize(
    "name", ["a b", "50%25", "a%41b", "ü", "(1)", "a?b", "a#b", "a;b", "a\nb", "%", "\\'\"", "-+&=@:"]
)
def test_a_project_of_any_name_keeps_its_artifacts_inside(
    name: str, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(shutil.copytree(original, tmp_path / "elsewhere"))
    assert outcome(tmp_path / "around", name, f"{name[::-1]} renamed", original, fresh=False) == "all is well"
    assert sorted(place.name for place in Path.cwd().iterdir()) == sorted(place.name for place in original.iterdir())


@pytest.mark.parametrize("number", range(12))
def test_no_cannon_in_too_few_steps_calls_a_miss_solved(number: int) -> None:
    became = tried("cannon_drag", number)
    assert became["false"] == became["unreachable"] == 0


def fail() -> None:
    raise ZeroDivisionError


def complain(text: str, code: int) -> None:
    sys.stderr.write(text)
    sys.exit(code)


@pytest.mark.parametrize(
    ("work", "became"),
    [
        (lambda: None, "accepted"),
        (lambda: complain("error: no\n", 2), "refused in one line"),
        (lambda: complain("error: no\nmore\n", 2), "exit code 2, 2 lines: more"),
        (lambda: complain("error: \x1b[31m\n", 2), "exit code 2, 1 lines: error"),
        (lambda: complain("no\n", 1), "exit code 1, 1 lines: no"),
        (fail, "exit code 99"),
    ],
)
def test_how_a_command_ended_is_told_apart(work: Callable[[], None], became: str, tmp_path: Path) -> None:
    assert settings.ended(work, tmp_path).startswith(became)


@pytest.mark.slow
def test_no_wrong_setting_ends_in_a_trace(tmp_path: Path) -> None:
    rows = settings.settings(40, tmp_path)
    assert len(rows) == 4
    for row in rows:
        said = row.partition(": ")[2].replace("accepted", "").replace("refused in one line", "")
        assert set(said) <= set("0123456789 ,"), row
