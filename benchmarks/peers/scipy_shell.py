"""Scattering by eight shells as the published program has it: SciPy's Bessel functions, an order after the other."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import spherical_jn, spherical_yn

Array = NDArray[np.float64]


def simulate_by_scipy(
    thicknesses: Sequence[float], wavelengths: Array, permittivities: Sequence[Array], orders: int = 15
) -> Array:
    """Scattering over geometric cross section, `(n_wavelengths,)`.

    Args:
        wavelengths: in nm.
        permittivities: of the shells from the middle on, then of what is around, `(n_wavelengths,)` each.
    """
    radii, wave = np.cumsum(thicknesses), 2 * np.pi / wavelengths
    whole = np.zeros_like(wave)
    for order in range(1, orders + 1):
        for electric in (True, False):
            first, second = np.ones_like(wave), np.zeros_like(wave)
            for radius, here, beyond in zip(radii, permittivities[:-1], permittivities[1:], strict=True):
                (j, j_slope), (y, y_slope) = _read(order, wave * np.sqrt(here) * radius)
                (k, k_slope), (z, z_slope) = _read(order, wave * np.sqrt(beyond) * radius)
                value, slope = first * j + second * y, first * j_slope + second * y_slope
                if not electric:
                    value, slope = here * value, beyond * slope
                first, second = z_slope * value - z * slope, k * slope - k_slope * value
            whole += (2 * order + 1) * second**2 / (first**2 + second**2)
    return np.asarray(2 * whole / (wave**2 * permittivities[-1] * radii[-1] ** 2))


def _read(order: int, x: Array) -> list[tuple[Array, Array]]:
    """Of both kinds the function, and the slope of x times it."""

    def one(kind: Callable[..., Array]) -> tuple[Array, Array]:
        value = kind(order, x)
        return value, value + x * kind(order, x, derivative=True)

    return [one(spherical_jn), one(spherical_yn)]
