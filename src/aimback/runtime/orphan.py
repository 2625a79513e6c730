"""A stage ends with the dvc that runs it, and a job with its worker; else it would write beside the next run."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_END = 0.6


def end_with_parent() -> None:
    """Watch, in a thread, who runs this process, and end by SIGTERM soon after it has ended."""
    # dvc calls its commands through the user's shell, which may or may not stay between the two.
    shell = Path(os.environ.get("SHELL") or "/bin/sh").name
    child = psutil.Process()
    while (above := child.parent()) is not None and above.name() == shell:
        child = above
    threading.Thread(target=_watch, args=(child, child.ppid()), daemon=True).start()


def _watch(child: psutil.Process, parent: int) -> None:
    # Who has lost its parent gets another one at once, even while the dead one waits to be reaped.
    while child.is_running() and child.ppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    end()


def end(at_once: bool = False) -> None:
    """End this process by SIGTERM, and soon after by force: a main thread that computes does not get to its signals.

    Args:
        at_once: without the signal, which it has got already.
    """
    if not at_once:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_END)
    os._exit(128 + signal.SIGTERM)
