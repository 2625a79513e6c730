"""The tasks of the published benchmarks against their published numbers, closed forms and SciPy."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from torch import Tensor

from aimback.autodiff.any_torch import linearise_by_autograd
from aimback.core.errors import UserError
from aimback.tasks.ballistics import Ballistics
from aimback.tasks.linear_drag import landing_time, never_lands
from aimback.tasks.robotic_arm import RoboticArm
from aimback.tasks.sine_wave import SineWave

T = torch.float64
M, K, G = 0.2, 0.25, 9.81
SHOT = torch.tensor([0.0, 1.5, math.pi / 4, 15.0], dtype=T)


def none(points: Tensor) -> Tensor:
    """The conditions of a task without any."""
    return points.new_zeros(*points.shape[:-1], 0)


def draw(count: int, seed: int = 0) -> Tensor:
    return Ballistics().draw_controls(count, torch.Generator().manual_seed(seed))


def x_of(shot: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kruse et al. (2021), `(rows, times)`."""
    x0, _, angle, speed = shot.T[:, :, None]
    return np.asarray(x0 - speed * np.cos(angle) * M / K * (np.exp(-K * t / M) - 1))


def y_of(shot: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    _, y0, angle, speed = shot.T[:, :, None]
    decay = np.exp(-K * t / M) - 1
    return np.asarray(y0 - M / K**2 * ((G * M + speed * np.sin(angle) * K) * decay + G * t * K))


# Ballistics


def test_ballistics_gives_the_published_shot() -> None:
    outcome, jacobian = Ballistics().linearise(SHOT, none(SHOT))
    assert outcome.item() == pytest.approx(7.692679, abs=5e-7)
    assert jacobian[0].tolist() == pytest.approx([1.0, 0.161778, -6.448176, 0.595812], abs=5e-7)
    assert Ballistics(readout="grid")(SHOT, none(SHOT)).item() == pytest.approx(7.689352, abs=5e-7)


def test_ballistics_lands_where_a_bracketed_root_lies() -> None:
    shots = draw(200)
    expected = []
    for shot in shots.numpy():
        rise = shot[3] * math.sin(shot[2])
        apex = M / K * math.log1p(rise * K / (M * G))
        time = brentq(lambda t, shot=shot: y_of(shot[None], np.array([t]))[0, 0], apex, 50.0, xtol=1e-15, rtol=1e-15)
        expected.append(x_of(shot[None], np.array([time]))[0, 0])
    torch.testing.assert_close(
        Ballistics()(shots, none(shots))[:, 0], torch.tensor(expected, dtype=T), rtol=1e-12, atol=1e-12
    )


def test_ballistics_is_the_parabola_where_the_drag_is_small() -> None:
    shots = Ballistics().box.sample(100, torch.Generator().manual_seed(0))
    x0, y0, angle, speed = shots.unbind(-1)
    rise = speed * torch.sin(angle)
    parabola = x0 + speed * torch.cos(angle) * (rise + torch.sqrt(rise**2 + 2 * G * y0)) / G
    gaps = [parabola - Ballistics(drag=drag)(shots, none(shots))[:, 0] for drag in (2e-4, 2e-5)]
    torch.testing.assert_close(gaps[0] / gaps[1], torch.full_like(parabola, 10.0), rtol=1e-2, atol=0)


def test_ballistics_is_finite_over_its_prior_and_beyond() -> None:
    """Set down on the ground, dropped, thrown at any speed that Poisson may draw."""
    speeds = torch.tensor([0.0, 1e-9, 1.0, 15.0, 40.0], dtype=T)
    heights = torch.tensor([0.0, 1e-12, 1e-3, 1.5, 4.0], dtype=T)
    angles = torch.deg2rad(torch.tensor([9.0, 45.0, 81.0], dtype=T))
    shots = torch.cartesian_prod(torch.zeros(1, dtype=T), heights, angles, speeds)
    for points in (torch.cat([draw(10_000), shots]), shots.float()):
        outcome, jacobian = Ballistics().linearise(points, none(points))
        assert bool(torch.isfinite(outcome).all())
        assert bool(torch.isfinite(jacobian).all())
        _, gradient = linearise_by_autograd(Ballistics(), points, none(points))
        assert bool(torch.isfinite(gradient).all())


def test_a_ball_at_rest_on_the_ground_stays_there() -> None:
    rest = torch.tensor([0.3, 0.0, 0.7, 0.0], dtype=T)
    outcome, jacobian = Ballistics().linearise(rest, none(rest))
    assert outcome.tolist() == [0.3]
    assert jacobian[0].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert Ballistics(readout="grid")(rest, none(rest)).tolist() == [0.3]


def test_a_landing_that_never_comes_is_infinite_and_has_no_slope() -> None:
    shots = torch.tensor([[0.0, -1.0, 0.5, 5.0], [0.0, -0.1, -0.5, 15.0]], dtype=T)
    for task in (Ballistics(), Ballistics(readout="grid")):
        assert bool(torch.isposinf(task(shots, none(shots))).all())
    for jacobian in (
        Ballistics().linearise(shots, none(shots))[1],
        linearise_by_autograd(Ballistics(), shots, none(shots))[1],
    ):
        assert bool((jacobian == 0).all())
    assert bool(torch.isnan(Ballistics().trajectory(shots, none(shots), 3)).all())


def test_a_nan_is_a_nan_and_no_missing_landing() -> None:
    for column in range(4):
        shot = SHOT.clone()
        shot[column] = math.nan
        for task in (Ballistics(), Ballistics(readout="grid")):
            assert bool(torch.isnan(task(shot, none(shot))).all())


def test_landing_from_below_the_ground_and_from_steep_dives() -> None:
    """A height under 0 is met falling when the apex is over it; a dive may pass the terminal speed."""
    generator = torch.Generator().manual_seed(0)
    height = 4 * torch.rand(5000, generator=generator, dtype=T) - 1
    rise = 12 * torch.rand(5000, generator=generator, dtype=T) - 6
    time, never = landing_time(height, rise), never_lands(height, rise)
    start = torch.where(rise > 0, torch.log1p(rise.clamp(min=0)), 0.0)
    assert bool((time >= start)[~never].all())
    y = height - rise * torch.expm1(-time) - (time + torch.expm1(-time))
    assert float(y[~never].abs().max()) < 1e-11
    peak = height - rise * torch.expm1(-start) - (start + torch.expm1(-start))
    assert bool((never == (peak < 0)).all())
    assert 0.1 < float(never.double().mean()) < 0.5


@pytest.mark.parametrize("gravity", [G, 2.0])
def test_grid_is_the_published_scoring(gravity: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By brute force over all 1500 times; where little pulls it down a ball flies on for more than 6 s now and then."""
    monkeypatch.setitem(globals(), "G", gravity)
    shots, t = draw(10_000), np.linspace(0, 6, 1500)
    expected = []
    for part in shots.numpy().reshape(10, -1, 4):
        x, y = x_of(part, t), y_of(part, t)
        after = np.arange(1500) >= y.argmax(axis=1)[:, None]
        crossing = after[:, :-1] & (y[:, :-1] >= 0) & (y[:, 1:] < 0)
        assert crossing.sum(axis=1).max() == 1
        expected += [*np.where(crossing.any(axis=1), x[np.arange(len(x)), crossing.argmax(axis=1)], np.inf)]
    found = Ballistics(readout="grid", gravity=gravity)(shots, none(shots))[:, 0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=T), rtol=1e-12, atol=1e-12)
    assert bool(torch.isinf(found).any()) == (gravity == 2.0)


def test_grid_is_linearised_at_the_exact_landing() -> None:
    shots = draw(100)
    grid, exact = (Ballistics(readout=readout).linearise(shots, none(shots)) for readout in ("grid", "exact"))
    for ours, theirs in zip(grid, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    short = exact[0] - Ballistics(readout="grid")(shots, none(shots))
    assert bool((short >= 0).all())
    assert bool((short[:, 0] <= shots[:, 3] * 6 / 1499).all())
    assert float(short.max()) > 0.01


def test_ballistics_draws_the_published_prior() -> None:
    count = 40_000
    for deviation, points in (
        (0.5, draw(count)),
        (0.25, Ballistics().draw_starts(count, torch.Generator().manual_seed(1))),
    ):
        x0, y0, angle, speed = points.unbind(-1)
        assert float(x0.mean()) == pytest.approx(0, abs=5 * deviation / count**0.5)
        assert float(x0.std()) == pytest.approx(deviation, rel=0.02)
        assert float(y0.median()) == pytest.approx(1.5, abs=0.02)
        assert float(y0.std()) == pytest.approx(deviation, rel=0.02)
        assert float(y0.min()) >= 0
        low, high = math.radians(9), math.radians(81)
        assert low <= float(angle.min()) < low + 0.001
        assert high - 0.001 < float(angle.max()) <= high
        assert float(angle.std()) == pytest.approx((high - low) / math.sqrt(12), rel=0.02)
        assert float(speed.mean()) == pytest.approx(15, abs=0.1)
        assert float(speed.var()) == pytest.approx(15, rel=0.05)
        assert bool((speed == speed.round()).all())


def test_ballistics_reaches_as_far_as_an_optimiser_finds() -> None:
    task = Ballistics()
    bounds = [(axis.lower, axis.upper) for axis in task.box.axes]
    for sign, end in ((1.0, task.outcomes.axes[0].lower), (-1.0, task.outcomes.axes[0].upper)):
        found = min(
            minimize(
                lambda x, sign=sign: sign * float(task(torch.tensor(x), torch.zeros(0, dtype=T))), start, bounds=bounds
            ).fun
            for start in task.box.sample(10, torch.Generator().manual_seed(0)).numpy()
        )
        assert sign * found == pytest.approx(end, abs=1e-6)


# Sine wave


def test_sine_wave_by_hand() -> None:
    points = torch.tensor([[0.0, 0.0], [1 / 6, 0.0], [-1 / 6, 1 / 3], [0.5, 1 / 6]], dtype=T)
    assert SineWave()(points, none(points))[:, 0].tolist() == pytest.approx([1.0, 2.0, -2.0, -1.0], abs=1e-12)
    jacobian = SineWave().linearise(points[0], none(points[0]))[1]
    assert jacobian[0].tolist() == pytest.approx([3 * math.pi, 0.0])


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.02, 0.1), (0.1, 0.3), (-0.3, -0.2), (0.3, 0.7), (5.05, 5.2)])
def test_sine_wave_reaches_what_a_fine_grid_finds(bounds: tuple[float, float]) -> None:
    task = SineWave(x1=bounds, x2=bounds)
    line = torch.linspace(*bounds, 2001, dtype=T)
    height = task(torch.cartesian_prod(line, line), torch.zeros(2001**2, 0, dtype=T))
    assert task.outcomes.axes[0].lower == pytest.approx(float(height.min()), abs=1e-4)
    assert task.outcomes.axes[0].upper == pytest.approx(float(height.max()), abs=1e-4)


def test_sine_wave_pairs_few_coordinates_as_published() -> None:
    points = SineWave().draw_controls(10_000, torch.Generator().manual_seed(0))
    assert [len(column.unique()) for column in points.T] == [100, 100]
    assert len(points.unique(dim=0)) == 10_000
    assert bool((points[1:] != points[:-1]).double().mean() > 0.9)  # not row by row
    fewer = SineWave().draw_controls(9_900, torch.Generator().manual_seed(0))
    torch.testing.assert_close(fewer, points[:9_900], rtol=0, atol=0)


# Robotic arm


def test_arm_gives_the_published_tip() -> None:
    pose = torch.tensor([-0.230110, 1.136677, 0.0835325, -0.9034681], dtype=T)
    tip = RoboticArm()(pose, none(pose))
    assert tip.tolist() == pytest.approx([-0.0674154, -1.0619965], abs=2e-6)


def test_conventions_by_hand() -> None:
    """Joints at right angles: ren2020 turns (pi/2, 0, 0) into 90, -90, -90 degrees, kruse2021 into 90 thrice."""
    pose = torch.tensor([0.25, math.pi / 2, 0.0, 0.0], dtype=T)
    assert RoboticArm()(pose, none(pose)).tolist() == pytest.approx([0.0, 0.25 + 0.5 - 0.5 - 1.0])
    assert RoboticArm(convention="kruse2021")(pose, none(pose)).tolist() == pytest.approx([0.0, 2.25])
    bent = torch.tensor([0.0, 0.0, math.pi / 2, math.pi / 2], dtype=T)
    assert RoboticArm()(bent, none(bent)).tolist() == pytest.approx([1.5, 0.5])
    assert RoboticArm(convention="kruse2021")(bent, none(bent)).tolist() == pytest.approx([-0.5, 0.5])


@pytest.mark.parametrize("convention", ["ren2020", "kruse2021"])
def test_arm_reaches_as_far_as_an_optimiser_finds(convention: str) -> None:
    task = RoboticArm(convention=convention)
    bounds = [(axis.lower, axis.upper) for axis in task.box.axes]
    for component, axis in enumerate(task.outcomes.axes):
        for sign, end in ((1.0, axis.lower), (-1.0, axis.upper)):
            found = min(
                minimize(
                    lambda x, sign=sign, part=component: (
                        sign * float(task(torch.tensor(x), torch.zeros(0, dtype=T))[part])
                    ),
                    start,
                    bounds=bounds,
                ).fun
                for start in task.box.sample(12, torch.Generator().manual_seed(0)).numpy()
            )
            assert sign * found == pytest.approx(end, abs=1e-6)


def test_arm_is_drawn_from_base_to_tip_through_its_joints() -> None:
    task = RoboticArm(convention="kruse2021")
    pose = torch.tensor([[0.1, 0.3, -0.4, 0.5]], dtype=T)
    path = task.trajectory(pose, none(pose), 5)[0]
    directions = torch.tensor([0.3, -0.1, 0.4], dtype=T)
    links = torch.tensor([0.5, 0.5, 1.0], dtype=T)[:, None] * torch.stack([directions.cos(), directions.sin()], dim=-1)
    joints = torch.tensor([0.0, 0.1], dtype=T) + torch.cat([torch.zeros(1, 2, dtype=T), links.cumsum(0)])
    torch.testing.assert_close(path[[0, 1, 2, 4]], joints)
    torch.testing.assert_close(path[3], (joints[2] + joints[3]) / 2)


@pytest.mark.parametrize("kind", ["draw_controls", "draw_starts"])
def test_arm_draws_the_published_prior(kind: str) -> None:
    points = getattr(RoboticArm(), kind)(40_000, torch.Generator().manual_seed(0))
    assert points.mean(0).tolist() == pytest.approx([0.0] * 4, abs=0.0125)
    assert points.var(0).tolist() == pytest.approx([1 / 16, 1 / 4, 1 / 4, 1 / 4], rel=0.04)
    assert float(points.T.corrcoef().fill_diagonal_(0).abs().max()) < 0.025


def test_an_exact_impact_scores_the_floor_on_the_grid() -> None:
    """The mean square of what the published readout leaves out of the flight, over the task's own prior: about the
    2e-5 that the results page explains."""
    controls = Ballistics().draw_controls(20_000, torch.Generator().manual_seed(0))
    conditions = controls.new_zeros(len(controls), 0)
    lost = Ballistics(readout="exact")(controls, conditions) - Ballistics(readout="grid")(controls, conditions)
    assert float(lost.square().mean()) == pytest.approx(2e-5, rel=0.1)


# What constructors refuse


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ballistics(y0=[-0.1, 1.0]), "^y0: must not be negative, got a lower bound of -0.1 m"),
        (lambda: Ballistics(speed=[-1.0, 1.0]), "^speed: must not be negative"),
        (lambda: Ballistics(angle=[0.0, 1.0]), r"^angle: must lie within \(0, pi/2\]"),
        (lambda: Ballistics(angle=[0.1, 1.6]), r"^angle: must lie within \(0, pi/2\]"),
        (lambda: Ballistics(x0=[1.0, -1.0]), "^x0: the lower bound must be below"),
        (lambda: Ballistics(drag=0.0), "^drag: must be positive and finite, got 0"),
        (lambda: Ballistics(mass=-1.0), "^mass: must be positive"),
        (lambda: Ballistics(gravity=math.inf), "^gravity: must be positive"),
        (lambda: Ballistics(tolerance=math.nan), "^tolerance: must be positive"),
        (lambda: Ballistics(readout="table"), "^readout: must be 'exact' or 'grid', got 'table'"),
        (lambda: SineWave(x1=[1.0, 1.0]), "^x1: the lower bound must be below"),
        (lambda: SineWave(tolerance=0.0), "^tolerance: must be positive"),
        (lambda: RoboticArm(lengths=[1.0, 1.0]), r"^lengths: give three, got \[1.0, 1.0\]"),
        (lambda: RoboticArm(lengths=[1.0, 1.0, 0.0]), "^lengths: must be positive"),
        (lambda: RoboticArm(convention="mine"), "^convention: must be 'ren2020' or 'kruse2021', got 'mine'"),
        (lambda: RoboticArm(angle2=[0.0]), r"^angle2: give \[lower, upper\]"),
    ],
)
def test_values_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
