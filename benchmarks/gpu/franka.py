"""The 2000 poses of `benchmarks franka`, beside the same GPUs' users."""

import tempfile
from functools import partial
from pathlib import Path

import torch

from aimback.compile.compiler import Compiler
from benchmarks.franka import POSITION, PUBLISHED, ROTATION, TARGETS, Work, find_errors
from benchmarks.gpu.cannon import clock
from benchmarks.tables import number, table


def measure(device: torch.device) -> str:
    work = Work(device)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for how, compiler in (("compiled", Compiler(Path(folder), "franka")), ("interpreted", None)):
            seconds = clock(partial(work.solve, compiler), device, rounds=3)
            away, turned = find_errors(work.task, work.targets, work.solve(compiler)[0])
            hit = ((away <= POSITION) & (turned <= ROTATION)).double().mean()
            rows.append(
                [f"aimback, {how}", number(1e3 * seconds), f"{float(hit):.2%}", f"{1e3 * float(away.mean()):.1e}"]
            )
    for one in PUBLISHED:
        error = "" if one.error is None else f"{one.error:.1e}"
        rows.append([one.label, number(one.milliseconds), f"{one.solved:.2%}", error])
    return table([f"{TARGETS} targets", "ms", "solved", "mean error [mm]"], rows)
