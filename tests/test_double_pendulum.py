"""The double pendulum against its energy, its normal modes, SciPy's integrator, and its chaos."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from aimback.autodiff.ode import Grid, follow_steps
from aimback.core.errors import UserError
from aimback.tasks.double_pendulum import DoublePendulum
from aimback.tasks.laws import draw_inside

T = torch.float64
G = 9.80665
LENGTHS, MASSES = (1.3, 0.6), (0.5, 2.0)
CHAOTIC = 2 * math.pi / 3  # rad, of both rods


def follow(
    start: NDArray[np.float64], time: float, lengths: tuple[float, float], masses: tuple[float, float]
) -> NDArray[np.float64]:
    """The state `(angle1, angle2, rate1, rate2)` after a while: the mass matrix solved for, to 1e-12."""
    (above, below), (first, second) = lengths, masses

    def rate(_: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
        a, b, u, v = state
        coupling = second * above * below * np.cos(a - b)
        inertia = np.array([[(first + second) * above**2, coupling], [coupling, second * below**2]])
        turning = second * above * below * np.sin(a - b)
        torque = [
            -turning * v**2 - (first + second) * G * above * np.sin(a),
            turning * u**2 - second * G * below * np.sin(b),
        ]
        return np.concatenate([[u, v], np.linalg.solve(inertia, torque)])

    reached: NDArray[np.float64] = solve_ivp(rate, (0, time), start, "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    return reached


def test_a_tight_reference_is_met_in_the_fourth_order() -> None:
    task = DoublePendulum((-1.0, 1.0), (-1.0, 1.0), LENGTHS, MASSES)
    controls, none = draw_inside(task, 6)
    angles = np.array([follow(np.array([a, b, 0, 0]), task.horizon, LENGTHS, MASSES)[:2] for a, b in controls.tolist()])
    expected = torch.from_numpy(np.stack([np.sin(angles) @ LENGTHS, -np.cos(angles) @ LENGTHS], axis=1))
    errors = [(task.finer(factor)(controls, none) - expected).abs().amax(1) for factor in (2, 4, 8)]
    assert float(errors[2].max()) < 1e-9
    assert 3.5 < float((errors[0] / errors[1]).log2().median()) < 4.5


@pytest.mark.parametrize("sign", [1, -1])
def test_small_swings_are_the_normal_modes(sign: int) -> None:
    """With equal rods and masses b = sign sqrt(2) a, and omega^2 = g / l (2 - sign sqrt(2))."""
    length, angle = 0.7, 1e-4
    task = DoublePendulum(lengths=(length, length), horizon=3.0)
    controls = torch.tensor([angle, sign * math.sqrt(2) * angle], dtype=T)
    swing = math.cos(3.0 * math.sqrt(G / length * (2 - sign * math.sqrt(2))))
    x, y = task(controls, controls[:0]).tolist()
    assert x == pytest.approx(length * angle * (1 + sign * math.sqrt(2)) * swing, abs=1e-5 * angle)
    assert y == pytest.approx(-2 * length, abs=10 * angle**2)


def test_energy_is_kept() -> None:
    """In the order of the steps at least."""
    task = DoublePendulum(lengths=LENGTHS, masses=MASSES, horizon=2.0)
    (above, below), (first, second) = LENGTHS, MASSES
    controls, _ = draw_inside(task, 20)
    start = (*controls.unbind(-1), torch.zeros(20, dtype=T), torch.zeros(20, dtype=T))
    drifts = []
    for steps in (2000, 4000):
        energies = []
        for a, b, u, v in follow_steps(task.accelerate, start, Grid(steps, start[2] + task.horizon)):
            moving = (first + second) * (above * u) ** 2 / 2 + second * (below * v) ** 2 / 2
            moving = moving + second * above * below * u * v * torch.cos(a - b)
            energies.append(moving - G * ((first + second) * above * torch.cos(a) + second * below * torch.cos(b)))
        drifts.append((torch.stack(energies) - energies[0]).abs().amax())
    assert float(drifts[1]) < 1e-6
    assert float((drifts[0] / drifts[1]).log2()) > 3.5


def test_derivatives_grow_as_neighbours_part() -> None:
    """The greatest singular value, by the second: the Lyapunov exponent that Benettin's method finds with SciPy."""
    near = torch.rand(32, 2, generator=torch.Generator().manual_seed(0), dtype=T) / 50 + CHAOTIC
    means = []
    for horizon in (8.0, 20.0):
        _, jacobian = DoublePendulum(horizon=horizon).linearise(near, near[:, :0])
        means.append(float(torch.linalg.svdvals(jacobian)[:, 0].log().mean()))
    grown, apart, seconds = 0.0, 1e-7, 60
    state = np.array([CHAOTIC, CHAOTIC, 0, 0])
    other = np.array([CHAOTIC + apart, CHAOTIC, 0, 0])
    for _ in range(seconds):
        state, other = (follow(each, 1.0, (1, 1), (1, 1)) for each in (state, other))
        distance = float(np.linalg.norm(other - state))
        grown += math.log(distance / apart)
        other = state + (other - state) * (apart / distance)
    assert (means[1] - means[0]) / 12 == pytest.approx(grown / seconds, rel=0.2)
    assert 0.3 < grown / seconds / math.sqrt(G) < 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DoublePendulum(lengths=(1.0,)), "^lengths: give two"),
        (lambda: DoublePendulum(masses=(1.0, 0.0)), "^masses: must be positive"),
        (lambda: DoublePendulum(horizon=-1.0), "^horizon: must be positive"),
        (lambda: DoublePendulum(horizon=20.0, time_step=1e-6), "^steps: must be a whole number from 1 to 1,000,000"),
    ],
)
def test_values_out_of_range_are_named(make: Callable[[], DoublePendulum], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
