"""A particle of concentric shells: which thicknesses scatter light as wanted?"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from aimback.autodiff.dual import record_nothing
from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_one_of, check_positive, check_whole
from aimback.core.errors import UserError
from aimback.tasks.base import Task
from aimback.tasks.optical_materials import MATERIALS, check_wavelengths

_SILICA, _WATER = 2.04, 1.77  # permittivities, as published
_BEYOND = 22  # orders above which a recurrence that begins with 0 has forgotten it, to rounding
# Rows at once: their fields fill a core's cache, and the fields of thousands would fill the machine's memory.
_ROWS = {"cpu": 8, "cuda": 1024}
_GREATEST = 12.0  # of what the published particle scatters over its cross section; the mean of it is 3


class Shell(Task):
    """What share of the light on its cross section a particle in water scatters, by wavelength.

    The controls are the thicknesses of its shells in nm, from the middle on, where the first is a ball. The outcomes
    are scattering over geometric cross section at evenly spaced wavelengths; above 1 is usual. There are no conditions:
    `conditions` is `(..., 0)`. The benchmark is the Shell of Ren, Mahendra, Padilla and Malof (2022), after Peurifoy et
    al., Science Advances 4, eaar4206 (2018): eight shells of silica (permittivity 2.04) and TiO2 in turn in water
    (1.77), from 400 to 800 nm every 2 nm, orders 1 to 15 of the multipoles.

    Every order of either polarisation is a wave that the shells only change in its mixture of two spherical Bessel
    functions (Bohren and Huffman, "Absorption and scattering of light by small particles", chapter 8). Nothing absorbs,
    so all of it is real. Those of the first kind come from a recurrence downwards, those of the second from one
    upwards, which are the stable directions. All is computed in float64, since the two kinds are up to 1e40 apart.

    Args:
        thickness: `[lower, upper]` of every shell in nm, positive.
        shells: how many.
        materials: of the shells in turn, from the middle on: silica or TiO2.
        wavelengths: `[shortest, longest]` in nm.
        points: how many wavelengths there are.
        orders: of the multipoles, from 1 on.
        tolerance: the miss of each share at which a target counts as solved, positive.

    Attributes:
        wavelengths: in nm, `(points,)`.
        permittivities: of the shells and of the water, `(shells + 1, points)`.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self,
        thickness: Sequence[float] = (30.0, 70.0),
        shells: int = 8,
        materials: Sequence[str] = ("silica", "TiO2"),
        wavelengths: Sequence[float] = (400.0, 800.0),
        points: int = 201,
        orders: int = 15,
        tolerance: float = 0.01,
    ) -> None:
        check_whole(1, 100, shells=shells)
        check_whole(2, 10_000, points=points)
        check_whole(2, 50, orders=orders)
        if not materials:
            raise UserError("materials: name at least one")
        for material in materials:
            check_one_of("materials", material, ["silica", "TiO2"])
        spectrum = make_axis("wavelengths", "nm", wavelengths)
        check_positive("wavelengths", spectrum.lower)
        axes = [make_axis(f"thickness{number}", "nm", thickness) for number in range(1, shells + 1)]
        check_positive("thickness", axes[0].lower)
        self.box = Box(axes)
        self.outcomes = Box([Axis(f"scattering_{number}", "", 0.0, _GREATEST) for number in range(1, points + 1)])
        self.tolerance = check_positive("tolerance", tolerance)
        self.materials, self.orders = "/".join(materials), orders
        self.shortest, self.longest = spectrum.lower, spectrum.upper
        self.wavelengths = torch.linspace(spectrum.lower, spectrum.upper, points, dtype=torch.float64)
        of_material = {"silica": torch.full_like(self.wavelengths, _SILICA)}
        if "TiO2" in materials:
            titania = MATERIALS["TiO2"]
            # The published particle is lit from 400 nm on, below where its formula was fitted.
            check_wavelengths("TiO2", self.wavelengths, 400, titania.upper)
            of_material["TiO2"] = titania.permittivity((self.wavelengths / 1000) ** 2)
        names = [materials[number % len(materials)] for number in range(shells)]
        self.permittivities = torch.stack(
            [*(of_material[name] for name in names), torch.full_like(self.wavelengths, _WATER)]
        )
        self._indices = self.permittivities.sqrt()
        self._wavenumbers = 2 * math.pi / self.wavelengths
        largest = float((self._indices * self._wavenumbers).max()) * shells * axes[0].upper
        self._begin = math.ceil(max(orders, largest)) + _BEYOND

    @property
    def compiles(self) -> bool:
        """A program of one row would be the recurrences of all wavelengths written out."""
        return False

    @property
    def bulk(self) -> int:
        """A simulation takes a millisecond, as one of `heat` with its Jacobian does."""
        return 16

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """The spectrum, `(..., points)`, of thicknesses in nm, `(..., shells)`."""
        spectra = [self._measure(radii, self._follow(radii)[0]) for radii in self._list_radii(controls)]
        return torch.cat(spectra).reshape(*controls.shape[:-1], len(self.outcomes)).to(controls.dtype)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The outcome, and its Jacobian from the same fields.

        If a boundary moves, the material of a thin layer changes, and what that does to the mixture outside follows
        from the square of the field there, as Green's identity for the wave equation has it: nothing is to be
        differentiated.
        """
        with record_nothing():
            parts = zip(*map(self._differentiate, self._list_radii(controls)), strict=True)
            outcome, jacobian = (torch.cat(part).to(controls.dtype) for part in parts)
        leading = controls.shape[:-1]
        return outcome.reshape(*leading, len(self.outcomes)), jacobian.reshape(*leading, *jacobian.shape[1:])

    def _list_radii(self, controls: Tensor) -> Sequence[Tensor]:
        """Of the boundaries, some rows at a time."""
        radii = controls.double().cumsum(-1).reshape(-1, controls.shape[-1])
        few: Sequence[Tensor] = radii.split(_ROWS[radii.device.type])
        return few

    def _differentiate(self, radii: Tensor) -> tuple[Tensor, Tensor]:
        """The outcome of some rows and its Jacobian."""
        mixture, fields = self._follow(radii)
        outcome = self._measure(radii, mixture)
        first, second = mixture
        size = first * first + second * second
        # Of what an order scatters, by its change of mixture, `(..., 2, orders, points)`.
        weight = self._weigh(radii)[..., None, :, :] * 2 * first * second / (size * size)
        degrees = self._degrees(radii)
        squares = degrees * (degrees + 1)
        wave, epsilons = self._wavenumbers.to(radii), self.permittivities.to(radii)
        outside = wave * epsilons[-1].sqrt()
        columns = []
        for number, (value, slope) in enumerate(fields):
            here, beyond = epsilons[number], epsilons[number + 1]
            # Electric fields over the radius of the transverse waves, and magnetic ones of the others.
            electric, magnetic = value[..., 0, :, :] / (wave * here.sqrt()), value[..., 1, :, :] * here.sqrt()
            radius = radii[..., number, None, None]
            change = torch.stack(
                [
                    -outside * wave * wave * (here - beyond) * electric * electric,
                    (
                        squares / radius**2 * (1 / here - 1 / beyond) * magnetic * magnetic
                        - (here - beyond) * (wave * slope[..., 1, :, :]) ** 2
                    )
                    / outside,
                ],
                dim=-3,
            )
            columns.append((weight * change).sum((-3, -2)))
        columns[-1] = columns[-1] - 2 * outcome / radii[..., -1:]
        by_radius = torch.stack(columns, dim=-1)
        # A thickness moves its own boundary and all beyond it.
        jacobian = by_radius.flip(-1).cumsum(-1).flip(-1)
        return outcome, jacobian

    def _follow(self, radii: Tensor) -> tuple[tuple[Tensor, Tensor], list[tuple[Tensor, Tensor]]]:
        """The mixture in the water, of transverse electric and magnetic waves, `(..., 2, orders, points)` each; and
        the waves with their slopes at the boundaries, on their inner side."""
        indices, wave = self._indices.to(radii), self._wavenumbers.to(radii)
        inner, outer = (radii[..., None] * (wave * part) for part in (indices[:-1], indices[1:]))
        psi, psi_slope, chi, chi_slope = (
            part.unbind(-3) for part in self._tabulate(torch.stack([inner, outer], dim=-2).flatten(-3, -2))
        )
        value, slope = (torch.stack([part[0], part[0]], dim=-3) for part in (psi, psi_slope))
        fields = [(value, slope)]
        for number in range(radii.shape[-1]):
            # Of transverse electric waves the electric field goes on, of the others the magnetic one.
            ratio = indices[number + 1] / indices[number]
            beyond = value * torch.stack([ratio, 1 / ratio])[:, None, :]
            place = 2 * number + 1
            here = [part[place].unsqueeze(-3) for part in (psi, psi_slope, chi, chi_slope)]
            first = torch.addcmul(beyond * here[3], slope, here[2], value=-1)
            second = torch.addcmul(slope * here[0], beyond, here[1], value=-1)
            if number + 1 < radii.shape[-1]:
                there = [part[place + 1].unsqueeze(-3) for part in (psi, psi_slope, chi, chi_slope)]
                value, slope = (torch.addcmul(first * there[kind], second, there[kind + 2]) for kind in (0, 1))
                fields.append((value, slope))
        return (first, second), fields

    def _measure(self, radii: Tensor, mixture: tuple[Tensor, Tensor]) -> Tensor:
        first, second = mixture
        shares = second * second / (first * first + second * second)
        return (self._weigh(radii) * shares.sum(-3)).sum(-2)

    def _weigh(self, radii: Tensor) -> Tensor:
        """What an order scatters at most, over the cross section of the particle, `(..., orders, points)`."""
        wave = self._wavenumbers.to(radii)
        radius = radii[..., -1, None, None]
        return 2 * (2 * self._degrees(radii) + 1) / (wave * wave * _WATER * radius * radius)

    def _degrees(self, like: Tensor) -> Tensor:
        return torch.arange(1, self.orders + 1).to(like)[:, None]

    def _tabulate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The Riccati-Bessel functions x j(x) and x y(x) of `(..., n, points)`: the first, its slope, the second, its
        slope, `(..., n, orders, points)` each."""
        inverse, sine, cosine = 1 / x, torch.sin(x), torch.cos(x)
        kept = self.orders + 1
        first = _recur([torch.zeros_like(x), torch.ones_like(x)], inverse, range(self._begin, 0, -1), kept)[::-1]
        second = _recur([-cosine, -cosine * inverse - sine], inverse, range(1, self.orders), kept)
        # By the two lowest orders, of which never both are near 0.
        lowest = sine, sine * inverse - cosine
        scale = (lowest[0] * first[0] + lowest[1] * first[1]) / (first[0] * first[0] + first[1] * first[1])
        steepness = self._degrees(x) * inverse[..., None, :]
        tables = []
        for table in (torch.stack(first, dim=-2) * scale[..., None, :], torch.stack(second, dim=-2)):
            values = table[..., 1:, :]
            tables += [values, torch.addcmul(table[..., :-1, :], steepness, values, value=-1)]
        psi, psi_slope, chi, chi_slope = tables
        return psi, psi_slope, chi, chi_slope


def _recur(rows: list[Tensor], inverse: Tensor, degrees: Sequence[int], kept: int) -> list[Tensor]:
    """The last rows that follow two, each being `(2 degree + 1) / x` times the one before less the one before that.

    With the signs + + - - + + and so on each takes one operation.
    """
    for place, degree in enumerate(degrees):
        rows.append(torch.addcmul(rows[-2], inverse, rows[-1], value=(2 * degree + 1) * (1 if place % 2 else -1)))
        del rows[:-kept]
    count = len(degrees) + 2
    return [-row if place // 2 % 2 else row for place, row in zip(range(count - kept, count), rows, strict=True)]
