"""The stack of thin films against the package tmm, closed forms and the conservation of energy."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import tmm
import torch
from numpy.typing import NDArray
from torch import Tensor

from aimback.autodiff import dual
from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem
from aimback.solve.gauss_newton import GaussNewton
from aimback.solve.multistart import solve
from aimback.solve.starts import draw_evenly
from aimback.tasks.optical_materials import FINE_STRUCTURE, MATERIALS, make_chebyshev_points
from aimback.tasks.thin_film import Share, ThinFilm

T = torch.float64
READOUTS: tuple[Share, ...] = ("absorptance", "reflectance", "transmittance")
MIXED = {"films": ["SiO2", "TiO2", "Si3N4"], "indices": "dispersive", "wavelengths": [450.0, 1500.0], "points": 20}


def read_spectrum(task: ThinFilm, thicknesses: list[float]) -> Tensor:
    controls = torch.tensor(thicknesses, dtype=T)
    return task(controls, controls[:0])


def run_tmm(
    task: ThinFilm, films: list[list[complex]], thicknesses: list[float], readout: Share
) -> NDArray[np.float64]:
    """The spectrum of layers whose indices are given one list a wavelength, the glass first."""
    spectrum = []
    for wavelength, indices in zip(task.wavelengths.tolist(), films, strict=True):
        found = tmm.coh_tmm("s", indices, [math.inf, *thicknesses, math.inf], 0, wavelength)
        shares = {"reflectance": found["R"], "transmittance": found["T"]}
        shares["absorptance"] = 1 - found["R"] - found["T"]
        spectrum.append(shares[readout])
    return np.array(spectrum)


@pytest.mark.parametrize("readout", READOUTS)
def test_the_published_stack_is_that_of_tmm(readout: Share) -> None:
    task = ThinFilm(readout=readout)
    for row in task.box.sample(3, torch.Generator().manual_seed(0)):
        indices = [1.46, *[3.306459758 + 3.152632723j, 2.0] * 5, 1.0]
        thicknesses = [part for film in row.tolist() for part in (0.35, film)]
        expected = run_tmm(task, [indices] * 256, thicknesses, readout)
        np.testing.assert_allclose(read_spectrum(task, row.tolist()).numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("readout", READOUTS)
def test_real_materials_are_those_of_tmm(readout: Share) -> None:
    """Indices of one film each by the published formulas, of graphene by its conductivity."""
    task, thicknesses = ThinFilm(**MIXED, readout=readout), [40.0, 12.0, 33.0]  # type: ignore[arg-type]
    films = []
    for wavelength in task.wavelengths.tolist():
        square = (wavelength / 1000) ** 2
        silica = 1 + sum(
            share * square / (square - resonance**2)
            for share, resonance in ((0.6961663, 0.0684043), (0.4079426, 0.1162414), (0.8974794, 9.896161))
        )
        nitride = 1 + 3.0249 * square / (square - 0.1353406**2) + 40314 * square / (square - 1239.842**2)
        titania = 5.913 + 0.2441 / (square - 0.0803)
        graphene = (1 + 1j * wavelength / (2 * 137.035999 * 0.35)) ** 0.5
        glass, middle, last = math.sqrt(silica), math.sqrt(titania), math.sqrt(nitride)
        films.append([glass, graphene, glass, graphene, middle, graphene, last, 1.0])
    expected = run_tmm(task, films, [part for film in thicknesses for part in (0.35, film)], readout)
    np.testing.assert_allclose(read_spectrum(task, thicknesses).numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "wavelength", "index"), [("SiO2", 587.6, 1.4585), ("TiO2", 589.3, 2.613)])
def test_an_index_is_the_handbooks(name: str, wavelength: float, index: float) -> None:
    found = MATERIALS[name].compute_index(torch.tensor(wavelength, dtype=T))
    assert float(found) == pytest.approx(index, abs=5e-4)


def test_wavelengths_are_the_points_of_chebyshev() -> None:
    points = np.polynomial.chebyshev.chebpts2(256)
    np.testing.assert_allclose(ThinFilm().wavelengths.numpy(), 1120 + 880 * points, rtol=1e-14)
    assert make_chebyshev_points(240, 2000, 256)[[0, -1]].tolist() == [240, 2000]


def test_no_film_is_the_bare_glass() -> None:
    """Fresnel's formula."""
    task = ThinFilm(films=["Si3N4"], thickness=[0.0, 50.0], graphene=0.0, readout="reflectance")
    fresnel = torch.full((256,), ((1.46 - 1) / (1.46 + 1)) ** 2, dtype=T)
    torch.testing.assert_close(read_spectrum(task, [0.0]), fresnel, rtol=1e-13, atol=0)


def test_a_quarter_wave_has_its_closed_form() -> None:
    """At 800 nm the reflectance is ((n_glass n_air - n^2) / (n_glass n_air + n^2))^2."""
    task = ThinFilm(
        films=["Si3N4"],
        thickness=[0.0, 200.0],
        graphene=0.0,
        wavelengths=[800.0, 900.0],
        points=2,
        readout="reflectance",
    )
    expected = ((1.46 - 4) / (1.46 + 4)) ** 2
    assert float(read_spectrum(task, [100.0])[0]) == pytest.approx(expected, rel=1e-13)
    # Half a wave of it might as well not be there.
    assert float(read_spectrum(task, [200.0])[0]) == pytest.approx((0.46 / 2.46) ** 2, rel=1e-13)


def test_a_free_sheet_of_graphene_absorbs_its_share_of_light() -> None:
    """pi alpha over (1 + pi alpha / 2)^2 between two media of index 1, by Nair et al. (2008); here beside glass."""
    task = ThinFilm(
        films=["SiO2"], thickness=[0.0, 1.0], graphene=0.01, wavelengths=[500.0, 2000.0], indices="dispersive", points=5
    )
    glass = MATERIALS["SiO2"].compute_index(task.wavelengths)
    share = math.pi * FINE_STRUCTURE
    expected = 4 * glass * share / (glass + 1 + share) ** 2
    torch.testing.assert_close(read_spectrum(task, [0.0]), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("settings", [{}, MIXED])
def test_energy_is_conserved(settings: dict[str, object]) -> None:
    shares = []
    for readout in READOUTS:
        task = ThinFilm(**settings, readout=readout)  # type: ignore[arg-type]
        controls = task.box.sample(50, torch.Generator().manual_seed(0))
        shares.append(task(controls, controls[:, :0]))
    torch.testing.assert_close(sum(shares), torch.ones_like(shares[0]), rtol=0, atol=1e-14)
    assert all(bool((share >= 0).all()) for share in shares)


@pytest.mark.parametrize("readout", READOUTS)
def test_the_jacobian_is_that_of_dual_numbers(readout: Share) -> None:
    for task in (ThinFilm(readout=readout), ThinFilm(**MIXED, readout=readout)):  # type: ignore[arg-type]
        controls = task.box.sample(20, torch.Generator().manual_seed(0))
        value, jacobian = task.linearise(controls, controls[:, :0])
        by_dual = dual.linearise(task, controls, controls[:, :0])
        torch.testing.assert_close(value, by_dual[0], rtol=0, atol=0)
        torch.testing.assert_close(jacobian, by_dual[1], rtol=0, atol=1e-15)


def test_the_simulator_is_inverted_to_rounding() -> None:
    task = ThinFilm()
    controls = task.box.sample(10, torch.Generator().manual_seed(0))
    none = controls[:, :0]
    targets = task(controls, none)
    starts = draw_evenly(10, 16, 5, torch.Generator().manual_seed(1))
    problem = InverseProblem(targets, none, task.box, task.distance, starts)
    found = solve(task, problem, GaussNewton(max_steps=40, precision=1e-16), torch.Generator()).controls
    errors = (task(found, none[:, None]) - targets[:, None]).square().mean(-1)
    assert float(errors.amin(-1).max()) < 1e-25


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ThinFilm(films=[]), "^films: name at least one"),
        (lambda: ThinFilm(films=["SiO2"]), "^films: must be one of Si3N4, got 'SiO2'"),
        (lambda: ThinFilm(thickness=[-1.0, 5.0]), "^thickness: must be a finite number of at least 0"),
        (lambda: ThinFilm(graphene=0.0), "^graphene: must be above 0 where absorptance is read"),
        (lambda: ThinFilm(indices="dispersive"), "^wavelengths: the index of Si3N4 is known from 310 to 5504 nm"),
        (lambda: ThinFilm(wavelengths=[0.0, 5.0]), "^wavelengths: must be positive"),
        (lambda: ThinFilm(points=1), "^points: must be a whole number from 2"),
    ],
)
def test_values_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
