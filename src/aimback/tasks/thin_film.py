"""A stack of thin films on glass: which thicknesses give a wanted spectrum?"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from aimback.autodiff.dual import record_nothing
from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_number, check_one_of, check_positive, check_whole
from aimback.core.errors import UserError
from aimback.tasks.base import Task
from aimback.tasks.optical_materials import (
    GRAPHENE,
    MATERIALS,
    check_wavelengths,
    compute_graphene_index,
    make_chebyshev_points,
)

Indices = Literal["published", "dispersive"]
Share = Literal["absorptance", "reflectance", "transmittance"]
# What is read: 4 n_glass (a Re E H* + b n_air) / |n_glass E + H|^2 + c, by a, b and c.
_READOUTS = {"absorptance": (1.0, -1.0, 0.0), "reflectance": (-1.0, 0.0, 1.0), "transmittance": (0.0, 1.0, 0.0)}
# As the published program has them, at every wavelength.
_GLASS, _AIR, _SI3N4, _GRAPHENE = 1.46, 1.0, 2.0, 3.306459758 + 3.152632723j

Field = tuple[Any, Any, Any, Any]  # real and imaginary part of E, and of H


class ThinFilm(Task):
    """The spectrum of a stack of films between glass and air, lit through the glass at normal incidence.

    The controls are the thicknesses of the films in nm, from the glass on. Each film has a sheet of graphene on its
    side towards the glass. The outcomes are the shares of light that the stack absorbs (or reflects, or lets through)
    at Chebyshev points of the second kind, from the shortest wavelength to the longest. There are no conditions:
    `conditions` is `(..., 0)`. The fields go from film to film by characteristic matrices (Abeles; Born and Wolf,
    "Principles of Optics", section 1.6), with real and imaginary parts apart, since dual numbers and compiled solves
    know no complex numbers.

    The benchmark is the Stack of Ren, Mahendra, Padilla and Malof (2022), "Inverse deep learning methods and benchmarks
    for artificial electromagnetic material design", after Chen et al. (2019): five films of Si3N4 from 5 to 50 nm. What
    its program computes is no real stack: Si3N4 has the index 2 at all wavelengths, and graphene the index
    3.306459758 + 3.152632723 i, though the program reads a table of it. The table begins at 2000 nm, where the spectrum
    ends, and every shorter wavelength is given its first row. `indices: published` is that program; `dispersive` takes
    the indices of real materials from published formulas (`optical_materials`), and refuses wavelengths that they were
    not fitted to.

    Args:
        films: what each film is made of, from the glass on: Si3N4, SiO2 or TiO2; of published indices there is Si3N4
            only.
        thickness: `[lower, upper]` of every film in nm, not negative.
        graphene: how thick its sheets are in nm; 0 for none, and then nothing absorbs.
        wavelengths: `[shortest, longest]` in nm.
        points: how many wavelengths there are.
        indices: published or dispersive, see above.
        readout: what share of the light the outcomes are.
        tolerance: the miss of each share at which a target counts as solved, positive.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self,
        films: Sequence[str] = ("Si3N4",) * 5,
        thickness: Sequence[float] = (5.0, 50.0),
        graphene: float = 0.35,
        wavelengths: Sequence[float] = (240.0, 2000.0),
        points: int = 256,
        indices: Indices = "published",
        readout: Share = "absorptance",
        tolerance: float = 0.001,
    ) -> None:
        if not films:
            raise UserError("films: name at least one")
        check_one_of("indices", indices, get_args(Indices))
        check_one_of("readout", readout, _READOUTS)
        check_number("graphene", graphene, least=0.0)
        check_whole(2, 10_000, points=points)
        for film in films:
            check_one_of("films", film, MATERIALS if indices == "dispersive" else ["Si3N4"])
        spectrum = make_axis("wavelengths", "nm", wavelengths)
        check_positive("wavelengths", spectrum.lower)
        axes = [make_axis(f"thickness{number}", "nm", thickness) for number in range(1, len(films) + 1)]
        check_number("thickness", axes[0].lower, least=0.0)
        if readout == "absorptance" and graphene == 0:
            raise UserError("graphene: must be above 0 where absorptance is read, since nothing else absorbs")
        self.box = Box(axes)
        self.outcomes = Box([Axis(f"{readout}_{number}", "", 0.0, 1.0) for number in range(1, points + 1)])
        self.tolerance = check_positive("tolerance", tolerance)
        self.films, self.graphene, self.indices = "/".join(films), graphene, indices
        self.shortest, self.longest = spectrum.lower, spectrum.upper
        self.wavelengths = make_chebyshev_points(spectrum.lower, spectrum.upper, points)
        self._readout = _READOUTS[readout]
        self._glass, self._indices = self._choose_indices(films)
        self._wavenumbers = 2 * math.pi / self.wavelengths
        self._sheet = self._make_sheet() if graphene else None

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """The spectrum, `(..., points)`, of thicknesses in nm, `(..., n_films)`."""
        ((_, _, field),) = deque(self._follow(controls), maxlen=1)  # which lets go of the films that are passed
        return self._read(field)[0]

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The outcome and its Jacobian, backwards through the films: a wavelength has one outcome, so one pass does.

        Dual numbers give the same, and take a pass a film.
        """
        with record_nothing():
            films = list(self._follow(controls))
            field = films[-1][-1]
            outcome, (glass, load, scale) = self._read(field)
            slope = self._descend(field, outcome, glass, load, scale)
            wave = self._wavenumbers.to(controls)
            columns = []
            for index, film in zip(self._list_indices(controls), films[::-1], strict=True):
                (cosine, less, more), (er, ei, hr, hi), _ = film
                if self._sheet is not None:
                    slope = _carry_back(self._sheet.to(controls), slope)
                ar, ai, br, bi = slope
                # Maxwell's equations behind the film: dE/dz = -i k H, dH/dz = -i k n^2 E.
                columns.append(wave * (ar * hi - ai * hr + index * index * (br * ei - bi * er)))
                slope = (
                    torch.addcmul(cosine * ar, more, bi, value=-1),
                    torch.addcmul(cosine * ai, more, br),
                    torch.addcmul(cosine * br, less, ai, value=-1),
                    torch.addcmul(cosine * bi, less, ar),
                )
            return outcome, torch.stack(columns, dim=-1)

    def _follow(self, controls: Any) -> Iterator[tuple[tuple[Any, Any, Any], Field, Field]]:
        """Of every film from the air to the glass: the cosine of its phase, and the sine over and times its index; the
        field on its side towards the glass; and the field beyond its sheet of graphene."""
        wave = self._wavenumbers.to(_like(controls))
        field: Field = (
            torch.ones_like(wave),
            torch.zeros_like(wave),
            torch.full_like(wave, _AIR),
            torch.zeros_like(wave),
        )
        indices = list(self._list_indices(_like(controls)))
        for thickness, index in zip(controls.unbind(-1)[::-1], indices[::-1], strict=True):
            phase = wave * index * thickness[..., None]
            cosine, sine = torch.cos(phase), torch.sin(phase)
            er, ei, hr, hi = field
            less, more = sine / index, sine * index
            through: Field = (
                torch.addcmul(cosine * er, less, hi),
                torch.addcmul(cosine * ei, less, hr, value=-1),
                torch.addcmul(cosine * hr, more, ei),
                torch.addcmul(cosine * hi, more, er, value=-1),
            )
            field = through if self._sheet is None else _carry(self._sheet.to(wave), through)
            yield (cosine, less, more), through, field

    def _read(self, field: Field) -> tuple[Any, tuple[Tensor, Any, Any]]:
        """The outcome; the index of the glass, n_glass E + H of the field there, and 4 n_glass over its square."""
        er, ei, hr, hi = field
        glass = self._glass.to(_like(er))
        flow, exit_, offset = self._readout
        real, imaginary = glass * er + hr, glass * ei + hi
        scale = 4 * glass / (real * real + imaginary * imaginary)
        return scale * (flow * (er * hr + ei * hi) + exit_ * _AIR) + offset, (glass, (real, imaginary), scale)

    def _descend(self, field: Field, outcome: Tensor, glass: Tensor, load: Any, scale: Tensor) -> Field:
        """The derivatives of the outcome by the four parts of the field at the glass."""
        er, ei, hr, hi = field
        flow, _, offset = self._readout
        through = flow * scale
        fall = (outcome - offset) * scale / (2 * glass)
        real, imaginary = (fall * part for part in load)
        return (
            through * hr - glass * real,
            through * hi - glass * imaginary,
            through * er - real,
            through * ei - imaginary,
        )

    def _choose_indices(self, films: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Of the glass `(points,)` and of the films `(n_films, points)`."""
        if self.indices == "published":
            return torch.full_like(self.wavelengths, _GLASS), self.wavelengths.new_full((len(films), 1), _SI3N4)
        for name in ("SiO2", *films):
            check_wavelengths(name, self.wavelengths, MATERIALS[name].lower, MATERIALS[name].upper)
        glass, *others = (MATERIALS[name].compute_index(self.wavelengths) for name in ("SiO2", *films))
        return glass, torch.stack(others)

    def _list_indices(self, like: Tensor) -> tuple[Tensor, ...]:
        return self._indices.to(like).unbind(0)

    def _make_sheet(self) -> Tensor:
        """The characteristic matrix of a sheet of graphene: the real and imaginary parts of its entries 11, 12 and 21,
        `(6, points)`; entry 22 is entry 11."""
        index = torch.full_like(self.wavelengths, 1, dtype=torch.complex128) * _GRAPHENE
        if self.indices == "dispersive":
            check_wavelengths("graphene", self.wavelengths, *GRAPHENE)
            index = compute_graphene_index(self.wavelengths, self.graphene)
        phase = self._wavenumbers * index * self.graphene
        entries = torch.stack([torch.cos(phase), -1j * torch.sin(phase) / index, -1j * torch.sin(phase) * index])
        return torch.view_as_real(entries).permute(0, 2, 1).flatten(0, 1)


def _like(controls: Any) -> Tensor:
    """A tensor of the dtype and on the device of a tensor or of a dual number."""
    value: Tensor = getattr(controls, "value", controls)
    return value


def _carry(sheet: Tensor, field: Field) -> Field:
    """The field on the other side of a sheet."""
    (pr, pi, qr, qi, rr, ri), (er, ei, hr, hi) = sheet.unbind(0), field
    return (
        _sum_products(pr, er, -pi, ei, qr, hr, -qi, hi),
        _sum_products(pr, ei, pi, er, qr, hi, qi, hr),
        _sum_products(rr, er, -ri, ei, pr, hr, -pi, hi),
        _sum_products(rr, ei, ri, er, pr, hi, pi, hr),
    )


def _carry_back(sheet: Tensor, slope: Field) -> Field:
    """The derivatives by the field before a sheet, of those by the field beyond it."""
    (pr, pi, qr, qi, rr, ri), (ar, ai, br, bi) = sheet.unbind(0), slope
    return (
        _sum_products(pr, ar, pi, ai, rr, br, ri, bi),
        _sum_products(pr, ai, -pi, ar, rr, bi, -ri, br),
        _sum_products(qr, ar, qi, ai, pr, br, pi, bi),
        _sum_products(qr, ai, -qi, ar, pr, bi, -pi, br),
    )


def _sum_products(first: Tensor, one: Any, *others: Any) -> Any:
    """The sum of products of pairs, in as few passes over memory as there are pairs."""
    whole = first * one
    for factor, other in zip(others[::2], others[1::2], strict=True):
        whole = torch.addcmul(whole, factor, other)
    return whole
