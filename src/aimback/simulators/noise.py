"""How exactly a simulator can be differentiated by differences: its noise, and the step that follows from it."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_POINTS = 7
_SPACING = 1e-6  # of the box: what is smooth leaves nothing in a fourth difference
_FINEST, _COARSEST = 3e-8, 0.05  # steps, shares of the box
# A step of the coarsest size would hardly tell a slope from noise above it.
MOST_NOISE = 1e-3


def estimate_noise(along: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
    """Estimate the noise of each outcome from a table of differences on a short line.

    ECnoise of Moré and Wild, "Estimating computational noise" (SIAM J. Sci. Comput. 33, 2011), eq. 2.3: the k-th
    difference of m + 1 neighbouring values, scaled by (k!)^2 / (2k)!, has the noise's standard deviation once k is
    high enough for what is smooth to have gone.

    Args:
        along: places on a line in units of the box, `(n,)` -> the outcomes there, `(n, n_outcomes)`.

    Returns:
        Standard deviations, `(n_outcomes,)`; at least the rounding of float64.
    """
    values = along(_SPACING * torch.arange(-(_POINTS // 2), _POINTS // 2 + 1, dtype=torch.float64)).numpy()
    sigmas, table = [], values
    for order in range(1, _POINTS):
        table = np.diff(table, axis=0)
        factor = math.factorial(order) ** 2 / math.factorial(2 * order)
        sigmas.append(np.sqrt(factor * np.mean(table**2, axis=0)))
    rounding = np.finfo(np.float64).eps * np.abs(values).max(axis=0)
    noise: NDArray[np.float64] = np.maximum(np.median(sigmas[3:], axis=0), rounding)
    return noise


def choose_step(noise: float) -> float:
    """The step of a one-sided difference with the least error where the second derivative is about one.

    Args:
        noise: as a share of the outcome's range.

    Returns:
        A share of the box: 2 sqrt(noise), e.g. Nocedal and Wright, "Numerical Optimization" (2006), section 8.1.
    """
    return min(max(2 * math.sqrt(noise), _FINEST), _COARSEST)
