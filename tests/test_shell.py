"""The particle of shells against Mie's series, SciPy's Bessel functions and limits."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import spherical_jn, spherical_yn
from torch import Tensor

from aimback.autodiff.any_torch import linearise_by_autograd
from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem
from aimback.solve.gauss_newton import GaussNewton
from aimback.solve.multistart import solve
from aimback.tasks.shell import Shell
from benchmarks.peers.scipy_shell import simulate_by_scipy

T = torch.float64


def draw(task: Shell, count: int) -> tuple[Tensor, Tensor]:
    controls = task.box.sample(count, torch.Generator().manual_seed(0))
    return controls, controls[:, :0]


def scatter_by_series(index: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Of a sphere, its scattering over its cross section: Bohren and Huffman (1983), equations 4.53 and 4.61."""
    orders = np.arange(1, 60)[:, None]

    def riccati(argument: np.ndarray, bessel: Callable[..., np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        value = bessel(orders, argument)
        return argument * value, value + argument * bessel(orders, argument, derivative=True)

    (inside, inside_slope), (here, slope) = riccati(index * sizes, spherical_jn), riccati(sizes, spherical_jn)
    other, other_slope = riccati(sizes, spherical_yn)
    out, out_slope = here + 1j * other, slope + 1j * other_slope
    a = (index * inside * slope - here * inside_slope) / (index * inside * out_slope - out * inside_slope)
    b = (inside * slope - index * here * inside_slope) / (inside * out_slope - index * out * inside_slope)
    return 2 / sizes**2 * ((2 * orders + 1) * (np.abs(a) ** 2 + np.abs(b) ** 2)).sum(0)


def scatter_by_miepython(index: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    miepython = pytest.importorskip("miepython", reason="miepython is not installed (extra: peers)")
    return miepython.efficiencies_mx(index, sizes)[1]


@pytest.mark.parametrize("scatter", [scatter_by_series, scatter_by_miepython], ids=["series", "miepython"])
@pytest.mark.parametrize("material", ["silica", "TiO2"])
def test_shells_of_one_material_are_the_sphere_of_mie(material: str, scatter: Callable[..., np.ndarray]) -> None:
    task = Shell(shells=3, materials=[material], orders=30, points=21)
    controls, none = draw(task, 5)
    index = task.permittivities.sqrt()
    size = 2 * math.pi * index[-1] / task.wavelengths * controls.sum(-1, keepdim=True)
    expected = [scatter((index[0] / index[-1]).numpy(), row.numpy()) for row in size]
    np.testing.assert_allclose(task(controls, none).numpy(), np.stack(expected), rtol=1e-9)


def test_the_published_particle_is_that_of_scipy() -> None:
    task = Shell()
    controls, none = draw(task, 4)
    permittivities = list(task.permittivities.numpy())
    expected = [simulate_by_scipy(row, task.wavelengths.numpy(), permittivities) for row in controls.tolist()]
    np.testing.assert_allclose(task(controls, none).numpy(), np.stack(expected), rtol=0, atol=1e-11)


def test_permittivities_are_the_published_ones() -> None:
    task = Shell()
    square = (np.arange(400, 801, 2) / 1000) ** 2
    titania = 5.913 + 0.2441 / (square - 0.0803)
    np.testing.assert_allclose(task.permittivities[1].numpy(), titania, rtol=1e-14)
    assert task.permittivities[[0, 2, 8], 0].tolist() == [2.04, 2.04, 1.77]


def test_bessel_functions_are_those_of_scipy() -> None:
    """From the least to the greatest argument that the box has."""
    x = torch.linspace(0.2, 25.0, 300, dtype=T)
    psi, psi_slope, chi, chi_slope = (part[0].numpy() for part in Shell()._tabulate(x[None]))
    points = x.numpy()
    for order in range(1, 16):
        for kind, value, slope in ((spherical_jn, psi, psi_slope), (spherical_yn, chi, chi_slope)):
            expected = points * kind(order, points)
            its_slope = kind(order, points) + points * kind(order, points, derivative=True)
            # Near a root relative to the amplitude, which is 1 there.
            close = {"rtol": 1e-10, "atol": 1e-12 if kind is spherical_yn else 0}
            near = points > order if kind is spherical_jn else points > 0
            np.testing.assert_allclose(value[order - 1][near], expected[near], rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(slope[order - 1][near], its_slope[near], rtol=1e-10, atol=1e-12)
            if not near.all():
                np.testing.assert_allclose(value[order - 1][~near], expected[~near], **close)


def test_a_speck_scatters_as_rayleigh_says() -> None:
    """8/3 x^4 ((m^2 - 1) / (m^2 + 2))^2, up to terms of x^2."""
    task = Shell(shells=1, thickness=[0.5, 1.0], materials=["TiO2"], orders=3, points=5)
    size = 2 * math.pi * task.permittivities[-1].sqrt() / task.wavelengths
    ratio = task.permittivities[0] / task.permittivities[-1]
    expected = 8 / 3 * size**4 * ((ratio - 1) / (ratio + 2)) ** 2
    speck = torch.ones(1, dtype=T)
    torch.testing.assert_close(task(speck, speck[:0]), expected, rtol=1e-3, atol=0)


def test_the_jacobian_is_that_of_torch() -> None:
    for task in (Shell(points=21), Shell(shells=3, materials=["TiO2", "silica", "silica"], points=21)):
        controls, none = draw(task, 5)
        value, jacobian = task.linearise(controls, none)
        by_torch = linearise_by_autograd(task, controls, none)
        torch.testing.assert_close(value, by_torch[0], rtol=0, atol=0)
        torch.testing.assert_close(jacobian, by_torch[1], rtol=1e-9, atol=1e-11)


def test_the_simulator_is_inverted_to_rounding() -> None:
    task = Shell(points=41)
    controls, none = draw(task, 3)
    targets = task(controls, none)
    # From nearby: there are many other minima.
    starts = task.box.to_unit(controls)[:, None] + 0.005 * torch.randn(3, 4, 8, generator=torch.Generator(), dtype=T)
    problem = InverseProblem(targets, none, task.box, task.distance, starts)
    found = solve(task, problem, GaussNewton(max_steps=60, precision=1e-16), torch.Generator()).controls
    errors = (task(found, none[:, None]) - targets[:, None]).square().mean(-1).amin(-1)
    assert float(errors.max()) < 1e-22


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shell(thickness=[0.0, 5.0]), "^thickness: must be positive"),
        (lambda: Shell(materials=["gold"]), "^materials: must be one of silica, TiO2, got 'gold'"),
        (lambda: Shell(wavelengths=[300.0, 800.0]), "^wavelengths: the index of TiO2 is known from 400 to 1530 nm"),
        (lambda: Shell(orders=1), "^orders: must be a whole number from 2 to 50"),
    ],
)
def test_values_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
