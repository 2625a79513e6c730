"""Which route wins where: the default run of every task, from several seeds."""

import re
import statistics
from collections import Counter

from benchmarks.break_even import settings_of
from benchmarks.sweeps import SEEDS, TASKS, describe, run_sweep, tell_range
from benchmarks.tables import number, table

_ROUTES = ("surrogate", "direct", "hybrid")


def ranked_by_task() -> str:
    """Markdown: a table."""
    words = [f"routes=[{','.join(_ROUTES)}]"]
    with run_sweep(words) as (sweep, rows):
        said = [file.read_text(encoding="utf-8") for file in sweep.glob("*/output.log")]
    verdicts = [dict(re.findall(r"^(\w+): (Choose \w+|A tie|Nothing)", text, re.MULTILINE)) for text in said]
    lines = []
    for task in TASKS:
        chosen = Counter(verdict[task].removeprefix("Choose ") for verdict in verdicts)
        best = ", ".join(name if count == SEEDS else f"{name} ({count})" for name, count in chosen.most_common())
        cells = []
        share = settings_of("mlp", task).tasks[task].distance.share
        for route in _ROUTES:
            found = [row for row in rows if (row["task"], row["route"]) == (task, route)]
            cells.append(tell_range([100 * row["solved_fraction"] for row in found]))
            cells.append(number(statistics.median(row["miss_relative_median"] for row in found) / share))
        lines.append([task, best, *cells])
    head = ["task", "to choose", *(f"{route}, {what}" for route in _ROUTES for what in ("solved %", "miss"))]
    return (
        f"{describe(words)}: median and range over the seeds of the targets solved, and the median of the median "
        "misses, in tolerances. The route to choose is what the report says, by its rule, in which time counts where "
        "routes solve equally many; in brackets how many seeds say so.\n\n" + table(head, lines, words=2)
    )
