"""Lock files that the operating system releases when their holder ends, however it ends."""

import contextlib
import errno
import fcntl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextlib.contextmanager
def hold_lock(path: Path, patience: float = 0.0) -> Iterator[IO[str]]:
    """Hold the lock on `path` while the block runs, and any process that is handed the open file; it is left there.

    On a file system that knows no locks, as some that machines share, the block runs all the same: whatever two
    processes write there is written whole, and the same.

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
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                print(f"{path}: this file system knows no locks; start nothing twice at a time here", file=sys.stderr)
                break
        yield file
