"""The tasks with contact, against events one after the other and against the analytic optimum."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from mpmath import mp
from scipy.optimize import minimize_scalar
from torch import Tensor

from aimback.compile.compiler import Compiler
from aimback.compile.cpu import Cpu
from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.ball_ground_wall import BallGroundWall
from aimback.tasks.base import Task
from aimback.tasks.laws import draw_inside
from aimback.tasks.two_balls import TwoBalls

T = torch.float64


def differentiate(function: Callable[..., Sequence[mp.mpf]], at: Sequence[float]) -> Tensor:
    """The Jacobian by central differences of forty digits, which leaves twenty of them right."""
    step = mp.mpf(10) ** -10
    columns = []
    for index in range(len(at)):
        ends = []
        for sign in (1, -1):
            moved = [mp.mpf(part) for part in at]
            moved[index] += sign * step
            ends.append(function(*moved))
        columns.append([float((there - here) / (2 * step)) for there, here in zip(*ends, strict=True)])
    return torch.tensor(columns, dtype=T).T


def compare(task: Task, function: Callable[..., Sequence[mp.mpf]], controls: Tensor) -> None:
    """Value and gradient of each row to 1e-9 of forty-digit arithmetic."""
    outcomes, jacobians = task.linearise(controls, controls[:, :0])
    with mp.workdps(40):
        for row, outcome, jacobian in zip(controls.tolist(), outcomes, jacobians, strict=True):
            expected = torch.tensor([float(part) for part in function(*map(mp.mpf, row))], dtype=T)
            torch.testing.assert_close(outcome, expected, rtol=0, atol=1e-10)
            torch.testing.assert_close(jacobian, differentiate(function, row), rtol=1e-9, atol=1e-9)


# ---- ball_ground_wall


def bounce(task: BallGroundWall, forward: mp.mpf, rise: mp.mpf) -> list[mp.mpf]:
    """Impact after impact, in the order in which they come."""
    x, y, left = mp.mpf(task.x), mp.mpf(task.y) - task.radius, mp.mpf(task.duration)
    gravity, share = mp.mpf(task.gravity), mp.mpf(task.elasticity)
    wall = mp.mpf(task.wall) - task.radius
    while True:
        ground = (rise + mp.sqrt(rise**2 + 2 * gravity * y)) / gravity
        side = (wall - x) / forward if forward > 0 else mp.inf
        time = min(ground, side, left)
        x, y, rise = x + forward * time, y + rise * time - gravity * time**2 / 2, rise - gravity * time
        left -= time
        if left <= 0:
            return [x, y + task.radius]
        if time == ground:
            y, rise = mp.mpf(0), -share * rise
        else:
            forward = -share * forward


@pytest.mark.parametrize("changed", [{}, {"duration": 3.0, "elasticity": 0.8}])
def test_impacts_one_after_the_other_end_in_the_same_place_with_the_same_gradient(changed: dict[str, float]) -> None:
    """With the published numbers one bounce off the ground at most, and half a dozen in the long run."""
    task = BallGroundWall(**changed)
    controls, _ = draw_inside(task, 40)
    compare(task, lambda *throw: bounce(task, *throw), controls)


def test_a_ball_that_has_bounced_without_end_lies_on_the_ground() -> None:
    """The bounces last 2 v e / (g (1 - e)) in all, and the first fall v / g."""
    task = BallGroundWall(elasticity=0.5, position=[0.0, 1.1])
    speed = math.sqrt(2 * task.gravity)
    task.duration = (speed + 2 * speed) / task.gravity + 1e-9
    outcome, jacobian = task.linearise(torch.zeros(2, dtype=T), torch.zeros(0, dtype=T))
    assert outcome[1].item() == 0.1
    assert jacobian[1].tolist() == [0, 0]


def test_the_published_first_throw_ends_off_the_wall() -> None:
    """By hand: 2.15 m to the wall at 5 m/s, and back at 4.6 m/s; the ground is hit at 5 m/s and what 0.9 m add."""
    outcome = BallGroundWall()(torch.tensor([5.0, -5.0], dtype=T), torch.zeros(0, dtype=T))
    impact = math.sqrt(25 + 2 * 9.8 * 0.9)
    since = 0.6 - (impact - 5) / 9.8
    expected = [1.65 - 4.6 * (0.6 - 0.43), 0.1 + 0.92 * impact * since - 4.9 * since**2]
    assert outcome.tolist() == pytest.approx(expected, abs=1e-12)


def test_the_published_target_is_hit_both_ways() -> None:
    """Off the wall the ball has to fly 2.15 m and 3.65 / 0.92 m in 0.6 s, and away from it 1.5 m."""
    task = BallGroundWall()
    answers = minimise(task, torch.tensor([-2.0, 1.5], dtype=T), torch.tensor([[5.0, -5.0], [-1.0, -5.0]], dtype=T))
    assert answers[:, 0].tolist() == pytest.approx([(2.15 + 3.65 / 0.92) / 0.6, -2.5], abs=1e-9)
    outcome = task(answers, answers[:, :0])
    torch.testing.assert_close(outcome, torch.tensor([[-2.0, 1.5]], dtype=T).expand(2, 2), rtol=0, atol=1e-9)


# ---- two_balls


def strike(task: TwoBalls, *forces: mp.mpf) -> list[mp.mpf]:
    """The contact as the least real root of the polynomial of the squared distance of the centres."""
    duration = mp.mpf(task.duration)
    squared = [mp.mpf(0)] * 7
    paths = []
    for start, other, first, last in zip(task.pushed, task.struck, forces[:2], forces[2:], strict=True):
        slope = (last - first) / duration
        path = [mp.mpf(start) - other, mp.mpf(0), first / 2, slope / 6]
        paths.append((path, slope))
        for i, a in enumerate(path):
            for j, b in enumerate(path):
                squared[i + j] += a * b
    squared[0] -= (2 * mp.mpf(task.radius)) ** 2
    # The least root in double precision, and its digits by Newton's method.
    roots = np.roots([float(part) for part in squared[::-1]])
    times = [root.real for root in roots if abs(root.imag) < 1e-9 and 0 < root.real < duration]
    contact = mp.findroot(lambda time: mp.polyval(squared[::-1], time), min(times), tol=1e-70) if times else None
    end = duration if contact is None else contact
    places = [mp.mpf(part) for part in task.struck]
    if contact is not None:
        normal = [-sum(c * contact**k for k, c in enumerate(path)) / (2 * mp.mpf(task.radius)) for path, _ in paths]
        velocity = [2 * path[2] * contact + slope * contact**2 / 2 for path, slope in paths]
        impulse = (1 + mp.mpf(task.elasticity)) / 2 * sum(v * n for v, n in zip(velocity, normal, strict=True))
        places = [place + impulse * n * (duration - contact) for place, n in zip(places, normal, strict=True)]
    efforts = []
    for sign in (-1, 1):
        time = end * (1 + sign / mp.sqrt(3)) / 2
        for (_, slope), first in zip(paths, forces[:2], strict=True):
            efforts.append(mp.sqrt(mp.mpf(task.effort) * end / 2) * (first + slope * time))
    return [*places, *efforts]


@pytest.mark.parametrize("elasticity", [1.0, 0.4])
def test_the_contact_is_the_root_of_the_polynomial_and_has_its_gradient(elasticity: float) -> None:
    """Oblique contacts among them, and balls that pass by."""
    task = TwoBalls(elasticity=elasticity)
    controls, none = draw_inside(task, 60)
    struck = task(controls, none)[:, 0] != -1
    assert 10 < int(struck.sum()) < 50
    compare(task, lambda *forces: strike(task, *forces), controls)


def test_the_squared_outcome_is_the_published_loss() -> None:
    """The integral of the squared force up to the contact, by adding up thin slices."""
    task = TwoBalls()
    forces = torch.tensor([3.0, 3.0, 2.0, 2.0], dtype=T)
    outcome = task(forces, forces[:0])
    _, contact = task._strike(*forces)
    slices = torch.linspace(0, float(contact), 200_001, dtype=T)
    squared = 2 * (3.0 - slices) ** 2
    expected = outcome[:2].square().sum() + 0.1 * torch.trapezoid(squared, slices)
    assert outcome.square().sum().item() == pytest.approx(expected.item(), rel=1e-9)


def analytic_loss(contact: float, effort: float = 0.1) -> float:
    """The least loss of a contact at a time and the best velocity there, as the published analysis has it."""
    way = 1 - 0.4 / math.sqrt(2)
    a = 8 * effort / contact + 2 * (1 - contact) ** 2
    b = -(4 * (1 - contact) + 24 * effort * way / contact**2)
    return 2 + 24 * effort * way**2 / contact**3 - b * b / (4 * a)


def minimise(task: Task, target: Tensor, starts: Tensor) -> Tensor:
    """The answer of Levenberg-Marquardt from each start alone."""
    count = len(starts)
    problem = InverseProblem(
        target.expand(count, -1), target.new_zeros(count, 0), task.box, task.distance, task.box.to_unit(starts)[:, None]
    )
    solver = LevenbergMarquardt(max_steps=200)
    return solve(task, problem, solver, torch.Generator().manual_seed(0)).controls[:, 0]


def test_the_analytic_optimum_is_reached() -> None:
    """From the published start, and from others that strike the ball."""
    task = TwoBalls()
    starts = torch.tensor([[3.0, 3.0, 3.0, 3.0], [5.0, 4.8, 1.0, 1.0], [2.5, 2.6, 3.0, 3.0]], dtype=T)
    answers = minimise(task, torch.zeros(6, dtype=T), starts)
    losses = task(answers, answers[:, :0]).square().sum(-1)
    optimum = minimize_scalar(analytic_loss, bounds=(0.1, 0.99), method="bounded", options={"xatol": 1e-12}).fun
    assert losses.tolist() == pytest.approx([optimum] * 3, abs=1e-9)
    assert optimum == pytest.approx(1.396542, abs=1e-6)


def test_the_published_pieces_of_constant_force_cost_little_more() -> None:
    """Of 480 pieces, the last one cut at the contact: the least effort that brings the ball there as fast."""
    task = TwoBalls()
    answer = minimise(task, torch.zeros(6, dtype=T), torch.full((1, 4), 3.0, dtype=T))[0]
    contact = float(task._strike(*answer)[1])
    ends = np.minimum(np.arange(481) / 480, contact)
    length, middle = np.diff(ends), (ends[1:] + ends[:-1]) / 2
    moments = np.stack([np.ones(480), contact - middle])
    by_pieces = (moments * length) @ moments.T
    exactly = np.array([[contact, contact**2 / 2], [contact**2 / 2, contact**3 / 3]])
    more = 0.0
    for first, last in zip(answer[:2].tolist(), answer[2:].tolist(), strict=True):
        slope = last - first
        reached = [first * contact + slope * contact**2 / 2, first * contact**2 / 2 + slope * contact**3 / 6]
        more += task.effort * (reached @ (np.linalg.inv(by_pieces) - np.linalg.inv(exactly)) @ reached)
    assert more == pytest.approx(7.02e-7, rel=1e-2)


def test_a_compiled_solve_finds_the_same_answers(tmp_path: Path) -> None:
    """With more outcomes than controls, and no conditions."""
    task = TwoBalls()
    controls, none = draw_inside(task, 3)
    targets, starts = task(controls, none), torch.full((3, 1, 4), 0.5, dtype=T)
    problem = InverseProblem(targets, none, task.box, task.distance, starts)
    solver, generator = LevenbergMarquardt(), torch.Generator()
    expected = solve(task, problem, solver, generator)
    solution = solve(task, problem, solver, generator, compiler=Compiler(tmp_path, "two_balls", Cpu(optimise=False)))
    assert torch.equal(solution.start_status, expected.start_status)
    torch.testing.assert_close(solution.controls, expected.controls, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BallGroundWall(elasticity=1.0), "^elasticity: must be a finite number above 0 and below 1"),
        (lambda: BallGroundWall(position=[1.7, 1.0]), "^position: must be clear of the ground and of the wall"),
        (lambda: BallGroundWall(position=[1.0]), r"^position: give \[x, y\]"),
        (lambda: TwoBalls(force=[0.0, 6.0]), "^force: must be a finite number above 0"),
        (lambda: TwoBalls(struck=[-2.0, -1.7]), "^struck: the balls must not touch"),
        (lambda: TwoBalls(elasticity=1.1), "^elasticity: must be at most 1"),
        (lambda: TwoBalls(pushed=[math.nan, 0.0]), "^pushed: must be a finite number"),
    ],
)
def test_values_out_of_range_are_named(make: Callable[[], Task], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
