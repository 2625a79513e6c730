"""Eight processes that want to be first in an MLflow store that is not there yet: four trainings, four publishers."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from benchmarks.campaigns.scratch import ROOT

_AT_ONCE = 8
_POINTS = 50
_TRAINING = f"""
import sys
from pathlib import Path
from aimback.tracking import LiveTraining, open_store
number, folder = sys.argv[1], Path(sys.argv[2])
store, params = open_store(folder), {{"seed": number}}
with LiveTraining(store, f"task{{number}}", "training", number, params, patience=600, delay=0) as live:
    for step in range({_POINTS}):
        live(step, {{"loss": 1.0 / (1 + step)}})
"""
_PUBLISHER = f"""
import sys
from pathlib import Path
from aimback.tracking import Run, open_store, publish
number, folder = sys.argv[1], Path(sys.argv[2])
curve = [(step, 1.0 / (1 + step)) for step in range({_POINTS})]
run = Run(number, "route", f"task{{number}}", "direct", {{"seed": number}}, {{}}, {{"loss": curve}})
publish(open_store(folder), [number], lambda: [run], folder / f"{{number}}.json")
"""


def parallel(count: int, folder: Path) -> list[str]:
    """So many fresh stores."""
    env = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    env |= {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    ended = whole = sound = 0
    for round_ in range(count):
        place = folder / str(round_)
        place.mkdir(parents=True)
        started = [
            subprocess.Popen(
                [sys.executable, "-c", _TRAINING if number % 2 else _PUBLISHER, str(number), str(place)], env=env
            )
            for number in range(_AT_ONCE)
        ]
        ended += sum(process.wait() == 0 for process in started)
        with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as base:
            points = "SELECT COUNT(*) FROM metrics JOIN runs USING (run_uuid) WHERE status = 'FINISHED' "
            whole += sum(number == _POINTS for (number,) in base.execute(points + "GROUP BY run_uuid"))
            sound += base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    total = count * _AT_ONCE
    return [
        f"{count} stores, {_AT_ONCE} processes at once: {ended} of {total} ended well, {whole} of {total} runs are "
        f"there with all of their {_POINTS} points, {sound} databases are sound"
    ]
