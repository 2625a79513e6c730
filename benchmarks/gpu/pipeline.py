"""`aimback` from nothing in copies of the repository, and again: seconds by hardware."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from aimback.runtime.project import ROOT
from benchmarks.tables import number, table

_TRAVELS = ("src", "conf", "pipelines", "dvc.yaml", "params.yaml", "pyproject.toml", "README.md")


def measure(device: torch.device) -> str:
    choices = ("cpu", "auto", "gpu") if device.type == "cuda" else ("cpu",)
    rows = [
        [f"hardware={choice}", *map(number, run_anew(["task=[cannon_drag]", f"hardware={choice}"], times=2))]
        for choice in choices
    ]
    return table(["aimback task=[cannon_drag], seconds", "from nothing", "again"], rows)


def run_anew(overrides: list[str], times: int = 1) -> list[float]:
    """Run `aimback` in a copy of the repository that has no outputs, and again in the same. -> seconds of each run."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in _TRAVELS:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
        subprocess.run(
            [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=copy, env=environment, check=True
        )
        command = [sys.executable, "-m", "aimback.workflow.run", *overrides]
        seconds = []
        for _ in range(times):
            began = time.perf_counter()
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            seconds.append(time.perf_counter() - began)
    return seconds
