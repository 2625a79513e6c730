"""SIGKILL at random moments of the pipeline, and again at random moments of every restart."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil

from benchmarks.campaigns.scratch import Scratch


def kills(count: int, folder: Path) -> list[str]:
    """Every other one strikes dvc alone, the others the whole process group; the restart follows at once."""
    chance = random.Random(count)
    scratch = Scratch(folder)
    began = time.monotonic()
    scratch.run("dvc", "repro")
    length = time.monotonic() - began
    wanted, whole = scratch.lock(), (scratch.folder / "dvc.lock").read_bytes()
    struck = refused = mended = finished = same_lock = same_bytes = 0
    differ: set[str] = set()
    outlived: list[float] = []
    while struck < count:
        scratch.forget()
        while True:
            mended += len(scratch.run("aimback.runtime.doctor").splitlines())
            dvc = scratch.start("dvc", "repro")
            try:
                dvc.communicate(timeout=chance.uniform(0, length / 4) if struck < count else None)
            except subprocess.TimeoutExpired:
                struck += 1
                if struck % 2:
                    os.killpg(dvc.pid, signal.SIGKILL)
                else:
                    outlived.append(_kill_alone(dvc))
                dvc.communicate()
                continue
            if dvc.returncode == 0:
                break
            refused += 1
            if refused > count:
                raise RuntimeError("dvc does not start again")
        finished += 1
        got = scratch.lock()
        same_lock += got == wanted
        differ |= {name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name)}
        same_bytes += (scratch.folder / "dvc.lock").read_bytes() == whole
        assert scratch.run("aimback.workflow.verify")
    longest = f"{max(outlived):.1f} s" if outlived else "-"
    return [
        f"{struck} SIGKILLs, {len(outlived)} of them of dvc alone: {struck - refused} restarted by themselves "
        f"(the doctor had mended {mended} things)",
        f"a stage outlived its dvc by {longest} at most",
        f"{finished} pipelines came to their end: dvc.lock was equal {same_lock} times, {same_bytes} times to the byte"
        + "".join(f"; {name} differed" for name in sorted(differ)),
    ]


def _kill_alone(dvc: subprocess.Popen[str]) -> float:
    """Seconds until the last of its stage's processes had ended."""
    below = psutil.Process(dvc.pid).children(recursive=True)
    dvc.kill()
    began = time.monotonic()
    while any(map(_runs, below)):
        if time.monotonic() - began > 60:
            raise RuntimeError(f"these outlived their dvc: {below}")
        time.sleep(0.02)
    return time.monotonic() - began


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # ended, and only waiting for init to take note
    except psutil.NoSuchProcess:
        return False
