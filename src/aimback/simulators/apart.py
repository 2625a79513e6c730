"""Work in a process of its own, so that whatever a stranger's code does there cannot end or change this one."""

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from aimback.core.errors import UserError

_Answer = TypeVar("_Answer")


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
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool:
            raise UserError(
                f"{who}: has ended the process that it ran in (os._exit, a crash, or a lack of memory)"
            ) from None
