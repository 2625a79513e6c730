"""Lock files that the operating system releases when their holder ends, however it ends."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def hold_lock(path: Path, patience: float = 0.0) -> Iterator[IO[str]]:
    """Hold the lock on `path` while the block runs, and any process that is handed the open file; it is left there.

    Args:
        patience: seconds to wait for another holder.

    Raises:
        BlockingIOError: another process still holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.05)
        yield file
