"""Work in a process of its own, so that whatever a stranger's code does there cannot end or change this one."""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from aimback.core.errors import UserError

_Answer = TypeVar("_Answer")
_GRACE = 5.0


class TooSlowError(UserError):
    """A stranger's code has been interrupted, since it took longer than it may."""


def run_apart(work: Callable[..., _Answer], *arguments: object, who: str) -> _Answer:
    """Call `work` in another process and return what it returns, or raise what it raises.

    Args:
        who: what the work is about, for messages.

    Raises:
        UserError: the process has ended, or been ended, without an answer.
    """
    # A fork starts at once; elsewhere than on Linux one of so many libraries is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_work_quietly, work, *arguments).result()
        except BrokenProcessPool:
            raise UserError(
                f"{who}: has ended the process that it ran in (os._exit, a crash, a lack of memory, a call without end)"
            ) from None


def _work_quietly(work: Callable[..., _Answer], *arguments: object) -> _Answer:
    """Call it where nothing hears what a stranger's code prints."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    return work(*arguments)


@contextlib.contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    """Interrupt what the block does after so many seconds; where code of C does not let itself be, end the process.

    It is for processes of `run_apart`: in other threads than the main one nothing is limited.

    Raises:
        TooSlowError: the block has been interrupted.
    """

    def interrupt(*_: object) -> None:
        raise TooSlowError(f"simulator.timeout: a run has not ended within {seconds:g} s")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with Path(os.devnull).open("wb") as nowhere:
        faulthandler.dump_traceback_later(seconds + _GRACE, exit=True, file=nowhere)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
            signal.signal(signal.SIGALRM, before)
