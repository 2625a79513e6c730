"""Timing in turns: a shared machine drifts, so rivals run one after the other and are compared round by round."""

import statistics
import time
from collections.abc import Callable, Mapping


def in_turns(rivals: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, list[float]]:
    """Seconds of each rival in each round; one round before them warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds + 1):
        for name, work in rivals.items():
            began = time.perf_counter()
            work()
            if turn > 0:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str, scale: float = 1.0) -> str:
    """How many times as long `slow` took, median and range over the rounds.

    Args:
        scale: the work of `fast` over the work of `slow`.
    """
    ratios = sorted(scale * a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))
    return f"{statistics.median(ratios):.3g} x ({ratios[0]:.3g} to {ratios[-1]:.3g})"
