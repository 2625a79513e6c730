"""Progress on a terminal, or told to the `aimback` that draws its own line there; nothing anywhere else."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

# Set for the stages that `aimback` runs: "1" where it reads their standard error, so that bars are lines there.
WATCHED = "AIMBACK_WATCHED"
_MARK = "\x1e"


def read_progress(line: str) -> str | None:
    """What a bar says, of a line of a stage's errors; None where the line is something else."""
    return line[len(_MARK) :].strip() if line.startswith(_MARK) else None


class Bar:
    """A bar that is told how far the work is.

    Args:
        progress: where it is drawn; None for nowhere, or told as lines where somebody reads them.
        title: what is being done.
        total: of how many.
        counted: what `tell` counts beside, such as "within the tolerance".
    """

    def __init__(self, progress: "Progress | None", title: str, total: int, counted: str) -> None:
        self._progress, self._total, self._counted = progress, total, counted
        self._row = progress.add_task(title, total=total, count="") if progress else None
        self._title, self._done, self._count, self._share = title, 0, 0, -1
        self._write(0)

    def advance(self, done: int) -> None:
        """So many more are done."""
        if self._progress is not None and self._row is not None:
            self._progress.advance(self._row, done)
        self._write(self._done + done)

    def tell_part(self) -> Callable[[int, int], None]:
        """`tell` of what is done from here on."""
        done, count = self._done, self._count
        return lambda more, further: self.tell(done + more, count + further)

    def tell(self, done: int, count: int) -> None:
        """So many are done by now, and `count` are what is counted: maybe more, where a part is enough for that."""
        if self._progress is not None and self._row is not None:
            self._progress.update(self._row, completed=done, count=f"{count} of {self._total} {self._counted}")
        self._count = count
        self._write(done)

    def _write(self, done: int) -> None:
        share = 100 * done // max(self._total, 1)
        if os.environ.get(WATCHED) == "1" and share != self._share:
            print(f"{_MARK}{self._title.partition(': ')[2]} {share} %", file=sys.stderr, flush=True)
        self._done, self._share = done, share


@contextmanager
def progress_bar(title: str, total: int, counted: str = "") -> Iterator[Bar]:
    """A bar on the terminal while the block runs; see `Bar`."""
    if not sys.stderr.isatty():
        yield Bar(None, title, total, counted)
        return
    from rich import progress  # takes a while to import: a stage that nobody watches starts sooner without
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[count]}"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        yield Bar(drawn, title, total, counted)


@contextmanager
def draw_line(tell: Callable[[], str]) -> Iterator[Callable[[str], None]]:
    """While the block runs, the terminal's last line is what `tell` says, some times a second; -> what prints above."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()

    def show() -> Text:
        return Text(tell(), overflow="ellipsis", no_wrap=True)

    with Live(get_renderable=show, console=console, transient=True):
        yield lambda line: console.print(Text.from_ansi(line), soft_wrap=True)
