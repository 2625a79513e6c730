"""The stage `publish` reads what one run has written, and not what another one is writing."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aimback.core.errors import UserError
from aimback.runtime.project import find_original
from pipelines.publish import undisturbed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with one task's outputs."""
    (tmp_path / "dvc.lock").write_text("stages:\n")
    (tmp_path / "outputs" / "a" / "figures").mkdir(parents=True)
    (tmp_path / "outputs" / "a" / "figures" / "loss.png").write_bytes(b"png")
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path


def rewrite(root: Path) -> None:
    """As `dvc checkout` does: the same bytes in another file."""
    (root / "new").write_bytes(b"png")
    (root / "new").replace(root / "outputs" / "a" / "figures" / "loss.png")


CHANGES: dict[str, Callable[[Path], None]] = {
    "an output is replaced": rewrite,
    "an output is gone": lambda root: (root / "outputs" / "a" / "figures" / "loss.png").unlink(),
    "all outputs are gone": lambda root: shutil.rmtree(root / "outputs" / "a"),
    "there is one more": lambda root: (root / "outputs" / "a" / "metrics.json").touch(),
    "DVC has recorded another state": lambda root: (root / "dvc.lock").write_text("stages: {}\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_run_that_begins_meanwhile_is_told(root: Path, change: Callable[[Path], None]) -> None:
    outputs = [root / "outputs" / "a"]
    with pytest.raises(UserError, match="another run is at work"), undisturbed(root, outputs) as confirm:
        confirm()
        change(root)
        confirm()
    # What goes wrong because of it is told in the same words.
    with pytest.raises(UserError, match="another run is at work"), undisturbed(root, outputs):
        (root / "dvc.lock").write_text("others")
        raise ValueError("half of a file")


def test_a_run_that_is_at_work_already_is_told(root: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", "dvc"], cwd=root, stdin=subprocess.PIPE) as dvc:
        held = {"write": {"outputs/a/figures": {"pid": dvc.pid, "cmd": "dvc repro"}}, "read": {}}
        (root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
        with pytest.raises(UserError, match="another run is at work"), undisturbed(root, []) as confirm:
            confirm()
        dvc.communicate(b"\n")
    with undisturbed(root, []) as confirm:  # one that was killed holds nothing
        confirm()


def test_the_publishing_run_itself_is_no_other(root: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", "dvc"], cwd=root, stdin=subprocess.PIPE) as dvc:
        held = {"write": {}, "read": {"outputs": [{"pid": dvc.pid, "cmd": "dvc repro"}]}}
        (root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
        with undisturbed(root, [root / "outputs" / "a"]) as confirm:
            confirm()
        dvc.communicate(b"\n")


def test_other_mistakes_keep_their_name(root: Path) -> None:
    with pytest.raises(ZeroDivisionError), undisturbed(root, [root / "outputs" / "a"]):
        raise ZeroDivisionError
    with pytest.raises(UserError, match=r"metrics.json: there is none; `dvc repro` makes it"), undisturbed(root, []):
        (root / "outputs" / "a" / "metrics.json").read_text()


@pytest.mark.parametrize(
    ("root", "place"),
    [
        ("/a/project", "/a/project"),
        ("/a/.dvc/project", "/a/.dvc/project"),
        ("/a/project/.dvc/tmp/exps/standalone/tmpx", "/a/project"),
    ],
)
def test_a_queued_experiment_publishes_where_its_original_does(root: str, place: str) -> None:
    assert find_original(Path(root)) == Path(place)
