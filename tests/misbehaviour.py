"""A simulator that behaves as foreign ones may, for the tests of those who run it. Each case says what to do."""

import ctypes
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class UnpicklableError(Exception):
    def __init__(self, number: int, lock: object) -> None:
        super().__init__(f"number {number}")
        self.lock = lock


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("nothing can be said")


class Special(np.ndarray):
    pass


def behave(speed: float, angle: float) -> dict[str, float]:
    return {"top": speed if speed > 5 else speed**2 / 5, "distance": speed**2 * math.sin(2 * angle) / 9.81}


@dataclass(frozen=True)
class Misbehaving:
    """Args: folder: a place to leave notes in."""

    folder: Path

    def __call__(self, case: Mapping[str, Any]) -> Any:
        return getattr(self, f"_{case.get('what', 'square')}")(case)

    def jacobian(self, case: Mapping[str, Any]) -> Any:
        return {"y": {"x": 2 * case["x"]}}

    def _square(self, case: Mapping[str, Any]) -> Any:
        return case["x"] ** 2

    def _sum(self, case: Mapping[str, Any]) -> Any:
        return case["field"].sum()

    def _write_down(self, case: Mapping[str, Any]) -> Any:
        with (self.folder / "runs").open("a") as runs:
            runs.write(f"{case['x']}\n")
        time.sleep(0.1)
        return case["x"] ** 2

    def _kill_machine(self, case: Mapping[str, Any]) -> Any:
        """Kill the process that has hired the pool: this one's keeper's parent."""
        import psutil

        psutil.Process(os.getppid()).parent().kill()
        time.sleep(1000)

    def _hang(self, case: Mapping[str, Any]) -> Any:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        time.sleep(1000)

    def _hang_in_c(self, case: Mapping[str, Any]) -> Any:
        ctypes.PyDLL(None).sleep(1000)  # holds Python's lock

    def _exit(self, case: Mapping[str, Any]) -> Any:
        print("about to leave", file=sys.stderr)
        os._exit(3)

    def _leave(self, case: Mapping[str, Any]) -> Any:
        sys.exit(4)

    def _segfault(self, case: Mapping[str, Any]) -> Any:
        ctypes.string_at(0)

    def _kill(self, case: Mapping[str, Any]) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def _die_while_answering(self, case: Mapping[str, Any]) -> Any:
        threading.Timer(0.001, os._exit, [5]).start()
        return np.zeros(50_000_000)

    def _crash_once(self, case: Mapping[str, Any]) -> Any:
        note = self.folder / f"{case['x']}"
        if not note.exists():
            note.touch()
            os._exit(3)
        return case["x"] ** 2

    def _raise(self, case: Mapping[str, Any]) -> Any:
        raise ValueError(f"speed {case['x']} is too\n   high")

    def _raise_once(self, case: Mapping[str, Any]) -> Any:
        note = self.folder / f"{case['x']}"
        if not note.exists():
            note.touch()
            raise ValueError
        return case["x"] ** 2

    def _raise_unpicklable(self, case: Mapping[str, Any]) -> Any:
        raise UnpicklableError(3, threading.Lock())

    def _raise_silent(self, case: Mapping[str, Any]) -> Any:
        raise SilentError

    def _print(self, case: Mapping[str, Any]) -> Any:
        print("noise" * 100_000)
        os.write(1, b"noise\xff\n")
        os.write(2, b"noise\n")
        subprocess.run(["echo", "noise"], check=True)
        return case["x"] ** 2

    def _move(self, case: Mapping[str, Any]) -> Any:
        before = str(Path.cwd())
        os.chdir(self.folder)
        return before

    def _start(self, case: Mapping[str, Any]) -> Any:
        """A process that outlives the case, in a group of its own, and is a grandchild whose parent has ended."""
        script = f"sleep 1000 & echo $! >> {self.folder / 'pids'}"
        subprocess.run(["sh", "-c", script], check=True, process_group=0)
        (self.folder / "started").touch()
        if case.get("hang"):
            time.sleep(1000)
        return os.getpid()

    def _random(self, case: Mapping[str, Any]) -> Any:
        time.sleep(0.05)
        return [os.getpid(), random.random(), np.random.random()]  # noqa: NPY002 - users' code has it

    def _threads(self, case: Mapping[str, Any]) -> Any:
        import torch

        return torch.get_num_threads()

    def _text(self, case: Mapping[str, Any]) -> Any:
        return "twelve \udcff"

    def _nothing(self, case: Mapping[str, Any]) -> Any:
        return None

    def _object(self, case: Mapping[str, Any]) -> Any:
        return threading.Lock()

    def _tensor(self, case: Mapping[str, Any]) -> Any:
        import torch

        return {"y": torch.ones(2, requires_grad=True), "z": np.float32(0.5), "w": (np.arange(2).view(Special), 1)}

    def _loop(self, case: Mapping[str, Any]) -> Any:
        value: list[Any] = []
        value.append(value)
        return value


@dataclass(frozen=True)
class Noting:
    """It behaves, and notes each case. Args: folder: a place to leave notes in."""

    folder: Path

    def __call__(self, case: Mapping[str, Any]) -> Any:
        return Misbehaving(self.folder)({**case, "what": "write_down"})
