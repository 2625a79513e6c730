"""Linear constraints among controls: read without running code, and kept by everything that keeps a box."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from problems import Affine, pose, seeded
from scipy.optimize import minimize
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.constraints import Constraints, read_constraints
from aimback.core.errors import UserError
from aimback.core.problem import StartStatus
from aimback.data.dataset import simulate_dataset
from aimback.data.identity import identify
from aimback.data.targets import draw_targets
from aimback.solve.adam import Adam
from aimback.solve.cma_es import CmaEs
from aimback.solve.gauss_newton import GaussNewton
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.lbfgs import Lbfgs
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.quadratic import Quadratic
from aimback.solve.rounds import solve_in_rounds
from aimback.solve.solver import Solver
from aimback.tasks.described import DescribedTask

RANGES = {"speed": (0.0, 10.0), "angle": (0.0, 1.5)}
CALL: Any = {"call": "test:made", "arrays": "torch", "cases": "batch", "derivatives": "autograd"}
CONSTRAINTS = ["speed + 2*angle <= 9", "speed >= 4*angle"]


def read(*texts: str) -> Constraints | None:
    return read_constraints(texts, RANGES, {"drag": 0.5})


def make_box(*texts: str) -> Box:
    return Box([Axis("speed", "m/s", 0.0, 10.0), Axis("angle", "rad", 0.0, 1.5)], read(*texts))


# Reading


@pytest.mark.parametrize(
    "text",
    [
        "speed + 2*angle <= 9",
        "9 >= angle*2 + speed",
        "-(speed + angle) + 9 >= angle",
        "speed/2 <= (9 - 2*angle)/2",
        "2*drag*speed <= 9 - angle - angle + 0*speed",
        "-100 <= speed + 2*angle <= 3*3",
    ],
)
def test_it_is_read_however_it_is_written(text: str) -> None:
    points = make_box().sample(200, seeded())
    kept = points[:, 0] + 2 * points[:, 1] <= 9
    assert 0 < int(kept.sum()) < 200
    assert torch.equal(make_box(text).contains(points), kept)
    assert torch.equal(make_box(text).is_outside(points), ~kept)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed + 2*angle", "there is no <= and no >= in it"),
        ("speed < 9", "there is no <= and no >= in it"),
        ("speed <= ", "invalid syntax"),
        ("sped <= 9", "sped is no control; these are speed, angle, drag"),
        ("speed*angle <= 9", "speed * angle is not linear"),
        ("9/speed <= 9", "9 / speed is not linear"),
        ("speed/0 <= 9", "division by zero"),
        ("speed**2 <= 9", "speed ** 2 is no sum of controls"),
        ("__import__('os').getcwd() <= 9", "is no sum of controls"),
        ("speed <= 1e999", "1e309 is not finite"),
        ("speed <= True", "True is no sum of controls"),
        ("+".join(["speed"] * 500) + "<= 1", "it is too long"),
        ("(" * 400 + "speed" + ")" * 400 + "<= 1", "too many nested parentheses"),
        ("speed <= -1", "no room inside the ranges of the controls keeps them all"),
        ("speed + 2*angle >= 13", "no room inside the ranges of the controls keeps them all"),
        ("drag >= 1", "'drag >= 1' is never kept"),
    ],
)
def test_what_is_no_constraint_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        read(text)
    assert str(raised.value).startswith("constraints: ") and message in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_what_is_always_kept_is_no_constraint() -> None:
    assert read("drag <= 1") is None
    with pytest.raises(UserError, match="no room"):
        read("speed <= 2", "speed >= 3")


# Projecting


@pytest.mark.parametrize(("controls", "constraints"), [(2, 1), (2, 3), (5, 1), (5, 4), (8, 8)])
def test_the_nearest_point_is_that_of_a_quadratic_program(controls: int, constraints: int) -> None:
    """By SciPy's SLSQP, for points inside and outside the cube; every row alone gives the same bits."""
    generator = seeded(controls * constraints)
    weights = torch.randn(constraints, controls, generator=generator, dtype=torch.float64)
    limits = weights @ torch.full((controls,), 0.4, dtype=torch.float64) + 0.05
    kept = Constraints(weights, limits)
    points = 2 * torch.rand(30, controls, generator=generator, dtype=torch.float64) - 0.5
    found = kept.project(points)
    assert bool(((found @ weights.T) <= limits).all()) and bool(((found >= 0) & (found <= 1)).all())
    for point, ours in zip(points, found, strict=True):
        best = minimize(
            lambda x, point=point: float(((x - point.numpy()) ** 2).sum()),
            np.full(controls, 0.4),
            jac=lambda x, point=point: 2 * (x - point.numpy()),
            bounds=[(0, 1)] * controls,
            constraints={
                "type": "ineq",
                "fun": lambda x: (limits - weights @ torch.from_numpy(x)).numpy(),
                "jac": lambda x: -weights.numpy(),
            },
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert float((ours - point).norm()) <= float(np.linalg.norm(best.x - point.numpy())) + 1e-6
        assert torch.equal(kept.project(point[None])[0], ours)
        torch.testing.assert_close(kept.project(ours), ours, rtol=0, atol=0)


def test_a_point_inside_stays_to_the_bit_and_a_failed_one_fails_alone() -> None:
    box = make_box(*CONSTRAINTS)
    unit = torch.rand(500, 2, generator=seeded(), dtype=torch.float64)
    unit[7] = math.nan
    moved = box.keep_inside(unit)
    inside = box.contains(box.from_unit(unit))
    assert 50 < int(inside.sum()) < 450
    assert torch.equal(moved[inside], unit[inside]) and bool(moved[7].isnan().all())
    assert not bool(box.is_outside(box.from_unit(moved))[torch.arange(500) != 7].any())


def test_draws_are_even_over_what_is_left() -> None:
    """Of a triangle, half of the rectangle: the mean is its centre of gravity."""
    box = make_box("angle/1.5 <= speed/10")
    points = box.sample(20_000, seeded())
    assert bool((points[:, 1] / 1.5 <= points[:, 0] / 10).all())
    torch.testing.assert_close(box.to_unit(points).mean(0), torch.tensor([2 / 3, 1 / 3]).double(), rtol=0, atol=0.01)
    thin = make_box("1.5*speed - 10*angle <= 1e-3", "10*angle - 1.5*speed <= 1e-3").sample(100, seeded())
    assert float((1.5 * thin[:, 0] - 10 * thin[:, 1]).abs().max()) <= 1e-3


def test_a_smaller_box_has_the_same_constraints() -> None:
    box = make_box(*CONSTRAINTS)
    small = box.shrink(0.1)
    points = small.sample(500, seeded())
    assert bool(box.contains(points).all()) and bool(small.contains(points).all())
    aside = torch.tensor([[8.5, 0.5]], dtype=torch.float64)  # breaks a constraint, and no bound
    assert not bool(small.contains(aside)) and bool(make_box().shrink(0.1).contains(aside))


# Solving


@dataclass
class Watched:
    """Keeps every point that a solver asks for."""

    forward: Any
    asked: list[Tensor] = field(default_factory=list)

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        self.asked.append(controls.reshape(-1, controls.shape[-1]))
        found: Tensor = self.forward(controls, conditions)
        return found

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(controls.reshape(-1, controls.shape[-1]))
        found: tuple[Tensor, Tensor] = self.forward.linearise(controls, conditions)
        return found


def shoot(speed: Tensor, angle: Tensor) -> Tensor:
    return speed**2 * torch.sin(2 * angle) / 9.81


def make_task(constraints: list[str] | None = CONSTRAINTS) -> DescribedTask:
    return DescribedTask(
        CALL,
        {"speed": [0.0, 10.0, "m/s"], "angle": [0.0, 1.5, "rad"]},
        {"distance": {"unit": "m", "tolerance": 0.01, "range": [0, 10]}},
        constraints=constraints,
        function=shoot,
    )


SOLVERS: list[Solver] = [
    LevenbergMarquardt(),
    GaussNewton(),
    Quadratic(),
    Lbfgs(),
    Adam(max_steps=400),
    GradientDescent(max_steps=500),
    CmaEs(max_steps=60),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_no_solver_asks_for_what_breaks_a_constraint_and_all_hit_what_can_be_hit(solver: Solver) -> None:
    task = make_task()
    reachable = draw_targets(task, 20, seeded(1))
    problem = pose(reachable.targets, reachable.conditions, task.box, task.tolerance, 10.0, 6)
    watched = Watched(task)
    solution = solve(watched, problem, solver, seeded())
    speed, angle = torch.cat(watched.asked).unbind(-1)
    assert bool((speed + 2 * angle <= 9 + 1e-9).all()) and bool((speed >= 4 * angle - 1e-9).all())
    assert float((solution.start_status == StartStatus.ARRIVED).any(-1).double().mean()) >= 0.95
    assert not bool(task.box.is_outside(solution.controls).any())


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_a_target_that_a_constraint_puts_out_of_reach_is_approached_along_it(solver: Solver) -> None:
    """The farthest shot with speed + 2 angle <= 9: by a fine search along the constraint."""
    task = make_task()
    angles = torch.linspace(0, 1.5, 200_001, dtype=torch.float64)
    speeds = torch.minimum(9 - 2 * angles, torch.tensor(10.0).double())
    farthest = float(shoot(speeds, angles)[speeds >= 4 * angles].max())
    wanted = torch.tensor([[9.0]], dtype=torch.float64)
    problem = pose(wanted, wanted[:, :0], task.box, task.tolerance, 10.0, 6)
    solution = solve(task, problem, solver, seeded())
    assert float(solution.believed_miss.min()) == pytest.approx(9.0 - farthest, abs=2e-3)


@pytest.mark.parametrize(
    "solver",
    [solver for solver in SOLVERS if not isinstance(solver, Quadratic)],
    ids=lambda solver: type(solver).__name__,
)
def test_least_squares_under_constraints_are_those_of_a_quadratic_program(solver: Solver) -> None:
    """Two outcomes of unlike slopes, so that a step cut off by a constraint may lead up."""
    matrix = torch.tensor([[3.0, 0.5], [0.2, 0.1]], dtype=torch.float64)
    box = Box(
        [Axis("x", "", 0.0, 1.0), Axis("y", "", 0.0, 1.0)],
        read_constraints(["x + y <= 1"], {"x": (0, 1), "y": (0, 1)}, {}),
    )
    wanted = torch.tensor([[2.2, 0.5], [3.4, 0.25], [0.9, 0.6]], dtype=torch.float64)
    problem = pose(wanted, wanted[:, :0], box, 1e-3, 1.0, 4)
    patient = {CmaEs: {"max_steps": 200}, Adam: {"max_steps": 2000, "decay": 0.998}}
    solver = replace(solver, **patient.get(type(solver), {"max_steps": 2000}))
    solution = solve(Affine(matrix), problem, solver, seeded())
    for row, target in enumerate(wanted):
        best = minimize(
            lambda x, target=target: float(((matrix @ torch.from_numpy(x) - target) ** 2).sum()),
            [0.3, 0.3],
            bounds=[(0, 1)] * 2,
            constraints={"type": "ineq", "fun": lambda x: 1 - x.sum()},
            method="SLSQP",
            options={"ftol": 1e-15},
        )
        losses = (solution.controls[row] @ matrix.T - target).square().sum(-1)
        assert float(losses.max()) == pytest.approx(best.fun, abs=1e-4), type(solver).__name__


def test_starts_do_not_influence_each_other_at_a_constraint() -> None:
    task = make_task()
    wanted = torch.tensor([[2.0], [9.0], [4.0]], dtype=torch.float64)
    problem = pose(wanted, wanted[:, :0], task.box, task.tolerance, 10.0, 5)
    whole = solve(task, problem, LevenbergMarquardt(), seeded())
    for row in range(3):
        part = replace(
            problem,
            targets=wanted[row : row + 1],
            conditions=wanted[:1, :0],
            starts=problem.starts[row : row + 1, 2:3],
        )
        alone = solve(task, part, LevenbergMarquardt(), seeded())
        assert torch.equal(alone.controls[0, 0], whole.controls[row, 2])


def test_rounds_and_single_precision_keep_them_too() -> None:
    task = make_task()
    wanted = torch.tensor([[2.0], [9.0]])
    starts = torch.rand(2, 4, 2, generator=seeded())
    problem = replace(pose(wanted, wanted[:, :0], task.box, task.tolerance, 10.0, 4), starts=starts)
    for solution in (
        solve(task, problem, LevenbergMarquardt(), seeded()),
        solve_in_rounds([task], problem, LevenbergMarquardt(), seeded()),
    ):
        assert not bool(task.box.is_outside(solution.controls.double()).any())


def test_data_sets_and_targets_keep_them() -> None:
    task = make_task()
    examples = simulate_dataset(task, 500, 0.2, seeded())
    assert bool(task.box.contains(examples.controls).all())
    assert float((examples.controls[:, 0] + 2 * examples.controls[:, 1]).max()) > 8.5
    assert identify(task) != identify(make_task(None)) and "constraints" not in identify(make_task(None))
