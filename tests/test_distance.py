"""A tolerance for each outcome: what counts as a hit where outcomes differ in unit and tolerance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from made_up import metrics, result
from problems import Affine, compute_r_t, pose, seeded
from torch import Tensor

from aimback.compile.compiler import Compiler
from aimback.compile.cpu import Cpu
from aimback.core.box import Axis, Box
from aimback.core.distance import Distance
from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem, Solution, StartStatus, Status
from aimback.data.exactness import error_note
from aimback.data.identity import identify
from aimback.data.targets import Targets
from aimback.evaluate.judge import Answers, judge, resimulate
from aimback.report.canvas import label_tolerance
from aimback.report.verdict import verdict
from aimback.solve.adam import Adam
from aimback.solve.cma_es import CmaEs
from aimback.solve.gauss_newton import GaussNewton
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.lbfgs import Lbfgs
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.point import Point, is_better
from aimback.solve.solver import Memory, Solver
from aimback.solve.starts import draw_evenly
from aimback.tasks.base import TOLERANCES, Task
from aimback.tasks.reach import bound_outcomes, find_unreachable
from aimback.tasks.robotic_arm import RoboticArm

T = torch.float64
SOLVERS: dict[str, Solver] = {
    "levenberg_marquardt": LevenbergMarquardt(),
    "gauss_newton": GaussNewton(),
    "lbfgs": Lbfgs(),
    "gradient_descent": GradientDescent(),
    "adam": Adam(),
    "soft_walls": Adam(boundary=1.0),
    "cma_es": CmaEs(max_steps=20),
}


class Pump(Task):
    """A pressure in Pa that rises with the speed and an efficiency that falls, so that hardly ever both fit exactly.

    Args:
        factor: the pressure and its tolerance are so many times as large: another unit.
    """

    def __init__(self, tolerances: Sequence[float] = (500.0, 0.01), factor: float = 1.0) -> None:
        self.box = Box([Axis("speed", "1/s", 0.0, 1.0), Axis("clearance", "mm", 0.0, 1.0)])
        self.outcomes = Box([Axis("pressure", "Pa", 1e5 * factor, 1.01e5 * factor), Axis("efficiency", "", 0.4, 1.0)])
        self.tolerances = (tolerances[0] * factor, tolerances[1])
        self.tolerance = 1.0
        self._factor = factor

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        speed, clearance = controls.unbind(-1)
        pressure = 1e5 + 1e3 * speed * (1 - 0.01 * clearance)
        return torch.stack([pressure * self._factor, 1 - 0.5 * speed - 0.001 * clearance * clearance], dim=-1)

    def reach(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return bound_outcomes(self.outcomes, conditions)


class Two(Task):
    """The outcomes are the controls."""

    def __init__(self, tolerances: Sequence[float], tolerance: float = 1.0, units: Sequence[str] = ("Pa", "")) -> None:
        self.box = Box([Axis("x", "", -1000.0, 1000.0), Axis("y", "", -1000.0, 1000.0)])
        self.outcomes = Box([Axis(name, unit, -1000.0, 1000.0) for name, unit in zip("xy", units, strict=True)])
        self.tolerances = tuple(tolerances)
        self.tolerance = tolerance

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return controls + 0


def ask(wanted: Sequence[Sequence[float]]) -> Targets:
    count = len(wanted)
    none, lines = torch.zeros(count, 0, dtype=T), torch.zeros(count, dtype=torch.int64)
    return Targets(torch.tensor(wanted, dtype=T), none, lines, ("",) * count)


def invert(task: Task, targets: Targets, solver: Solver, compiler: Compiler | None = None) -> Solution:
    starts = draw_evenly(len(targets), 4, len(task.box), seeded(1))
    problem = InverseProblem(targets.targets, targets.conditions, task.box, task.distance, starts)
    return solve(task, problem, solver, seeded(2), compiler=compiler)


def answer(task: Task, wanted: Sequence[float], controls: Sequence[float]) -> Answers:
    """What becomes of controls that the route believes in."""
    targets = ask([wanted])
    solution = invert(task, targets, GradientDescent(max_steps=1))
    told = torch.tensor([[list(controls)]], dtype=T)
    believed, arrived = torch.zeros(1, 1, dtype=T), torch.zeros(1, 1, dtype=torch.int8)
    solution = replace(solution, controls=told, believed_miss=believed, start_status=arrived)
    return judge(task, targets, solution, resimulate(task, targets, solution))


# ---- the answer that is right


@pytest.mark.parametrize("name", SOLVERS)
def test_each_outcome_is_hit_where_the_raw_norm_would_give_one_of_them_up(name: str) -> None:
    """100 Pa off is nothing and an efficiency off by 0.05 is wrong; in raw numbers it is the other way round."""
    task, targets = Pump(), ask([[100_300.0, 0.9]])
    grid = task.box.from_unit(torch.cartesian_prod(*[torch.linspace(0, 1, 201, dtype=T)] * 2))
    apart = task(grid, torch.zeros(len(grid), 0)) - targets.targets
    nearest = apart[torch.linalg.vector_norm(apart, dim=-1).argmin()].abs()
    assert float(nearest[0]) < 500
    assert float(nearest[1]) > 0.01  # what the raw norm holds for best is no hit
    solution = invert(task, targets, SOLVERS[name])
    answers = judge(task, targets, solution, resimulate(task, targets, solution))
    assert answers.status.tolist() == [Status.SOLVED]
    off = (answers.outcome - targets.targets).abs()[0].tolist()
    assert off[0] <= 500
    assert off[1] <= 0.01
    assert float(answers.miss[0]) == max(off[0] / 500, off[1] / 0.01) <= 1


@pytest.mark.parametrize("place", [0, 1])
def test_a_target_is_solved_up_to_the_boundary_of_each_tolerance_and_not_beyond(place: int) -> None:
    tolerances = (500.0, 0.01)
    task = Two(tolerances)
    at = list(tolerances)
    assert answer(task, [0.0, 0.0], at).status.tolist() == [Status.SOLVED]
    at[place] = math.nextafter(at[place], math.inf)
    beyond = answer(task, [0.0, 0.0], at)
    assert beyond.status.tolist() == [Status.MISSED]
    assert float(beyond.miss[0]) > 1
    at[place] = -tolerances[place]
    assert answer(task, [0.0, 0.0], at).status.tolist() == [Status.SOLVED]


def test_the_boundary_is_exact_whatever_the_tolerance() -> None:
    tolerances = 10 ** (12 * torch.rand(1000, generator=seeded(), dtype=T) - 6)
    distance = Distance(tolerances.tolist(), 1.0, 1.0)
    assert bool((distance.measure(torch.diag(tolerances)) == 1).all())
    beyond = torch.nextafter(tolerances, torch.tensor(math.inf, dtype=T))
    assert bool((distance.measure(torch.diag(beyond)) > 1).all())


def test_with_one_tolerance_for_all_the_miss_is_the_greatest_difference_to_the_bit() -> None:
    apart = torch.randn(1000, 3, generator=seeded(), dtype=T)
    measured = Distance((0.01,) * 3, 0.01, 4.2).measure(apart)
    assert torch.equal(measured, apart.abs().amax(-1))
    assert Distance((0.01,) * 3, 0.01, 4.2).scales.tolist() == [4.2] * 3
    gap = torch.tensor([[1.0, math.nan, math.inf], [1.0, 2.0, math.inf]], dtype=T)
    assert [str(one) for one in Distance((0.01,) * 3, 0.01, 4.2).measure(gap).tolist()] == ["nan", "inf"]


# ---- solvers


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("factor", [2.0**-17, 2.0**9])
def test_the_unit_of_an_outcome_does_not_matter(name: str, factor: float) -> None:
    """Rescaling an outcome and its tolerance by a power of two is exact, so every bit is the same."""
    wanted = [[100_300.0, 0.9], [100_700.0, 0.65], [100_100.0, 0.5], [200_000.0, 0.8]]
    rescaled = [[factor * pressure, efficiency] for pressure, efficiency in wanted]
    one, other = (
        invert(task, ask(rows), SOLVERS[name]) for task, rows in ((Pump(), wanted), (Pump(factor=factor), rescaled))
    )
    assert torch.equal(one.controls, other.controls)
    assert torch.equal(one.believed_miss, other.believed_miss)
    assert torch.equal(one.start_status, other.start_status)
    assert torch.equal(one.steps_to_tolerance, other.steps_to_tolerance)
    assert torch.equal(one.history.controls, other.history.controls)


@pytest.mark.parametrize("name", ["levenberg_marquardt", "soft_walls"])
def test_a_compiled_solve_goes_by_the_tolerances_too(name: str, tmp_path: Path) -> None:
    wanted = ask([[100_300.0, 0.9], [100_700.0, 0.65], [100_100.0, 0.5], [200_000.0, 0.8]])
    compiler = Compiler(tmp_path, "pump", Cpu(optimise=False))
    found = []
    for tolerances in ((500.0, 0.01), (20.0, 0.1)):
        plain, compiled = (invert(Pump(tolerances), wanted, SOLVERS[name], by) for by in (None, compiler))
        torch.testing.assert_close(compiled.controls, plain.controls, rtol=0, atol=1e-7)
        torch.testing.assert_close(compiled.believed_miss, plain.believed_miss, rtol=1e-6, atol=1e-6)
        assert torch.equal(compiled.start_status == StartStatus.ARRIVED, plain.start_status == StartStatus.ARRIVED)
        assert torch.equal(compiled.steps_to_tolerance, plain.steps_to_tolerance)
        found.append(compiled.controls)
    assert len(list(tmp_path.glob("*.so"))) == 2
    assert not torch.allclose(*found, rtol=0, atol=1e-3)


@dataclass(frozen=True)
class Walk(Solver):
    """Goes from the middle of the box to one place after the other."""

    places: tuple[tuple[float, float], ...] = ()

    def begin(self, point: Point) -> Memory:
        return ()

    def propose(self, point: Point, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        return torch.tensor(self.places[step - 1], dtype=T).expand_as(point.unit), memory

    def judge(self, point: Point, trial: Point, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        return (every := torch.ones(len(point.unit), dtype=torch.bool)), ~every, memory


def test_an_arrival_is_not_given_up_for_a_lower_loss() -> None:
    """(0.9, 0.9) tolerances away is a hit, and (1.2, 0) is none, although its squares add up to less."""
    box = Box([Axis("x", "", 0.0, 2.0), Axis("y", "", 0.0, 2.0)])
    problem = pose(torch.zeros(1, 2, dtype=T), torch.zeros(1, 0, dtype=T), box, 1.0, 5.0, torch.ones(1, 1, 2) * 1.5)
    walk = Walk(max_steps=3, places=((0.45, 0.45), (0.6, 0.0), (0.6, 0.3)))
    solution = solve(Affine(torch.eye(2, dtype=T)), problem, walk, seeded())
    torch.testing.assert_close(solution.controls[0, 0], torch.tensor([0.9, 0.9], dtype=T))
    assert (solution.start_status.item(), solution.steps_to_tolerance.item()) == (StartStatus.ARRIVED, 1)
    assert solution.believed_miss.item() == pytest.approx(0.9)
    short = solve(Affine(torch.eye(2, dtype=T)), problem, Walk(max_steps=2, places=walk.places[1:]), seeded())
    torch.testing.assert_close(short.controls[0, 0], torch.tensor([1.2, 0.0], dtype=T))
    assert (short.start_status.item(), short.steps_to_tolerance.item()) == (StartStatus.STEP_LIMIT, -1)


def test_among_arrivals_and_among_others_the_loss_decides() -> None:
    yes, no = torch.tensor([True]), torch.tensor([False])
    low, high = torch.tensor([1.0]), torch.tensor([2.0])
    cases = [(yes, yes), (no, no), (yes, no), (no, yes)]
    assert [bool(is_better(within, arrived, low, high)) for within, arrived in cases] == [True, True, True, False]
    assert [bool(is_better(within, arrived, high, low)) for within, arrived in cases] == [False, False, True, False]


# ---- what a task says


def test_a_task_has_one_tolerance_an_outcome() -> None:
    arm = RoboticArm(tolerance=0.02)
    assert (arm.tolerances, arm.tolerance, arm.miss_unit) == ((0.02, 0.02), 0.02, "m")
    assert arm.distance.scales.tolist() == [arm.distance.span] * 2
    pump = Pump()
    assert (pump.tolerances, pump.tolerance, pump.miss_unit) == ((500.0, 0.01), 1.0, TOLERANCES)
    assert pump.distance.scales.tolist() == [pump.distance.span * 500, pump.distance.span * 0.01]
    assert Two((3.0, 3.0), 3.0, ("m", "m")).miss_unit == "m"
    assert Two((3.0, 3.0), 1.0, ("m", "m")).miss_unit == TOLERANCES
    assert Two((3.0, 2.0), 1.0, ("m", "m")).miss_unit == TOLERANCES
    # Judged with, not simulated with.
    assert identify(Pump()) == identify(Pump((1.0, 2.0)))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Two((3.0, 2.0), 3.0, ("m", "m")), "tolerance: must be 1"),
        (Two((3.0, 3.0), 3.0), "tolerance: must be 1"),
        (Two((3.0,)), "one an outcome, 2, got"),
        (Two((3.0, -1.0)), "tolerances: must be positive"),
        (Two((3.0, math.inf)), "tolerances: must be positive"),
    ],
)
def test_tolerances_are_checked(task: Task, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _ = task.distance


def test_reach_goes_by_each_tolerance() -> None:
    task = Pump()
    wanted = torch.tensor([[101_499.0, 0.9], [101_501.0, 0.9], [100_500.0, 1.0099], [100_500.0, 1.011]], dtype=T)
    assert find_unreachable(task, wanted, torch.zeros(4, 0)).tolist() == [False, True, False, True]


def test_r_t_is_in_raw_units_where_outcomes_share_one_and_else_in_tolerances() -> None:
    off = torch.tensor([[[3.0, 4.0]]], dtype=T)
    for task, expected in (
        (Two((2.0, 2.0), 2.0, ("m", "m")), (9 + 16) / 2),
        (Two((2.0, 4.0)), (9 / 4 + 16 / 16) / 2),
    ):
        targets = ask([[0.0, 0.0]])
        solution = replace(invert(task, targets, GradientDescent(max_steps=1)), controls=off)
        arrived = torch.zeros(1, 1, dtype=torch.int8)
        solution = replace(solution, believed_miss=torch.zeros(1, 1, dtype=T), start_status=arrived)
        assert float(compute_r_t(task, targets, resimulate(task, targets, solution))[0, 0]) == expected


# ---- what people read


def test_sentences_name_what_misses_are_counted_in() -> None:
    numbers = metrics(1.0, 0.25, 100)
    said = verdict(result(numbers, numbers, unit=TOLERANCES, tolerance=1.0))
    assert "within the tolerances of its outcomes" in said
    assert "The median miss: direct 0.25 tolerances and surrogate 0.25 tolerances." in said
    assert "within 0.01 m" in verdict(result(numbers, numbers))
    assert label_tolerance(0.01, "m") == "tolerance, 0.01 m"
    assert label_tolerance(1.0, TOLERANCES) == "tolerance"
    assert "(median 0.2 tolerances, greatest 0.5 tolerances) is not small against the tolerances" in error_note(
        "pump", Pump(), 0.2, 0.5
    )
