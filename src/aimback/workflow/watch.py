"""What a run tells whoever waits for it: which stage, of how many, on what, for how long.

On a terminal that is one line, which is drawn anew while stages work and is gone at the end; elsewhere a line a stage.
"""

import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from aimback.workflow.progress import draw_line, read_progress
from aimback.workflow.turns import remember_seconds, say_seconds

_STAGE = re.compile(r"(Running stage|Stage) '(.+?)'(:| is cached| didn't change)")
# What DVC says besides, for those who call it themselves.
_FOR_OTHERS = re.compile(r"(> |Updating lock file|Use `dvc push`|To track the changes|To enable auto|\t|\s*$)")


@dataclass
class _Work:
    """A stage that runs.

    Attributes:
        expected: seconds; None where nothing tells.
        progress: what it says of itself; "" for nothing.
    """

    turn: str
    expected: float | None
    progress: str = ""
    began: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        about = "" if self.expected is None else f" ({say_seconds(self.expected)} last time)"
        told = f", {self.progress}" if self.progress else ""
        return f"{self.turn}{told}, {say_seconds(time.monotonic() - self.began)}{about}"


class Watch:
    """Follows what dvcs print, and counts their stages.

    Args:
        total: how many stages there are.
        meters: the folder of meters, which tell how long a stage took.
    """

    def __init__(self, total: int, meters: Path) -> None:
        self._total, self._meters = total, meters
        self._reached, self._running, self._lock = set[str](), dict[int, _Work](), threading.Lock()
        self._print: Callable[[str], None] | None = None

    @contextlib.contextmanager
    def draw(self) -> Iterator[None]:
        """Draw the line while the block runs, where there is a terminal."""
        if not sys.stdout.isatty():
            yield
            return
        with draw_line(self._tell) as self._print:
            yield
        self._print = None

    @property
    def takes_errors(self) -> bool:
        """Whether stages shall write their errors, and how far they are, to the watch: else they spoil its line."""
        return self._print is not None and sys.stderr.isatty()

    def follow(self, dvc: "subprocess.Popen[str]") -> None:
        """Tell of what a dvc does until it ends."""
        assert dvc.stdout is not None
        errors = threading.Thread(target=self._pass_on, args=(dvc.pid, dvc.stderr))
        errors.start()
        for line in dvc.stdout:
            with self._lock:
                if stage := _STAGE.match(line):
                    self._count(dvc.pid, stage[2], stage[3])
                elif not _FOR_OTHERS.match(line):
                    self._say(line.rstrip("\n"))
        errors.join()
        with self._lock:
            self._running.pop(dvc.pid, None)

    def _count(self, dvc: int, turn: str, how: str) -> None:
        is_new = turn not in self._reached  # one that always runs does so for each dvc
        self._reached.add(turn)
        self._running.pop(dvc, None)
        if how == ":":
            self._running[dvc] = _Work(turn, remember_seconds(turn, self._meters))
        if self._print is None and is_new and how != " didn't change":
            expected = remember_seconds(turn, self._meters) if how == ":" else None
            about = " (from the cache)" if how == " is cached" else ""
            about = about if expected is None else f", about {say_seconds(expected)}"
            self._say(f"stage {len(self._reached)} of {self._total}: {turn}{about}")

    def _pass_on(self, dvc: int, errors: IO[str] | None) -> None:
        for line in errors or ():
            progress = read_progress(line)
            with self._lock:
                if progress is None:
                    self._say(line.rstrip("\n"))
                elif dvc in self._running:
                    self._running[dvc].progress = progress

    def _say(self, line: str) -> None:
        if self._print is None:
            print(line, flush=True)
        else:
            self._print(line)

    def _tell(self) -> str:
        with self._lock:
            works = "; ".join(map(str, self._running.values()))
        return f"stage {len(self._reached)} of {self._total}{f': {works}' if works else ''}"
