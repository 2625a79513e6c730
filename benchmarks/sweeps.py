"""Default runs of many tasks from several seeds, by `aimback --multirun`."""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.extent import pick
from benchmarks.pipeline import ROOT
from benchmarks.tables import number

_LEFT_OUT = ("heat", "shell")  # too dear for so many runs
_ALL = [file.stem for file in sorted((ROOT / "conf/task").glob("*.yaml")) if file.stem not in _LEFT_OUT]
TASKS = pick(_ALL, ["cannon_drag", "robotic_arm"])
SEEDS = pick(3, 1)
_QUIET = ("diagnose=none", "diagnose.replicas=0", "tracking=off")


def describe(words: Sequence[str]) -> str:
    """What is typed for a sweep, but for the list of tasks."""
    return f"`aimback --multirun {' '.join(words)} 'seed=range({SEEDS})' {' '.join(_QUIET)}`, {len(TASKS)} tasks"


@contextlib.contextmanager
def run_sweep(
    words: Sequence[str], tasks: Sequence[str] = TASKS, seeds: int = SEEDS, quiet: Sequence[str] = _QUIET
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Run all tasks from all seeds. -> the sweep's folder, a project for each seed, and all metrics."""
    place = ROOT / "outputs" / "by_hand"
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        sweep = Path(folder).relative_to(ROOT) / "sweep"
        asked = [*words, *quiet, f"task=[{','.join(tasks)}]", f"seed=range({seeds})", f"hydra.sweep.dir={sweep}"]
        command = [sys.executable, "-m", "aimback.workflow.run", "--multirun", *asked]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        yield ROOT / sweep, json.loads((ROOT / sweep / "comparison.json").read_text(encoding="utf-8"))


def tell_range(values: Sequence[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return number(middle) if high - low < 0.05 else f"{number(middle)} ({number(low)} to {number(high)})"
