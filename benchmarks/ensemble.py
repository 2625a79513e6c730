"""The ensemble of Lorenz systems of GPUODEBenchmarks, in plain numbers: no peer pays for another one's library."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
# rho, `(n,)` -> what each system comes to, `(columns, n)`: x, y, z; or these and after them the derivatives of x, of
# y and of z, each by rho and by the three coordinates of the start
Integrate = Callable[[Array], Array]

SIGMA, BETA = 10.0, 8 / 3
LARGEST_RHO = 21.0
START = (1.0, 0.0, 0.0)
DURATION, STEPS = 1.0, 1000


def spread_rho(count: int) -> Array:
    """So many values of rho, evenly from 0 to the largest."""
    return np.linspace(0, LARGEST_RHO, count, dtype=np.float32)
