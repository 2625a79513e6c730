"""The integrator against closed forms, its own order, and oracles of tight tolerance."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from problems import dop853
from torch import Tensor
from torchdiffeq import odeint_event

from aimback.autodiff import ode
from aimback.autodiff.dual import seed
from aimback.core.errors import UserError
from aimback.tasks.cannon_drag import CannonDrag, time_to_ground

T = torch.float64


def oscillator(state: ode.State) -> ode.State:
    x, v = state
    return v, -x


def test_fourth_order_by_regression() -> None:
    errors, sizes = [], [8, 16, 32, 64, 128]
    for steps in sizes:
        times = ode.grade_times(torch.tensor([2.0], dtype=T), steps, torch.zeros(1, dtype=T))
        x, v = ode.integrate(oscillator, (torch.ones(1, dtype=T), torch.zeros(1, dtype=T)), times)
        errors.append(math.hypot(float(x) - math.cos(2.0), float(v) + math.sin(2.0)))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(-4, abs=0.1)


def test_one_step_is_differentiable_by_its_length() -> None:
    step = torch.tensor(0.3, dtype=T, requires_grad=True)
    one = torch.ones((), dtype=T)
    x, v = ode.step_rk4(oscillator, (one, 0 * one), step)
    (slope,) = torch.autograd.grad(x, step)
    assert float(slope) == pytest.approx(float(v.detach()), abs=1e-3)


@pytest.mark.parametrize("rate", [0.0, 0.5, 40.0])
def test_grid_is_graded(rate: float) -> None:
    duration = torch.tensor([2.0], dtype=T)
    times = torch.cat(list(ode.grade_times(duration, 10, torch.tensor([rate], dtype=T))))
    steps = times.diff()
    assert (float(times[0]), float(times[-1])) == (0, 2)
    if rate == 0:
        torch.testing.assert_close(steps, torch.full_like(steps, 0.2))
    else:
        assert bool((steps.diff() > 0).all())
        # Neither the first step outruns the decay nor the last one the settled motion.
        assert rate * float(steps[0]) < 1
        assert float(steps[-1]) < 4 * 0.2


@pytest.mark.parametrize("launch_height", [0.0, 2.0])
def test_landing_against_dop853(launch_height: float) -> None:
    task = CannonDrag(launch_height=launch_height)
    generator = torch.Generator().manual_seed(5)
    controls, conditions = task.box.sample(100, generator), task.conditions.sample(100, generator)
    expected = torch.tensor(
        [dop853(task, *row, *given)[0] for row, given in zip(controls.tolist(), conditions.tolist(), strict=True)]
    )
    error = (task(controls, conditions)[:, 0] - expected).abs() / 9.0
    assert float(error.median()) < 2e-8
    assert float(error.max()) < 2e-6


@pytest.mark.parametrize(("steps", "bound"), [(8, 2e-5), (16, 2e-6), (64, 5e-8)])
def test_more_steps_are_more_accurate(steps: int, bound: float) -> None:
    task = CannonDrag(steps=steps)
    controls = torch.tensor([[10.0, 0.3], [10.0, 0.8], [6.0, 1.2], [3.0, 1.5]], dtype=T)
    wind = torch.tensor([[-2.0], [0.0], [2.0], [1.0]], dtype=T)
    expected = [dop853(task, *row, *given)[0] for row, given in zip(controls.tolist(), wind.tolist(), strict=True)]
    assert float((task(controls, wind)[:, 0] - torch.tensor(expected)).abs().max()) / 9.0 < bound


@pytest.mark.parametrize(("drag", "steps"), [(0.5, 64), (5.0, 512)])
def test_strong_drag_stays_accurate(drag: float, steps: int) -> None:
    task = CannonDrag(speed=[0.0, 50.0], drag=drag, steps=steps)
    controls = torch.tensor([[50.0, 0.3], [50.0, 0.8], [30.0, 1.2]], dtype=T)
    wind = torch.tensor([[-2.0], [0.0], [2.0]], dtype=T)
    expected = [dop853(task, *row, *given)[0] for row, given in zip(controls.tolist(), wind.tolist(), strict=True)]
    torch.testing.assert_close(task(controls, wind)[:, 0], torch.tensor(expected, dtype=T), rtol=1e-4, atol=1e-6)


def test_too_few_steps_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="^steps: 4 Runge-Kutta steps cannot follow"):
        CannonDrag(speed=[0.0, 500.0], drag=50.0, steps=4)


def test_event_gradient_against_torchdiffeq() -> None:
    task = CannonDrag()
    wind = torch.tensor(1.0, dtype=T)
    controls = torch.tensor([8.0, 0.9], dtype=T, requires_grad=True)
    _, jacobian = task.linearise(controls.detach(), wind[None])

    class Flight(torch.nn.Module):
        def forward(self, _: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
            _, _, ahead, up = state.unbind()
            along = ahead - wind
            air = torch.sqrt(along**2 + up**2)
            return torch.stack([ahead, up, -task.drag * air * along, -task.gravity - task.drag * air * up])

    speed, angle = controls.unbind()
    nought = torch.zeros((), dtype=T)
    start = torch.stack([nought, nought + 1e-12, speed * torch.cos(angle), speed * torch.sin(angle)])
    # The event is the ground, met after the launch: it is told from the launch by the way down.
    _, states = odeint_event(
        Flight(), start, nought, event_fn=lambda _, s: torch.where(s[3] > 0, s[1] + 1, s[1]), rtol=1e-11, atol=1e-11
    )
    (gradient,) = torch.autograd.grad(states[-1, 0], controls)
    torch.testing.assert_close(jacobian[0], gradient, rtol=1e-6, atol=1e-6)


# torch.func's own decompositions are scripted on first use.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_event_gradient_by_the_implicit_function_formula() -> None:
    """dx/dp = x_p - (dx/dt / dy/dt) y_p at a landing time that is held fixed."""
    task = CannonDrag(steps=200)
    wind, point = torch.tensor([0.5], dtype=T), torch.tensor([7.0, 0.7], dtype=T)
    _, jacobian = task.linearise(point, wind)

    def state_at(time: torch.Tensor, controls: torch.Tensor) -> torch.Tensor:
        start, rate = task._launch(controls, wind[0])
        x, y, along, up = ode.integrate(task._derivative, start, ode.grade_times(time, 200, rate))
        return torch.stack([x + wind[0] * time, y, along + wind[0], up])

    landing = torch.tensor(dop853(task, *point.tolist(), *wind.tolist())[1], dtype=T)
    x, y, ahead, up = state_at(landing, point)
    assert abs(float(y)) < 1e-8
    sensitivity = torch.func.jacfwd(state_at, argnums=1)(landing, point)
    torch.testing.assert_close(jacobian[0], sensitivity[0] - (ahead / up) * sensitivity[1], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("cannon", "shot"),
    [
        ({"speed": [0, 50], "drag": 0.5, "launch_height": 50.0, "steps": 64}, (50.0, 0.0151, -1.414)),
        ({"speed": [0, 50], "drag": 0.5, "launch_height": 50.0, "steps": 64}, (30.0, 0.3, 1.0)),
        ({"speed": [0, 500], "steps": 256}, (426.8, 1.511, -2.0)),
        ({"speed": [0, 500], "drag": 5.0, "steps": 256}, (73.2, 0.349, 2.0)),
    ],
)
def test_a_landing_that_the_coarse_search_gets_wrong(cannon: dict[str, Any], shot: tuple[float, ...]) -> None:
    """In thick air the first guess is far off; a single closing step over the rest missed by up to 18 m."""
    task = CannonDrag(**cannon)
    point, wind = torch.tensor(shot[:2], dtype=T), torch.tensor(shot[2:], dtype=T)
    distance, jacobian = task.linearise(point, wind)
    assert float(distance) == pytest.approx(dop853(task, *shot)[0], abs=2e-4)
    around = [task(torch.tensor([shot[0], shot[1] + off], dtype=T), wind) for off in (-1e-6, 1e-6)]
    assert float(jacobian[0, 1]) == pytest.approx(float(around[1] - around[0]) / 2e-6, rel=2e-3, abs=1e-3)


def test_a_gap_of_no_height_needs_no_square_root() -> None:
    """At rest on the ground the launch is the landing, and 2 v / g is its slope."""
    nought = torch.zeros(1, dtype=T, requires_grad=True)
    time = time_to_ground((nought, torch.zeros(1), nought, nought), (nought, nought, nought, torch.full((1,), -10.0)))
    (slope,) = torch.autograd.grad(time.sum(), nought)
    assert time.item() == 0
    assert slope.item() == pytest.approx(0.2)


def test_an_event_that_never_comes_is_infinite() -> None:
    """A ball that rises for ever: the time to the ground keeps running away."""
    one = torch.ones(2, dtype=T)

    def ever_up(state: ode.State) -> ode.State:
        return one, one

    def chase(state: ode.State, rate: ode.State) -> torch.Tensor:
        return state[0] + 1

    end, time = ode.integrate_to_event(ever_up, (one, one), chase, one, steps=4, rate=0 * one)
    assert bool(torch.isinf(time).all())
    assert bool(torch.isinf(end[0]).all())


def test_samples_end_at_their_own_times_and_alone_as_in_company() -> None:
    task = CannonDrag()
    generator = torch.Generator().manual_seed(2)
    controls, conditions = task.box.sample(300, generator), task.conditions.sample(300, generator)
    together = task(controls, conditions)
    alone = torch.stack([task(row, given) for row, given in zip(controls[:25], conditions[:25], strict=True)])
    torch.testing.assert_close(together[:25], alone, rtol=0, atol=0)


def test_crossing_of_a_circle_and_its_derivative() -> None:
    """cos t falls to p at t = acos p, and dt/dp = -1 / sqrt(1 - p^2); below -1 never."""

    def motion(level: Tensor) -> tuple[ode.Derivative, ode.Measure]:
        return (lambda state: (-state[1], state[0])), (lambda state: state[0] - level)

    level = torch.tensor([-0.9, 0.0, 0.7, -2.0, math.nan], dtype=T)
    (variable,) = seed(level[:, None]).unbind(-1)
    start = (torch.ones(5, dtype=T), torch.zeros(5, dtype=T))
    _, time, missing = ode.integrate_to_crossing(motion, (variable,), start, steps=200, pace=0.3, horizon=20.0)
    torch.testing.assert_close(time.value[:3], torch.acos(level[:3]), rtol=1e-9, atol=0)
    torch.testing.assert_close(time.tangent[0, :3], -1 / torch.sqrt(1 - level[:3] ** 2), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        missing, torch.tensor([0, 0, 0, math.inf, math.nan], dtype=T), rtol=0, atol=0, equal_nan=True
    )
