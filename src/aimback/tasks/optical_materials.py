"""Refractive indices of materials by their wavelength, as published formulas, and where these hold."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.errors import UserError

FINE_STRUCTURE = 7.2973525693e-3


@dataclass(frozen=True)
class Material:
    """A transparent material.

    Attributes:
        permittivity: the square of its index by the square of the wavelength in micrometres.
        lower, upper: the wavelengths in nm that its formula was fitted to.
    """

    permittivity: Callable[[Tensor], Tensor]
    lower: float
    upper: float

    def compute_index(self, wavelengths: Tensor) -> Tensor:
        """The refractive index at wavelengths in nm."""
        return self.permittivity((wavelengths / 1000) ** 2).sqrt()


# Si3N4: Luke et al., Optics Letters 40, 4823 (2015). SiO2: Malitson, J. Opt. Soc. Am. 55, 1205 (1965), fused silica.
# TiO2: Devore, J. Opt. Soc. Am. 41, 416 (1951), the ordinary ray of rutile.
MATERIALS = {
    "Si3N4": Material(
        lambda square: 1 + 3.0249 * square / (square - 0.1353406**2) + 40314 * square / (square - 1239.842**2),
        310,
        5504,
    ),
    "SiO2": Material(
        lambda square: (
            1
            + 0.6961663 * square / (square - 0.0684043**2)
            + 0.4079426 * square / (square - 0.1162414**2)
            + 0.8974794 * square / (square - 9.896161**2)
        ),
        210,
        3710,
    ),
    "TiO2": Material(lambda square: 5.913 + 0.2441 / (square - 0.0803), 430, 1530),
}
# Where its sheet absorbs the same share of all light: Nair et al., Science 320, 1308 (2008), and Mak et al.,
# Phys. Rev. Lett. 101, 196405 (2008). Beyond lie an exciton in the ultraviolet, and doping in the infrared.
GRAPHENE = 400.0, 2480.0


def compute_graphene_index(wavelengths: Tensor, thickness: float) -> Tensor:
    """The complex index of a film so thick, in nm, whose sheet has the conductivity e^2 / (4 hbar)."""
    return (1 + 0.5j * FINE_STRUCTURE * wavelengths / thickness).sqrt()


def check_wavelengths(name: str, wavelengths: Tensor, lower: float, upper: float) -> None:
    """Refuse wavelengths in nm at which nobody has measured a material.

    Raises:
        UserError: some are outside.
    """
    least, most = float(wavelengths.min()), float(wavelengths.max())
    if least < lower or most > upper:
        raise UserError(
            f"wavelengths: the index of {name} is known from {lower:g} to {upper:g} nm, got {least:g} to {most:g}"
        )


def make_chebyshev_points(lower: float, upper: float, count: int) -> Tensor:
    """Chebyshev points of the second kind, both ends among them, `(count,)`, float64."""
    angles = torch.pi * torch.linspace(1, 0, count, dtype=torch.float64)
    return lower + (upper - lower) / 2 * (1 + torch.cos(angles))
