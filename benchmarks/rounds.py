"""Timing in turns: a shared machine drifts, so rivals run one after the other and are compared round by round."""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

Work = Callable[[], object]


def in_turns(
    rivals: Mapping[str, Work], rounds: int = 5, *, warm_up: bool = True, patience: float = math.inf
) -> dict[str, list[float]]:
    """Seconds of each rival in each round.

    Args:
        warm_up: whether one round that is not counted comes first.
        patience: a rival that has spent so many seconds sits the later rounds out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(-1 if warm_up else 0, rounds):
        for name, work in rivals.items():
            if sum(seconds[name]) > patience:
                continue
            spent = clock(work)
            if turn >= 0:
                seconds[name].append(spent)
    return seconds


def clock(work: Work) -> float:
    """Seconds that one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratio(seconds: Mapping[str, Sequence[float]], slow: str, fast: str, scale: float = 1.0) -> str:
    """How many times as long `slow` took, median and range over the rounds that both ran.

    Args:
        scale: the work of `fast` over the work of `slow`.
    """
    ratios = sorted(scale * a / b for a, b in zip(seconds[slow], seconds[fast], strict=False))
    return spread(ratios, " x")


def spread(values: Sequence[float], unit: str = "") -> str:
    """Median and range; the range only where there is one."""
    middle = f"{statistics.median(values):.3g}{unit}"
    return f"{middle} ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else middle


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and all that it starts, on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
