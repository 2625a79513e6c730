"""How long something takes, as people say it."""

import math


def duration(seconds: float) -> str:
    """ "12 µs", "3.4 s", "5.6 h"."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{1e6 * seconds:.3g} µs" if math.isfinite(seconds) else "for ever"
