"""The tasks that are made for the direct route to lose, against their closed forms."""

import math

import pytest
import torch
from made_up import published_bounce
from torch import Tensor

from aimback.autodiff.any_torch import linearise_by_autograd
from aimback.core.errors import UserError
from aimback.tasks.ball_with_wall import BallWithWall
from aimback.tasks.base import Task
from aimback.tasks.bouncing_ball import BouncingBall

T = torch.float64


def line(task: Task, count: int = 20_000) -> Tensor:
    """Controls across the box, `(count, 1)`."""
    return task.box.from_unit(torch.linspace(0, 1, count, dtype=T)[:, None])


def of(task: Task, *controls: float) -> tuple[Tensor, Tensor]:
    """Outcome and slope at each control, `(n,)` each."""
    points = torch.tensor(controls, dtype=T)[:, None]
    outcome, jacobian = task.linearise(points, points[:, :0])
    return outcome[:, 0], jacobian[:, 0, 0]


def flown(angle: float, distance: float, height: float, speed: float = 1.0, gravity: float = 9.81) -> float:
    """Where the published ball ends, by stepping along its parabola in thin slices."""
    rise, forward = speed * math.sin(angle), speed * math.cos(angle)
    end = 2 * rise / gravity
    for slice_ in range(1, 20_001):
        time = end * slice_ / 20_000
        x, y = forward * time, rise * time - 0.5 * gravity * time**2
        if x >= distance:
            return distance if y <= height else forward * end
    return forward * end


# ---- the wall


def test_the_wall_is_jumped_at_the_published_angles() -> None:
    jumps = BallWithWall().jumps()
    assert jumps == pytest.approx((0.6932, 1.1993), abs=5e-5)


def test_the_distance_jumps_there_and_nowhere_else() -> None:
    """From the wall's distance up to 0.1002 m, and from 0.0690 m down to the wall's."""
    task = BallWithWall()
    low, high = task.jumps() or (0.0, 0.0)
    outcome, slope = of(task, low - 1e-9, low + 1e-9, high - 1e-9, high + 1e-9)
    free = [math.sin(2 * angle) / 9.81 for angle in (low, high)]
    assert outcome.tolist() == pytest.approx([0.06, free[0], free[1], 0.06], abs=1e-9)
    assert free == pytest.approx([0.1002, 0.0690], abs=5e-5)
    assert slope.tolist() == pytest.approx([0, 2 * math.cos(2 * low) / 9.81, 2 * math.cos(2 * high) / 9.81, 0])
    angles = line(task)
    leaps = task(angles, angles[:, :0])[:, 0].diff().abs() > 1e-3
    assert angles[:-1][leaps].flatten().tolist() == pytest.approx([low, high], abs=1e-4)


@pytest.mark.parametrize(("distance", "height"), [(0.06, 0.02), (0.02, 0.03), (0.09, 0.001), (0.2, 0.02), (0.06, 0.2)])
def test_the_ball_ends_where_it_strikes_or_lands(distance: float, height: float) -> None:
    task = BallWithWall(wall_distance=distance, wall_height=height)
    angles = torch.linspace(0.01, 1.56, 41, dtype=T)[:, None]
    expected = torch.tensor([flown(angle, distance, height) for angle in angles[:, 0].tolist()], dtype=T)
    torch.testing.assert_close(task(angles, angles[:, :0])[:, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "task",
    [
        BallWithWall(),
        BallWithWall(angle=[0.1, 0.5]),
        BallWithWall(angle=[0.72, 0.75]),
        BallWithWall(angle=[0.9, 1.5]),
        BallWithWall(angle=[0.4, 0.6]),
        BallWithWall(wall_height=0.2),
        BallWithWall(wall_distance=0.005, wall_height=0.045),
        BallWithWall(wall_distance=0.3),
        published_bounce(),
        published_bounce(height=[0.5005, 0.503]),
        published_bounce(height=[0.5005, 0.5055]),
        published_bounce(contact="time_of_impact"),
        published_bounce(height=[0.1, 0.9], contact="time_of_impact"),
    ],
)
def test_the_span_is_what_the_box_hits(task: Task) -> None:
    """To the grid's width, be the ends attained or only approached from one side of a jump."""
    controls = line(task)
    outcome = task(controls, controls[:, :0])
    low, high = (end[0] for end in task.reach(controls[:1, :0]) or ())
    slack = 1e-3 * (high - low) + 1e-12
    assert bool(((outcome >= low - 1e-12) & (outcome <= high + 1e-12)).all())
    torch.testing.assert_close(outcome.amin(0), low, rtol=0, atol=float(slack))
    torch.testing.assert_close(outcome.amax(0), high, rtol=0, atol=float(slack))


def test_a_blocked_ball_drops_at_the_foot_of_the_wall() -> None:
    """It never is beyond it, nor above its top there; the ball that passes is."""
    task = BallWithWall()
    angles = torch.tensor([[0.5], [1.22], [0.2], [0.9]], dtype=T)
    path = task.trajectory(angles, angles[:, :0], 4001)
    assert path[:, -1, 0].tolist() == pytest.approx([0.06, 0.06, math.sin(0.4) / 9.81, math.sin(1.8) / 9.81])
    assert path[:, -1, 1].tolist() == pytest.approx([0, 0, 0, 0], abs=1e-15)
    at_wall = path[:2, :, 0] == 0.06
    assert bool(at_wall.any(1).all())
    assert float(path[:2, :, 1][at_wall].max()) <= 0.02
    over = path[3, (path[3, :, 0] - 0.06).abs().argmin(), 1]
    assert float(over) > 0.02


# ---- the bounce


def bounced(task: BouncingBall, height: float) -> float:
    """The published loop: a ball found below the ground turns before it moves on."""
    velocity = -task.speed
    for _ in range(task.steps):
        if height < task.ground and velocity < 0:
            velocity = -velocity
        height += task.time_step * velocity
    return height


def test_naive_contact_is_the_published_loop() -> None:
    task = published_bounce()
    heights = torch.linspace(0.5003, 0.7997, 200, dtype=T)[:, None]
    expected = torch.tensor([bounced(task, height) for height in heights[:, 0].tolist()], dtype=T)
    torch.testing.assert_close(task(heights, heights[:, :0])[:, 0], expected, rtol=0, atol=1e-12)


def test_time_of_impact_is_the_balls_own_bounce() -> None:
    """Mirrored at the ground: ground + v T - (y0 - ground)."""
    task = published_bounce(contact="time_of_impact")
    heights = line(task, 50)
    torch.testing.assert_close(task(heights, heights[:, :0]), 0.1 + 2 * 0.406 - (heights - 0.1))


@pytest.mark.parametrize(("contact", "slope"), [("naive", 1.0), ("time_of_impact", -1.0)])
def test_the_gradient_is_what_the_contact_makes_of_it(contact: str, slope: float) -> None:
    """As published: +1 for the naive contact; -1, the truth, for the time of impact; by either differentiation."""
    task = published_bounce(contact=contact)
    heights = line(task, 500)[1:-1]
    _, jacobian = task.linearise(heights, heights[:, :0])
    _, gradient = linearise_by_autograd(task, heights, heights[:, :0])
    torch.testing.assert_close(jacobian, torch.full_like(jacobian, slope))
    torch.testing.assert_close(gradient, torch.full_like(jacobian, slope))


def test_the_naive_sawtooth_stays_below_the_truth_and_falls_with_it() -> None:
    naive, exact = published_bounce(), published_bounce(contact="time_of_impact")
    heights = line(naive, 5000)
    late = (exact(heights, heights[:, :0]) - naive(heights, heights[:, :0]))[:, 0]
    assert float(late.min()) > -1e-12
    assert float(late.max()) == pytest.approx(2 * 2 * 0.002, rel=0.05)
    ends = naive(heights, heights[:, :0])[:, 0]
    assert float((ends[-1] - ends[0]) / 0.3) == pytest.approx(-1, abs=0.05)


def test_a_finer_step_is_nearer_to_the_truth() -> None:
    exact = published_bounce(contact="time_of_impact")
    heights = line(exact, 1000)
    gaps = [
        float(
            (
                exact(heights, heights[:, :0])
                - BouncingBall(time_step=0.002 / finer, steps=203 * finer)(heights, heights[:, :0])
            ).mean()
        )
        for finer in (1, 10)
    ]
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("contact", ["naive", "time_of_impact"])
def test_the_path_turns_at_the_ground(contact: str) -> None:
    task = published_bounce(contact=contact)
    heights = line(task, 30)
    y = task.trajectory(heights, heights[:, :0], 4001)[..., 1]
    torch.testing.assert_close(y[:, :1], heights)
    below = 0.1 - y.amin(1)
    deepest = 0.004 if contact == "naive" else 0.0
    assert bool(((below <= deepest + 1e-12) & (below >= -1e-3)).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BallWithWall(angle=[0.0, 2.0]), "^angle: must lie within"),
        (lambda: BallWithWall(angle=[0.5, 0.5]), "^angle: the lower bound must be below"),
        (lambda: BallWithWall(speed=0.0), "^speed: must be positive"),
        (lambda: BallWithWall(wall_height=-0.1), "^wall_height: must be positive"),
        (lambda: BallWithWall(wall_distance=math.inf), "^wall_distance: must be positive"),
        (lambda: BouncingBall(height=[0.0, 0.5]), "^height: must lie within"),
        (lambda: BouncingBall(height=[0.5, 1.0]), "^height: must lie within"),
        (lambda: BouncingBall(steps=1), "^steps: must be a whole number from 2 to"),
        (lambda: BouncingBall(contact="soft"), "^contact: must be 'naive' or"),
        (lambda: BouncingBall(ground=math.nan), "^ground: must be finite"),
        (lambda: BouncingBall(time_step=0.0), "^time_step: must be positive"),
    ],
)
def test_values_out_of_range_are_named(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
