"""What a run tells of its stages, on a terminal and elsewhere."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import metrics, result

from aimback.report.terminal import summarise
from aimback.runtime.project import ROOT
from aimback.workflow.progress import WATCHED, progress_bar, read_progress
from aimback.workflow.turns import announce, remember_seconds

# Stands in for a dvc: two stages run and one is taken from the cache; what stages print, and their errors.
DVC = """
import sys
from aimback.workflow.progress import progress_bar
print("Running stage 'train@cannon-surrogate':\\n> python -m pipelines.train", flush=True)
print("an error", file=sys.stderr, flush=True)
print("Stage 'invert@cannon-surrogate' is cached - skipping run, checking out outputs", flush=True)
print("Running stage 'evaluate@cannon':", flush=True)
with progress_bar("cannon: simulating answers", 4) as bar:
    bar.advance(1)
    input()
print("a result\\nUse `dvc push` to send your updates to remote storage.", flush=True)
"""
RUN = f"""
import os, subprocess, sys
from pathlib import Path
from aimback.workflow.progress import WATCHED
from aimback.workflow.watch import Watch
watch = Watch(9, Path(sys.argv[1]))
with watch.draw():
    errors = subprocess.PIPE if watch.takes_errors else None
    given = os.environ | ({{WATCHED: "1"}} if errors else {{}})
    command = [sys.executable, "-c", {DVC!r}]
    dvc = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=errors, text=True)
    watch.follow(dvc)
"""


@pytest.fixture
def meters(tmp_path: Path) -> Path:
    (tmp_path / "cannon").mkdir()
    (tmp_path / "cannon" / "train-surrogate.json").write_text(json.dumps({"seconds": 12.3}))
    (tmp_path / "cannon" / "evaluate.json").write_text("{")
    return tmp_path


def test_it_remembers_what_a_stage_took(meters: Path) -> None:
    assert remember_seconds("train@cannon-surrogate", meters) == 12.3
    for unknown in ("train@cannon-other", "evaluate@cannon", "compose"):
        assert remember_seconds(unknown, meters) is None
    turns = ["compose", "train@cannon-surrogate"]
    assert announce("train@cannon-surrogate", turns, meters) == "stage 2 of 2, about 12 s"
    assert announce("compose", turns, meters) == "stage 1 of 2"
    assert announce("diagnose@cannon", turns, meters) == ""


def test_elsewhere_it_is_a_line_a_stage(meters: Path) -> None:
    command = [sys.executable, "-c", RUN, str(meters)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, input="\n", capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "stage 1 of 9: train@cannon-surrogate, about 12 s",
        "stage 2 of 9: invert@cannon-surrogate (from the cache)",
        "stage 3 of 9: evaluate@cannon",
        "a result",
    ]
    assert done.stderr == "an error\n"


def test_on_a_terminal_it_is_one_line_and_what_stages_print_stands_above(meters: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "120"}
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(meters)], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while b"simulating answers 25 %" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"\n")
        while True:
            shown += os.read(ours, 4096)
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert run.wait() == 0
    text = shown.decode()
    assert "stage 3 of 9: evaluate@cannon, simulating answers 25 %, 1 s" in text
    # A line that stays ends in a line break; the drawn one is wiped.
    kept = [line for line in text.replace("\r\n", "\n").split("\n") if "stage" not in line]
    assert [line for line in kept if line.rstrip().endswith("an error")] and "a result" in text
    assert "dvc push" not in text and "\x1e" not in text and "━" not in text


def test_a_bar_is_told_where_somebody_reads_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for watched in (False, True):
        if watched:
            monkeypatch.setenv(WATCHED, "1")
        with progress_bar("cannon: solving", 1000, "within the tolerance") as bar:
            bar.advance(100)
            bar.advance(1)
            bar.tell(500, 3)
        told = capsys.readouterr().err.split("\n")[:-1]
        assert [read_progress(line) for line in told] == (
            ["solving 0 %", "solving 10 %", "solving 50 %"] if watched else []
        )
    assert read_progress("Warning: solving 10 %") is None


def test_the_end_is_a_table_of_routes_by_tasks() -> None:
    won = result(metrics(0.5, 0.02, 4000), metrics(1.0, 1e-14, 9000))
    lines = summarise([won, won]).splitlines()
    assert lines[0].split() == ["task", "route", "solved", "median", "miss", "time", "a", "target"]
    assert [line.split()[-1] for line in lines[1:3]] == ["ms", "ms"] and lines[1].startswith(won.name)
    assert lines[2].startswith(" ") and lines[3:5] == lines[1:3]
    assert len(lines) == 7 and all(line.startswith(f"{won.name}: Choose direct: ") for line in lines[5:])
    unmeasured = result(*won.metrics.values(), meters={})
    assert [line[-1] for line in summarise([unmeasured]).splitlines()[1:3]] == ["—", "—"]
