"""The trebuchet against its published numbers, an oracle of tight tolerance, and its own limits."""

import math

import numpy as np
import pytest
import torch
from problems import DEGREE, INTERCHANGED, OWN, oracle
from torch import Tensor

from aimback.autodiff.any_torch import linearise_by_autograd
from aimback.core.errors import UserError
from aimback.tasks.trebuchet import Trebuchet
from aimback.tasks.trebuchet_motion import (
    LONG_ARM,
    PIVOT_HEIGHT,
    SLING,
)

T = torch.float64

# The published shot: wind in m/s, angle in degrees, weight in lb.
SHOT = (-2.0, 45.0, 200.0)


def shot(wind: float, degrees: float, weight: float) -> tuple[Tensor, Tensor]:
    """Controls and conditions of a shot as the published program is asked for it."""
    return torch.tensor([degrees * DEGREE, weight], dtype=T), torch.tensor([wind], dtype=T)


def gradient(task: Trebuchet, wind: float, degrees: float, weight: float) -> tuple[float, float, float]:
    """Of the distance by wind, angle in degrees and weight, in one backward pass."""
    inputs = [part.requires_grad_() for part in shot(wind, degrees, weight)]
    by_controls, by_wind = torch.autograd.grad(task(*inputs).sum(), inputs)
    return float(by_wind), float(by_controls[0]) * DEGREE, float(by_controls[1])


@pytest.fixture(scope="module")
def exact() -> Trebuchet:
    return Trebuchet()


@pytest.fixture(scope="module")
def program() -> Trebuchet:
    return Trebuchet(integrator="euler60")


# What the published program printed: github.com/JuliaComputing/ODSC2019, "Differentiable trebuchet".


@pytest.mark.parametrize(
    ("asked", "distance"),
    [
        ((0, 45, 200), 82.79904064062525),
        ((1, 45, 200), 86.8524363433105),
        ((0, 10, 200), 74.12993018644694),
        ((0, 30, 400), 98.60072421662713),
        ((-5, 30, 400), 80.56450229660992),
        ((0, 35.709912081306925, 200), 89.00957876560427),
        ((0, 29.68879296816402, 200), 90.23898903146824),
        ((0, 67.04270416114774, 200), 49.999999999999595),
        ((-20, 21.822435232780457, 200), 34.974555179137695),
    ],
)
def test_program_prints_what_was_published(
    program: Trebuchet, asked: tuple[float, float, float], distance: float
) -> None:
    """To the digits that its root finder, stopped at 1e-4 newtons, leaves."""
    assert program(*shot(*asked)).item() == pytest.approx(distance, rel=1e-11)


def test_program_has_the_published_gradient(program: Trebuchet) -> None:
    published = (4.047851617574818, -0.9290087918693077, 0.05797861905131786)
    assert gradient(program, 0, 45, 200) == pytest.approx(published, rel=1e-11)


def test_the_published_shot(exact: Trebuchet, program: Trebuchet) -> None:
    """fluxml.ai/2019/03/05/dp-vs-rl.html: 74.73 m and, its digits cut off, the gradient (4.02, -0.99, 0.051)."""
    assert program(*shot(*SHOT)).item() == pytest.approx(74.73, abs=0.005)
    by_wind, by_angle, by_weight = gradient(program, *SHOT)
    cut = (math.trunc(by_wind * 100) / 100, math.trunc(by_angle * 100) / 100, math.trunc(by_weight * 1000) / 1000)
    assert cut == (4.02, -0.99, 0.051)
    # The gradient of the discrete program is not that of the physics.
    assert exact(*shot(*SHOT)).item() == pytest.approx(74.3515, abs=1e-4)
    assert gradient(exact, *SHOT) == pytest.approx((4.012993, -1.002376, 0.067381), abs=2e-6)


# Against SciPy, see `problems.oracle`.


def drawn(task: Trebuchet, count: int) -> list[tuple[float, float, float]]:
    generator = torch.Generator().manual_seed(11)
    controls, conditions = task.box.sample(count, generator), task.conditions.sample(count, generator)
    return [(w, a / DEGREE, m) for (a, m), (w,) in zip(controls.tolist(), conditions.tolist(), strict=True)]


def batch(shots: list[tuple[float, float, float]]) -> tuple[Tensor, Tensor]:
    controls, conditions = zip(*(shot(*one) for one in shots), strict=True)
    return torch.stack(controls), torch.stack(conditions)


@pytest.mark.slow
def test_distance_against_dop853(exact: Trebuchet) -> None:
    """Within a millionth of the span."""
    shots = drawn(exact, 20)
    expected = torch.tensor([oracle(*one, INTERCHANGED) for one in shots], dtype=T)
    error = (exact(*batch(shots))[:, 0] - expected).abs()
    assert float(error.max()) < 1e-4
    assert float(error.median()) < 3e-5
    finer = (Trebuchet(steps=192)(*batch(shots))[:, 0] - expected).abs()
    assert float(finer.max()) < 1e-6


@pytest.mark.slow
def test_gradient_against_differences_of_dop853(exact: Trebuchet) -> None:
    shots = drawn(exact, 20)
    _, jacobian = Trebuchet(steps=192).linearise(*batch(shots))
    for row, (wind, angle, weight) in zip(jacobian[:, 0].tolist(), shots, strict=True):
        h, k = 0.01, 0.1
        by_angle = oracle(wind, angle + h, weight, INTERCHANGED) - oracle(wind, angle - h, weight, INTERCHANGED)
        by_weight = oracle(wind, angle, weight + k, INTERCHANGED) - oracle(wind, angle, weight - k, INTERCHANGED)
        assert row[0] == pytest.approx(by_angle / (2 * h * DEGREE), rel=2e-5, abs=1e-4)
        assert row[1] == pytest.approx(by_weight / (2 * k), rel=2e-5, abs=1e-6)


def test_own_inertias_against_dop853() -> None:
    task = Trebuchet(inertias="own")
    assert task(*shot(*SHOT)).item() == pytest.approx(oracle(*SHOT, OWN), abs=1e-4)
    assert task(*shot(*SHOT)).item() == pytest.approx(71.1229, abs=1e-4)


def test_fourth_order_by_regression() -> None:
    shots = batch([(-2.0, 45.0, 200.0), (0.0, 30.0, 100.0), (3.0, 60.0, 60.0)])
    finest, sizes = Trebuchet(steps=480)(*shots), [48, 72, 96, 144]
    errors = [float((Trebuchet(steps=steps)(*shots) - finest).abs().max()) for steps in sizes]
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(-4, abs=0.4)


# The program's derivative, and the derivative by the wind.


def test_gradient_of_the_program_is_that_of_its_steps(program: Trebuchet) -> None:
    """By central differences, where no event changes its step between the two."""
    controls, wind = batch([(-2.0, 45.0, 200.0), (0.0, 30.0, 400.0), (5.0, 60.0, 120.0), (-8.0, 20.0, 333.0)])
    _, jacobian = program.linearise(controls, wind)
    for column, step in enumerate((1e-6, 1e-4)):
        change = torch.zeros_like(controls)
        change[:, column] = step
        slope = (program(controls + change, wind) - program(controls - change, wind)) / (2 * step)
        torch.testing.assert_close(jacobian[:, :, column], slope, rtol=1e-6, atol=1e-6)
    value, by_autograd = linearise_by_autograd(program, controls, wind)
    torch.testing.assert_close(program(controls, wind), value, rtol=0, atol=0)
    torch.testing.assert_close(jacobian, by_autograd, rtol=1e-10, atol=1e-10)


def test_derivative_by_the_wind(exact: Trebuchet) -> None:
    by_wind, _, _ = gradient(exact, *SHOT)
    h = 1e-4
    ahead, behind = (exact(*shot(SHOT[0] + d, *SHOT[1:])).item() for d in (h, -h))
    assert by_wind == pytest.approx((ahead - behind) / (2 * h), rel=1e-6)


def test_program_and_physics_are_near_but_not_the_same(exact: Trebuchet, program: Trebuchet) -> None:
    shots = batch(drawn(exact, 200))
    gap = (exact(*shots) - program(*shots)).abs()
    assert 0.1 < float(gap.median()) < 2.0
    assert float(gap.max()) < 10.0


def test_a_program_row_is_its_own(program: Trebuchet) -> None:
    shots = batch(drawn(program, 50))
    together, slopes = program.linearise(*shots)
    for row in (0, 23, 49):
        alone = program.linearise(shots[0][row], shots[1][row])
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=0)
        torch.testing.assert_close(alone[1], slopes[row], rtol=0, atol=0)


# Paths, and what has no distance.


@pytest.mark.parametrize("integrator", ["exact", "euler60"])
@pytest.mark.parametrize("points", [2, 7, 80])
def test_path_from_rest_to_the_ground(integrator: str, points: int) -> None:
    task = Trebuchet(integrator=integrator)
    shots = batch(drawn(task, 10))
    path = task.trajectory(*shots, points)
    assert path.shape == (10, points, 2)
    torch.testing.assert_close(path[:, -1, :1], task(*shots), rtol=0, atol=1e-4)
    torch.testing.assert_close(path[:, -1, 1], torch.full((10,), -PIVOT_HEIGHT, dtype=T), rtol=0, atol=5e-4)
    # Cocked: the sling lies on the ground, under the machine.
    x = SLING - math.sqrt(LONG_ARM**2 - PIVOT_HEIGHT**2)
    torch.testing.assert_close(path[:, 0], torch.tensor([[x, -PIVOT_HEIGHT]], dtype=T).expand(10, 2))


@pytest.mark.parametrize("integrator", ["exact", "euler60"])
def test_what_never_happens_is_infinite_and_what_fails_is_not_a_number(integrator: str) -> None:
    """And neither changes a bit of the others."""
    task = Trebuchet(integrator=integrator)
    good = batch(drawn(task, 2))
    bad = batch([(0.0, 45.0, 10.0), (0.0, 45.0, -50.0), (0.0, -5.0, 200.0), (0.0, 45.0, math.nan), (math.nan, 45, 200)])
    controls, wind = (torch.cat([some[:1], others, some[1:]]) for some, others in zip(good, bad, strict=True))
    distance = task(controls, wind)[:, 0]
    assert distance[1:4].tolist() == [math.inf] * 3
    assert bool(distance[4:6].isnan().all())
    torch.testing.assert_close(distance[[0, -1]], task(*good)[:, 0], rtol=0, atol=0)


def test_the_sling_lifts_a_heavier_machine_sooner() -> None:
    """Distances grow with the weight, less and less: the limit is the machine's own swing."""
    task = Trebuchet()
    weights = torch.tensor([50.0, 100.0, 200.0, 400.0], dtype=T)
    controls = torch.stack([torch.full_like(weights, 30 * DEGREE), weights], dim=-1)
    steps = task(controls, torch.zeros(4, 1, dtype=T))[:, 0].diff()
    assert bool((steps > 0).all())
    assert bool((steps.diff() < 0).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Trebuchet(release_angle=[0.0, 1.0]), r"^release_angle: must lie within \(0, pi/2\)"),
        (lambda: Trebuchet(release_angle=[0.2, 1.6]), r"^release_angle: must lie within \(0, pi/2\)"),
        (lambda: Trebuchet(release_angle=[1.0, 0.5]), "^release_angle: the lower bound must be below"),
        (lambda: Trebuchet(weight=[0.0, 200.0]), "^weight: must be positive, got a lower bound of 0 lb"),
        (lambda: Trebuchet(weight=[10.0, 200.0]), "^weight: 10 lb do not throw"),
        (lambda: Trebuchet(wind=[1.0, -1.0]), "^wind: the lower bound must not exceed"),
        (lambda: Trebuchet(tolerance=0.0), "^tolerance: must be positive"),
        (lambda: Trebuchet(integrator="rk4"), "^integrator: must be one of exact, euler60, got 'rk4'"),
        (lambda: Trebuchet(inertias="swapped"), "^inertias: must be one of interchanged, own"),
        (lambda: Trebuchet(steps=11), "^steps: must be a whole number from 12 to"),
    ],
)
def test_values_out_of_range_are_named(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
