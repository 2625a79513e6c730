"""Progress on a terminal, nothing anywhere else."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """A bar that is told how far the work is.

    Args:
        progress: where it is drawn; None for nowhere.
        title: what is being done.
        total: of how many.
        counted: what `tell` counts beside, such as "within the tolerance".
    """

    def __init__(self, progress: "Progress | None", title: str, total: int, counted: str) -> None:
        self._progress, self._total, self._counted = progress, total, counted
        self._row = progress.add_task(title, total=total, count="") if progress else None

    def advance(self, done: int) -> None:
        """So many more are done."""
        if self._progress is not None and self._row is not None:
            self._progress.advance(self._row, done)

    def tell(self, done: int, count: int) -> None:
        """So many are done by now, and `count` are what is counted: maybe more, where a part is enough for that."""
        if self._progress is not None and self._row is not None:
            self._progress.update(self._row, completed=done, count=f"{count} of {self._total} {self._counted}")


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
