"""Which route wins where: the default run of every task, from several seeds."""

import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.pipeline import ROOT
from benchmarks.tables import number, table

_ROUTES = ("surrogate", "direct", "hybrid")
_SEEDS = 3
_LEFT_OUT = ("heat", "shell")  # whose default runs take an hour


def ranked_by_task() -> str:
    """Markdown: a table."""
    tasks = [file.stem for file in sorted((ROOT / "conf/task").glob("*.yaml")) if file.stem not in _LEFT_OUT]
    words = [f"task=[{','.join(tasks)}]", f"routes=[{','.join(_ROUTES)}]", f"seed=range({_SEEDS})"]
    words += ["diagnose=none", "diagnose.replicas=0", "tracking=off"]
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "sweep"
        command = [sys.executable, "-m", "aimback.workflow.run", "--multirun", *words, f"hydra.sweep.dir={sweep}"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        rows = json.loads((sweep / "comparison.json").read_text(encoding="utf-8"))
        said = [file.read_text(encoding="utf-8") for file in sorted(sweep.glob("*/output.log"))]
    verdicts = [dict(re.findall(r"^(\w+): (Choose \w+|A tie|Nothing)", text, re.MULTILINE)) for text in said]
    lines = []
    for task in tasks:
        chosen = Counter(verdict[task].removeprefix("Choose ") for verdict in verdicts)
        best = ", ".join(name if count == _SEEDS else f"{name} ({count})" for name, count in chosen.most_common())
        cells = []
        for route in _ROUTES:
            found = [row for row in rows if (row["task"], row["route"]) == (task, route)]
            cells.append(_range([100 * row["solved_fraction"] for row in found]))
            cells.append(number(statistics.median(row["miss_relative_median"] for row in found)))
        lines.append([task, best, *cells])
    head = ["task", "to choose", *(f"{route}, {what}" for route in _ROUTES for what in ("solved %", "miss"))]
    return (
        f"`aimback --multirun {' '.join(words[1:])}` with these tasks: median and range over the seeds of the targets "
        "solved, and the median of the median misses, in tolerances. The route to choose is what the report says, by "
        "its rule, in which time counts where routes solve equally many; in brackets how many seeds say so.\n\n"
        + table(head, lines, words=2)
    )


def _range(values: list[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return number(middle) if high - low < 0.05 else f"{number(middle)} ({number(low)} to {number(high)})"
