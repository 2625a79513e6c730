"""Progress on a terminal, nothing anywhere else."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bar:
    """A bar that is told how far the work is.

    Args:
        title: what is being done.
        total: of how many.
        counted: what `tell` counts beside, such as "within the tolerance".
    """

    def __init__(self, progress: Progress, title: str, total: int, counted: str) -> None:
        self._progress, self._total, self._counted = progress, total, counted
        self._row = progress.add_task(title, total=total, count="")

    def advance(self, done: int) -> None:
        """So many more are done."""
        self._progress.advance(self._row, done)

    def tell(self, done: int, count: int) -> None:
        """So many are done by now, and `count` are what is counted: maybe more, where a part is enough for that."""
        self._progress.update(self._row, completed=done, count=f"{count} of {self._total} {self._counted}")


@contextmanager
def progress_bar(title: str, total: int, counted: str = "") -> Iterator[Bar]:
    """A bar on the terminal while the block runs; see `Bar`."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield Bar(progress, title, total, counted)
