"""How time and memory grow with the number of targets, each in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import psutil
import torch

from aimback.core.hardware import peak_memory
from benchmarks.aim import PEERS, REFERENCE, Peer
from benchmarks.rounds import one_core
from benchmarks.tables import number, table
from benchmarks.work import default_cannon, draw_work

ROOT = Path(__file__).resolve().parents[1]
WAYS = (REFERENCE, "aimback, 1 start, compiled")  # labels of peers
SIZES = (10_000, 100_000, 1_000_000)
_MEBI = 2**20


def memory_by_targets(sizes: Sequence[int] = SIZES) -> str:
    """Markdown: a table."""
    rows = []
    with one_core():
        for label in WAYS:
            for size in sizes:
                seconds, before, peak = _measured(label, size)
                rows.append(
                    [
                        label,
                        number(size),
                        number(1e6 * seconds / size),
                        number(peak / _MEBI),
                        number((peak - before) / _MEBI),
                        number((peak - before) / size),
                    ]
                )
    head = ["", "targets", "microseconds a target", "peak [MiB]", "of it for solving [MiB]", "a target [bytes]"]
    return (
        "Each row is a process of its own; the peak is its largest resident memory, from which that before solving "
        "(libraries and targets) is taken off. The first call is timed after one with 1000 targets.\n\n"
        + table(head, rows)
    )


def _measured(label: str, size: int) -> tuple[float, int, int]:
    """Seconds, bytes held before, bytes at the peak."""
    code = [sys.executable, "-m", "benchmarks.memory", label, str(size)]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, before, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, before, peak


def _measure(peer: Peer, size: int) -> tuple[float, int, int]:
    torch.set_num_threads(1)
    cannon = default_cannon()
    targets, wind = draw_work(cannon, size)
    aim = getattr(import_module(f"benchmarks.peers.{peer.module}"), peer.door)(cannon)
    aim(targets[:1000], wind[:1000])
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    aim(targets, wind)
    seconds = time.perf_counter() - began
    return seconds, before, peak_memory(torch.device("cpu"))


if __name__ == "__main__":
    print(json.dumps(_measure(next(peer for peer in PEERS if peer.label == sys.argv[1]), int(sys.argv[2]))))
