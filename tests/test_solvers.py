"""Gauss-Newton, L-BFGS and the quadratic solver: closed-form answers, closest approaches, faces, dead ends."""

import math
from dataclasses import replace

import pytest
import torch
from problems import Affine, Poisoned, pose, seeded
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem, Linearised, Solution, StartStatus
from aimback.solve.descent import step_inside
from aimback.solve.gauss_newton import GaussNewton, minimum_norm_step
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.lbfgs import Lbfgs
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.point import Point
from aimback.solve.quadratic import Quadratic
from aimback.solve.solver import Solver
from aimback.tasks.ballistics import Ballistics
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.robotic_arm import RoboticArm

T = torch.float64
SOLVERS: dict[str, Solver] = {"gauss_newton": GaussNewton(), "lbfgs": Lbfgs(), "quadratic": Quadratic()}
OF_MANY = ["gauss_newton", "lbfgs"]  # outcomes


def square(dimensions: int = 2) -> Box:
    return Box([Axis(f"x{index}", "", 0.0, 1.0) for index in range(dimensions)])


def posed(targets: list[list[float]], box: Box, tolerance: float = 1e-9, starts: Tensor | int = 8) -> InverseProblem:
    count = len(targets)
    return pose(torch.tensor(targets, dtype=T), torch.zeros(count, 0, dtype=T), box, tolerance, 1.0, starts)


def aimed(task: Linearised, problem: InverseProblem, solver: Solver) -> Solution:
    return solve(task, problem, solver, seeded())


class Differentiated:
    """A map given by its formula; the Jacobian by automatic differentiation."""

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        raise NotImplementedError

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        jacobian = torch.func.vmap(torch.func.jacrev(self))(controls, conditions)
        return self(controls, conditions), jacobian


class Rosenbrock(Differentiated):
    """10 (y - x^2) and 1 - x over [-2, 2]^2, in units of the box: zero at x = y = 1."""

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        x, y = (4 * controls - 2).unbind(-1)
        return torch.stack([10 * (y - x * x), 1 - x], dim=-1)


class Ridge(Differentiated):
    """A summit of height 1 at (0.4, 0.6), a hundred times as steep across its bent ridge as along it."""

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        x, y = (controls - torch.tensor([0.4, 0.6], dtype=T)).unbind(-1)
        return (1 - x * x - 100 * (y + 0.5 * torch.sin(2 * x)) ** 2)[..., None]


@pytest.mark.parametrize("name", SOLVERS)
def test_the_vacuum_cannon_is_aimed_by_galileos_parabola(name: str) -> None:
    """At a given angle the speed is sqrt(g d / sin 2a): a box of one point in the angle leaves no choice."""
    task = CannonVacuum(angle=[0.6, 0.6 + 1e-12])
    targets = torch.linspace(0.5, 9.0, 12, dtype=T)[:, None]
    problem = pose(targets, torch.zeros(12, 0, dtype=T), task.box, 0.01, 10.2)
    solution = aimed(task, problem, SOLVERS[name])
    assert solution.start_status.unique().tolist() == [StartStatus.ARRIVED]
    expected = torch.sqrt(9.80665 * targets / math.sin(1.2)).expand(12, 8)
    torch.testing.assert_close(solution.controls[..., 0], expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", SOLVERS)
def test_drag_and_four_controls_are_solved_to_rounding_in_few_steps(name: str) -> None:
    for task in (CannonDrag(), Ballistics()):
        controls, conditions = task.box.sample(100, seeded(1)), task.conditions.sample(100, seeded(2))
        problem = pose(task(controls, conditions), conditions, task.box, 0.01, 9.0)
        solution = aimed(task, problem, SOLVERS[name])
        best = solution.controls[torch.arange(100), solution.best()]
        assert float((task(best, conditions) - problem.targets).abs().max()) < 1e-8
        assert float(solution.steps.double().median()) <= (8 if name == "lbfgs" else 4)


@pytest.mark.parametrize("name", OF_MANY)
def test_the_arm_is_led_to_its_point(name: str) -> None:
    task = RoboticArm()
    conditions = torch.zeros(100, 0, dtype=T)
    targets = task(task.box.sample(100, seeded(1)), conditions)
    solution = aimed(task, pose(targets, conditions, task.box, 0.01, 3.0), SOLVERS[name])
    best = solution.controls[torch.arange(100), solution.best()]
    assert float((task(best, conditions) - targets).abs().max()) < 1e-8


@pytest.mark.parametrize("name", ["gauss_newton", "quadratic"])
def test_the_step_to_a_plane_is_the_orthogonal_projection(name: str) -> None:
    """Of all solutions of a x = b the one nearest to the start: x + a (b - a x) / |a|^2, in one step."""
    a = torch.tensor([[0.3, -0.5, 0.9]], dtype=T)
    starts = 0.4 + 0.2 * torch.rand(1, 5, 3, generator=seeded(), dtype=T)
    solver = replace(SOLVERS[name], precision=1e-15)
    solution = aimed(Affine(a), posed([[0.4]], square(3), starts=starts), solver)
    expected = starts + a * (0.4 - starts @ a.T) / a.square().sum()
    torch.testing.assert_close(solution.controls, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(solution.history.controls[1], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("outcomes", "controls"), [(1, 1), (1, 4), (2, 1), (2, 2), (2, 4), (3, 1), (3, 2), (3, 5)])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_minimum_norm_step_is_the_pseudo_inverse(outcomes: int, controls: int, rank: int) -> None:
    rank = min(rank, outcomes, controls)
    left = torch.randn(20, outcomes, rank, generator=seeded(), dtype=T)
    jacobian = left @ torch.randn(20, rank, controls, generator=seeded(1), dtype=T)
    jacobian[0] = 0
    residual = torch.randn(20, outcomes, generator=seeded(2), dtype=T)
    step = minimum_norm_step(jacobian, residual, torch.full((20,), 1e9, dtype=T))
    expected = -(torch.linalg.pinv(jacobian, rtol=1e-9) @ residual[..., None])[..., 0]
    torch.testing.assert_close(step, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("outcomes", [1, 2, 3])
def test_the_minimum_norm_step_keeps_to_its_length(outcomes: int) -> None:
    """Along every right singular vector it is -(u' r) / sigma, but no longer than the length."""
    jacobian = torch.randn(30, outcomes, 4, generator=seeded(), dtype=T)
    residual = torch.randn(30, outcomes, generator=seeded(1), dtype=T)
    length = torch.linspace(0.01, 2, 30, dtype=T)
    step = minimum_norm_step(jacobian, residual, length)
    u, sigma, v = torch.linalg.svd(jacobian, full_matrices=False)
    whole = -(u.mT @ residual[..., None])[..., 0] / sigma
    clipped = torch.minimum(torch.maximum(whole, -length[:, None]), length[:, None])
    torch.testing.assert_close((v @ step[..., None])[..., 0], clipped, rtol=1e-10, atol=1e-12)
    assert bool((clipped != whole).any()) and bool((clipped == whole).any())


@pytest.mark.parametrize("name", SOLVERS)
def test_the_unreachable_ends_at_the_greatest_range(name: str) -> None:
    """v^2 / g at 45 degrees and full speed; the first-order optimum, not merely close to it."""
    task = CannonVacuum()
    solution = aimed(task, posed([[11.0], [25.0]], task.box, tolerance=0.01), SOLVERS[name])
    assert solution.start_status.unique().tolist() == [StartStatus.STALLED]
    top = 100 / 9.80665
    expected = torch.tensor([[11 - top], [25 - top]], dtype=T).expand(2, 8)
    torch.testing.assert_close(solution.believed_miss, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(solution.controls[..., 0], torch.full((2, 8), 10.0, dtype=T), rtol=0, atol=0)
    torch.testing.assert_close(solution.controls[..., 1], torch.full((2, 8), math.pi / 4, dtype=T), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["lbfgs", "quadratic"])
def test_a_summit_inside_the_box_is_climbed_superlinearly(name: str) -> None:
    """Where steps without curvature, those of Levenberg-Marquardt, need hundreds."""
    problem = posed([[1.5]] * 4, square())
    solution = aimed(Ridge(), problem, SOLVERS[name])
    assert solution.start_status.unique().tolist() == [StartStatus.STALLED]
    torch.testing.assert_close(solution.believed_miss, torch.full((4, 8), 0.5, dtype=T), rtol=0, atol=1e-12)
    summit = torch.tensor([0.4, 0.6], dtype=T).expand(4, 8, 2)
    torch.testing.assert_close(solution.controls, summit, rtol=0, atol=1e-6)
    assert float(solution.steps.double().median()) < 40
    assert int(aimed(Ridge(), problem, LevenbergMarquardt()).steps.min()) == 100


@pytest.mark.parametrize("name", OF_MANY)
def test_a_point_outside_ends_at_the_constrained_least_squares(name: str) -> None:
    """The closest point of a sheared square lies on a face, where the other control is not at its clamped place."""
    shear = torch.tensor([[1.0, 0.0], [0.9, 1.0]], dtype=T)
    solution = aimed(Affine(shear), posed([[2.0, 1.2]], square()), SOLVERS[name])
    # x = 1 on its bound, then y = 1.2 - 0.9.
    expected = torch.tensor([1.0, 0.3], dtype=T).expand(1, 8, 2)
    torch.testing.assert_close(solution.controls, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(solution.believed_miss, torch.ones(1, 8, dtype=T), rtol=0, atol=1e-12)
    assert solution.start_status.unique().tolist() == [StartStatus.STALLED]


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solution_on_a_face_is_reached(name: str) -> None:
    """x + 2 y = 2.5 has only y > 0.75; 3 only the corner."""
    plane = Affine(torch.tensor([[1.0, 2.0]], dtype=T))
    solution = aimed(plane, posed([[2.5], [3.0], [0.0]], square()), SOLVERS[name])
    assert solution.start_status.unique().tolist() == [StartStatus.ARRIVED]
    assert bool(square().contains(solution.controls).all())
    corners = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=T)[:, None, :].expand(2, 8, 2)
    torch.testing.assert_close(solution.controls[1:], corners, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_box_is_kept_at_every_step(name: str) -> None:
    task = CannonVacuum(speed=[2.0, 4.0], angle=[0.2, 0.5])
    solution = aimed(task, posed([[0.0], [0.7], [50.0]], task.box, tolerance=0.01), SOLVERS[name])
    assert bool(task.box.contains(solution.history.controls).all())
    assert bool(torch.isfinite(solution.history.believed_miss).all())


@pytest.mark.parametrize("name", SOLVERS)
def test_a_start_without_slope_stalls_where_it_is(name: str) -> None:
    """At speed 0 every derivative of the distance vanishes; the start beside it goes on."""
    task = CannonVacuum()
    starts = torch.tensor([[[0.0, 0.7], [0.0, 0.0], [5.0, 0.7]]], dtype=T)
    solver = SOLVERS[name]
    solution = aimed(task, posed([[5.0]], task.box, 0.01, starts), solver)
    stalled, arrived = StartStatus.STALLED, StartStatus.ARRIVED
    assert solution.start_status.tolist() == [[stalled, stalled, arrived]]
    torch.testing.assert_close(solution.controls[0, :2], starts[0, :2], rtol=0, atol=0)
    assert solution.believed_miss[0, :2].tolist() == [5.0, 5.0]


@pytest.mark.parametrize("name", OF_MANY)
def test_dependent_outcomes_are_solved_as_far_as_they_go(name: str) -> None:
    """Both outcomes are x + y: rank one everywhere. The least squares of 0.8 and 1.0 is x + y = 0.9."""
    twice = Affine(torch.ones(2, 2, dtype=T))
    solution = aimed(twice, posed([[0.8, 1.0]], square()), SOLVERS[name])
    assert solution.start_status.unique().tolist() == [StartStatus.STALLED]
    torch.testing.assert_close(solution.controls.sum(-1), torch.full((1, 8), 0.9, dtype=T), rtol=0, atol=1e-7)


def test_lbfgs_arrives_in_the_bent_valley_where_plain_descent_does_not() -> None:
    problem = posed([[0.0, 0.0]], square(), tolerance=1e-6)
    solution = aimed(Rosenbrock(), problem, Lbfgs())
    assert solution.start_status.unique().tolist() == [StartStatus.ARRIVED]
    torch.testing.assert_close(solution.controls, torch.full((1, 8, 2), 0.75, dtype=T), rtol=0, atol=1e-8)
    # The longest step that does not diverge, to a factor of two.
    plain = aimed(Rosenbrock(), problem, GradientDescent(step_size=1e-4, max_steps=300))
    assert not bool((plain.start_status == StartStatus.ARRIVED).any())
    assert float(plain.believed_miss.median()) > 0.1


@pytest.mark.parametrize("name", SOLVERS)
def test_rows_alone_give_the_bits_of_the_batch(name: str) -> None:
    task = CannonDrag()
    controls, conditions = task.box.sample(4, seeded(1)), task.conditions.sample(4, seeded(2))
    targets = task(controls, conditions)
    targets[::3] = 99.0
    starts = task.box.sample(4 * 3, seeded(3)).unflatten(0, (4, 3))
    starts[:, 0, 0] = 0.0
    solver = replace(SOLVERS[name], max_steps=25)
    whole = aimed(task, pose(targets, conditions, task.box, 0.01, 9.0, starts), solver)
    for row in range(4):
        for start in range(3):
            one = pose(
                targets[row : row + 1],
                conditions[row : row + 1],
                task.box,
                0.01,
                9.0,
                starts[row : row + 1, start : start + 1],
            )
            alone = aimed(task, one, solver)
            for field in ("controls", "believed_miss", "start_status", "steps"):
                ours, theirs = getattr(alone, field)[0, 0], getattr(whole, field)[row, start]
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(("poison", "status"), [(math.nan, StartStatus.NOT_FINITE), (math.inf, StartStatus.NO_EVENT)])
def test_a_failing_trial_is_refused_and_a_failing_start_is_named(name: str, poison: float, status: StartStatus) -> None:
    """The cannon answers nothing above 8 m/s: whoever begins below goes round it, whoever begins there ends there."""
    task = CannonVacuum()
    forward = Poisoned(task, poison, 8.0)
    starts = torch.tensor([[[9.0, 0.7], [3.0, 0.1], [7.0, 1.5]]], dtype=T)
    solver = SOLVERS[name]
    solution = aimed(forward, posed([[6.0]], task.box, 0.01, starts), solver)
    assert solution.start_status.tolist() == [[status, StartStatus.ARRIVED, StartStatus.ARRIVED]]
    without = aimed(forward, posed([[6.0]], task.box, 0.01, starts[:, 1:]), solver)
    torch.testing.assert_close(solution.controls[:, 1:], without.controls, rtol=0, atol=0)


def test_the_quadratic_solver_is_for_one_outcome() -> None:
    with pytest.raises(UserError, match="one outcome, here are 2; take levenberg_marquardt"):
        aimed(Affine(torch.eye(2, dtype=T)), posed([[0.5, 0.5]], square()), Quadratic())


def test_a_step_inside_ends_exactly_on_the_bounds_it_meets() -> None:
    """Who is held from the first does not move; who is put on a bound stays there, and the rest is asked again."""
    unit = torch.tensor([[0.3, 1.0, 0.9]], dtype=T)
    jacobian = torch.tensor([[[1.0, -1.0, 1.0]]], dtype=T)
    point = Point(unit, torch.tensor([[-0.6]], dtype=T), jacobian)
    asked: list[list[float]] = []

    def step(moved: Tensor, free: Tensor) -> Tensor:
        asked.append(moved[0].tolist())
        # The residual that is left, shared evenly by the free controls.
        left = point.residual + (jacobian * moved[:, None, :]).sum(-1)
        return torch.where(free, -left / free.sum(-1, keepdim=True), 0.0)

    # Less of y is wanted, so it is free, but it is asked to go up with the others: 0.6 / 3 each, then 0.5 for x.
    ends = step_inside(point, step)
    held = step_inside(Point(unit, -point.residual, jacobian), lambda moved, free: torch.where(free, -0.1, 9.0).to(T))
    assert len(asked) == 2
    assert ends[0].tolist() == [pytest.approx(0.8), 1.0, 1.0]
    assert held[0].tolist() == pytest.approx([0.2, 1.0, 0.8])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussNewton(length=0.0), "length: must be positive"),
        (lambda: Quadratic(length=math.inf), "length: must be positive and finite"),
        (lambda: Lbfgs(pairs=0), "pairs: must be a whole number from 1 to"),
    ],
)
def test_settings_out_of_range_are_named(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # type: ignore[operator]
