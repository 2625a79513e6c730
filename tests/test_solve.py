"""The solvers: they arrive, they keep to the box, they say how they stopped, and starts stay apart."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from problems import Affine, Poisoned, pose, seeded
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.distance import Distance
from aimback.core.errors import UserError
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem, Solution, StartStatus
from aimback.solve.adam import Adam
from aimback.solve.cma_es import CmaEs
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.point import Point
from aimback.solve.solver import Memory, Solver
from aimback.solve.starts import draw_evenly
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum

T = torch.float64
STEPPERS: dict[str, Solver] = {
    "levenberg_marquardt": LevenbergMarquardt(),
    "adam": Adam(),
    "gradient_descent": GradientDescent(),
}
SOLVERS = STEPPERS | {"cma_es": CmaEs()}
SPAN = 10.2


def vacuum_problem(targets: Tensor, tolerance: float = 0.01, starts: int = 8) -> InverseProblem:
    return pose(targets, torch.zeros(len(targets), 0, dtype=T), CannonVacuum().box, tolerance, SPAN, starts)


def fields(solution: Solution) -> list[Tensor]:
    names = ("controls", "believed_miss", "start_status", "steps", "steps_to_tolerance")
    return [getattr(solution, name) for name in names]


@pytest.mark.parametrize("name", SOLVERS)
def test_every_reachable_target_is_hit(name: str) -> None:
    task = CannonVacuum()
    targets = torch.linspace(0.5, 9.5, 19, dtype=T)[:, None]
    solution = solve(task, vacuum_problem(targets), SOLVERS[name], seeded())
    best = solution.controls[torch.arange(19), solution.best()]
    speed, angle = best.unbind(-1)
    # Galileo's parabola, not the task's own code.
    distance = speed**2 * torch.sin(2 * angle) / task.gravity
    assert float((distance - targets[:, 0]).abs().max()) < 1e-3
    assert bool((solution.start_status == StartStatus.ARRIVED).any(1).all())


def test_levenberg_marquardt_arrives_to_rounding_in_few_steps() -> None:
    task = CannonDrag()
    controls, conditions = task.box.sample(200, seeded(1)), task.conditions.sample(200, seeded(2))
    problem = pose(task(controls, conditions), conditions, task.box, 0.01, 9.0)
    solution = solve(task, problem, SOLVERS["levenberg_marquardt"], seeded())
    best = solution.believed_miss.min(1).values
    assert float(best.median()) / 9.0 < 1e-12
    assert float(solution.steps.double().median()) <= 6


@pytest.mark.parametrize("name", SOLVERS)
def test_starts_and_answers_stay_in_the_box(name: str) -> None:
    task = CannonVacuum(speed=[2.0, 4.0], angle=[0.2, 0.5])
    targets = torch.tensor([[0.0], [0.7], [50.0]], dtype=T)
    problem = pose(targets, torch.zeros(3, 0, dtype=T), task.box, 0.01, 1.0)
    solution = solve(task, problem, SOLVERS[name], seeded())
    assert bool(task.box.contains(solution.controls).all())
    assert bool(task.box.contains(solution.history.controls).all())


@pytest.mark.parametrize("name", SOLVERS)
def test_an_unreachable_target_ends_at_its_closest_approach(name: str) -> None:
    task = CannonVacuum()
    solution = solve(task, vacuum_problem(torch.tensor([[25.0]], dtype=T)), SOLVERS[name], seeded())
    assert not bool((solution.start_status == StartStatus.ARRIVED).any())
    # Plain descent creeps along the ridge of greatest range.
    close = {"gradient_descent": 0.05}.get(name, 1e-6)
    assert float(solution.believed_miss.min()) == pytest.approx(25 - 100 / task.gravity, abs=close)
    speed, angle = solution.controls[0, solution.best()[0]].tolist()
    assert speed == pytest.approx(10)
    assert angle == pytest.approx(math.pi / 4, abs=math.sqrt(close))


def test_a_start_on_the_saddle_stalls_and_is_never_called_arrived() -> None:
    """At speed 0 every derivative of the distance vanishes: the article's loss has no slope there."""
    task = CannonVacuum(speed=[0.0, 10.0])

    class FromRest(GradientDescent):
        def propose(self, point: object, memory: object, step: int) -> tuple[Tensor, Memory]:
            raise AssertionError("a start at rest must not be moved")

    class AtRest:
        def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
            return task.linearise(0 * controls, conditions)

    solution = solve(AtRest(), vacuum_problem(torch.full((1, 1), 5.0, dtype=T)), FromRest(), seeded())
    assert solution.start_status.unique().tolist() == [StartStatus.STALLED]
    assert solution.steps.unique().tolist() == [0]


@pytest.mark.parametrize("name", STEPPERS)
@pytest.mark.parametrize(("poison", "status"), [(math.nan, StartStatus.NOT_FINITE), (math.inf, StartStatus.NO_EVENT)])
def test_a_failing_start_is_one_failing_start(name: str, poison: float, status: StartStatus) -> None:
    task = CannonVacuum()
    problem = vacuum_problem(torch.linspace(0.5, 3.0, 10, dtype=T)[:, None])
    sound = solve(task, problem, STEPPERS[name], seeded())
    paths = sound.history.controls[..., 0].amax(0)
    starts = sound.history.controls[0, ..., 0]
    threshold = 8.0
    poisoned = solve(Poisoned(task, poison, threshold), problem, STEPPERS[name], seeded())
    begins_bad, never_near = starts > threshold, paths <= threshold
    assert bool(begins_bad.any())
    assert bool(never_near.any())
    assert bool((poisoned.start_status[begins_bad] == status).all())
    for ours, theirs in zip(fields(sound), fields(poisoned), strict=True):
        torch.testing.assert_close(ours[never_near], theirs[never_near], rtol=0, atol=0)


@pytest.mark.parametrize("name", SOLVERS)
def test_targets_do_not_influence_each_other(name: str) -> None:
    """The same bits whether a target is solved among others or with fewer of them."""
    task = CannonDrag()
    controls, conditions = task.box.sample(12, seeded(1)), task.conditions.sample(12, seeded(2))
    targets = task(controls, conditions)
    targets[3:] = 99.0

    starts = task.box.from_unit(draw_evenly(12, 4, 2, seeded()))

    def solved(count: int) -> Solution:
        problem = pose(targets[:count], conditions[:count], task.box, 0.01, 9.0, starts[:count])
        solver = replace(SOLVERS[name], max_steps=25)
        return solve(task, problem, solver, seeded())

    all_of_them, three = solved(12), solved(3)
    for many, few in zip(fields(all_of_them), fields(three), strict=True):
        torch.testing.assert_close(many[:3], few, rtol=0, atol=0)


@pytest.mark.parametrize("name", STEPPERS)
def test_blocks_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = CannonVacuum()
    problem = vacuum_problem(torch.linspace(0.5, 9.5, 30, dtype=T)[:, None])
    whole = solve(task, problem, STEPPERS[name], seeded())
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr("aimback.solve.multistart._ROWS", 8 * 7)
    blocks = solve(task, problem, STEPPERS[name], seeded(), progress=lambda *done: seen.append(done))
    for ours, theirs in zip(fields(whole), fields(blocks), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    torch.testing.assert_close(whole.history.controls, blocks.history.controls, rtol=0, atol=0)
    assert seen[-1] == (30, 30)
    assert {7, 14, 21, 28} <= {done for done, _ in seen}
    assert seen == sorted(seen)


class Crowded:
    """A cannon on a device that holds only so many rows."""

    def __init__(self, room: int) -> None:
        self.task, self.room, self.refusals = CannonVacuum(), room, 0

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        if len(controls) > self.room:
            self.refusals += 1
            raise torch.OutOfMemoryError
        return self.task.linearise(controls, conditions)


@pytest.mark.parametrize("name", STEPPERS)
@pytest.mark.parametrize(("room", "refusals"), [(239, 1), (60, 2), (8, 4)])
def test_out_of_memory_halves_the_blocks_and_changes_no_bit(name: str, room: int, refusals: int) -> None:
    problem = vacuum_problem(torch.linspace(0.5, 9.5, 30, dtype=T)[:, None])
    solver = replace(STEPPERS[name], max_steps=25)
    whole = solve(CannonVacuum(), problem, solver, seeded())
    crowded = Crowded(room)
    halved = solve(crowded, problem, solver, seeded())
    assert crowded.refusals == refusals
    for ours, theirs in zip(fields(whole), fields(halved), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    torch.testing.assert_close(whole.history.controls, halved.history.controls, rtol=0, atol=0)


def test_out_of_memory_for_a_single_target_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        solve(Crowded(7), vacuum_problem(torch.ones(3, 1, dtype=T)), LevenbergMarquardt(), seeded())


def test_both_routes_give_equal_bits_for_the_same_map() -> None:
    """Law 1: if the surrogate is the simulator, there is no difference."""
    task = CannonDrag()
    controls, conditions = task.box.sample(20, seeded(1)), task.conditions.sample(20, seeded(2))
    problem = pose(task(controls, conditions), conditions, task.box, 0.01, 9.0)
    ledgers = Ledger(), Ledger()
    direct = solve(Counted(task, ledgers[0], simulates=True), problem, LevenbergMarquardt(), seeded(4))
    surrogate = solve(Counted(task, ledgers[1], simulates=False), problem, LevenbergMarquardt(), seeded(4))
    for ours, theirs in zip(fields(direct), fields(surrogate), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert ledgers[0].evaluations == ledgers[1].evaluations == ledgers[0].simulations == ledgers[0].gradients
    assert ledgers[1].simulations == 0


def test_the_ledger_counts_what_is_spent() -> None:
    """One look at every start, then one a step of every start."""
    task, ledger = CannonVacuum(), Ledger()
    problem = vacuum_problem(torch.linspace(1, 9, 5, dtype=T)[:, None])
    solution = solve(Counted(task, ledger, simulates=True), problem, LevenbergMarquardt(), seeded())
    assert ledger.simulations == solution.steps.sum() + solution.steps.numel()


def test_history_begins_at_the_start_and_ends_at_the_answer() -> None:
    problem = vacuum_problem(torch.linspace(1, 9, 5, dtype=T)[:, None])
    solution = solve(CannonVacuum(), problem, LevenbergMarquardt(), seeded())
    start = CannonVacuum().box.from_unit(draw_evenly(5, 8, 2, seeded()))
    torch.testing.assert_close(solution.history.controls[0], start)
    torch.testing.assert_close(solution.history.controls[-1], solution.controls, rtol=0, atol=0)
    assert len(solution.history.controls) == int(solution.steps.max()) + 1
    first = (solution.history.believed_miss <= 0.01).int().argmax(0)
    torch.testing.assert_close(first.int(), solution.steps_to_tolerance)


@pytest.mark.parametrize(("outcomes", "controls"), [*itertools.product([1, 2, 3], [1, 2, 4])])
def test_damped_step_solves_its_normal_equations(outcomes: int, controls: int) -> None:
    jacobian = torch.randn(6, outcomes, controls, generator=seeded(), dtype=T)
    residual = torch.randn(6, outcomes, generator=seeded(1), dtype=T)
    damping = torch.rand(6, generator=seeded(2), dtype=T) + 0.01
    residual = 1e-3 * residual  # so that the step ends inside the box
    middle = torch.full((6, controls), 0.5, dtype=T)
    proposed, _ = LevenbergMarquardt().propose(Point(middle, residual, jacobian), (damping, damping), 1)
    step = proposed - middle
    # The gradient of |r + J d|^2 + damping |d|^2 vanishes.
    left = residual + (jacobian @ step[..., None])[..., 0]
    gradient = (jacobian.transpose(1, 2) @ left[..., None])[..., 0] + damping[:, None] * step
    assert float(gradient.abs().max()) < 1e-12


def test_active_set_reaches_the_constrained_minimum() -> None:
    """|(x, y) - (2, 0.3)| over the unit square: x stops on its bound, y still gets home."""
    # Sheared, so that clamping x alone would leave y wrong.
    shear = Affine(torch.tensor([[1.0, 0.0], [0.9, 1.0]], dtype=T))
    box = Box([Axis("x", "", 0, 1), Axis("y", "", 0, 1)])
    problem = pose(torch.tensor([[2.0, 1.2]], dtype=T), torch.zeros(1, 0, dtype=T), box, 1e-9, 1.0)
    solution = solve(shear, problem, LevenbergMarquardt(), seeded())
    expected = torch.tensor([1.0, 0.3], dtype=T).expand(1, 8, 2)
    torch.testing.assert_close(solution.controls, expected, rtol=0, atol=1e-6)
    assert solution.start_status.unique().tolist() == [StartStatus.STALLED]


def test_cma_es_asks_for_values_only() -> None:
    task, ledger = CannonDrag(), Ledger()
    controls, conditions = task.box.sample(10, seeded(1)), task.conditions.sample(10, seeded(2))
    problem = pose(task(controls, conditions), conditions, task.box, 0.01, 9.0, 2)
    solution = solve(Counted(task, ledger, simulates=True), problem, CmaEs(population=6), seeded())
    assert ledger.gradients == 0
    assert ledger.simulations == 6 * int(solution.steps.sum())
    assert bool((solution.believed_miss.min(1).values < 1e-6).all())


def test_cma_es_outlives_failed_simulations() -> None:
    """Half of the box answers NaN: the runs go round it, and one that sees nothing else says so."""
    task = CannonVacuum()
    problem = vacuum_problem(torch.tensor([[1.0], [2.0]], dtype=T), starts=4)
    solution = solve(Poisoned(task, math.nan, 5.0), problem, CmaEs(), seeded())
    assert bool((solution.start_status == StartStatus.ARRIVED).any(1).all())
    assert bool((solution.controls[solution.start_status == StartStatus.ARRIVED][:, 0] <= 5).all())
    nowhere = solve(Poisoned(task, math.nan, -1.0), problem, CmaEs(), seeded())
    assert nowhere.start_status.unique().tolist() == [StartStatus.NOT_FINITE]


def test_starts_of_the_problem_are_where_the_paths_begin() -> None:
    task = CannonVacuum()
    starts = task.box.sample(6, seeded(5)).unflatten(0, (2, 3))
    starts[0, 0] = torch.tensor([12.0, -0.3], dtype=T)
    problem = pose(torch.full((2, 1), 5.0, dtype=T), torch.zeros(2, 0, dtype=T), task.box, 0.01, SPAN, starts)
    walled = solve(task, problem, Adam(), seeded())
    expected = starts.clone()
    expected[0, 0] = torch.tensor([10.0, 0.0], dtype=T)
    torch.testing.assert_close(walled.history.controls[0], expected)
    soft = solve(task, problem, Adam(boundary=1.0, max_steps=1), seeded())
    torch.testing.assert_close(soft.history.controls[0], starts)


@pytest.mark.parametrize(("boundary", "answer"), [(None, 1.0), (0.0, 1.5), (0.2, 1.4), (10.0, 1.0)])
def test_soft_walls_hold_by_their_price(boundary: float | None, answer: float) -> None:
    """Least (x - 1.5)^2 + price * (x - 1)+ lies at 1.5 - price / 2, but not inside the box."""
    box = Box([Axis("x", "", 0.0, 1.0)])
    problem = pose(torch.tensor([[1.5]], dtype=T), torch.zeros(1, 0, dtype=T), box, 1e-3, 1.0, 4)
    solver = Adam(max_steps=600, step_size=0.1, decay=0.98, boundary=boundary)
    solution = solve(Affine(torch.eye(1, dtype=T)), problem, solver, seeded())
    torch.testing.assert_close(solution.controls, torch.full((1, 4, 1), answer, dtype=T), rtol=0, atol=1e-3)
    expected = torch.full((1, 4), 1.5 - answer, dtype=T)
    torch.testing.assert_close(solution.believed_miss, expected, rtol=0, atol=1e-3)


def test_steps_shrink_on_a_plateau() -> None:
    """Where nothing gets better, Adam's steps keep their length for the patience and one more, then halve."""

    class Hopeless:
        def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros_like(controls), torch.ones(*controls.shape, 1, dtype=controls.dtype)

    box = Box([Axis("x", "", 0.0, 1.0)])
    problem = pose(torch.tensor([[1.0]], dtype=T), torch.zeros(1, 0, dtype=T), box, 1e-3, 1.0, 1)
    solver = Adam(max_steps=9, step_size=0.1, decay=1.0, plateau_patience=2, boundary=0.0)
    path = solve(Hopeless(), problem, solver, seeded()).history.controls[:, 0, 0, 0]
    expected = torch.tensor([0.1] * 3 + [0.05] * 3 + [0.025] * 3, dtype=T)
    torch.testing.assert_close(path.diff(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LevenbergMarquardt(damping=0.0), "damping: must be positive"),
        (lambda: Adam(max_steps=0), "max_steps: must be a whole number from 1 to"),
        (lambda: Adam(decay=1.5), "decay: must lie in"),
        (lambda: Adam(beta1=1.0), "beta1: must lie in"),
        (lambda: Adam(plateau_patience=-1), "plateau_patience: must be a whole number from 0 to"),
        (lambda: Adam(plateau_factor=1.0), "plateau_factor: must lie between"),
        (lambda: Adam(boundary=-1.0), "boundary: must be null, or finite and not negative"),
        (lambda: CmaEs(population=2), "population: must be 0, or a whole number from 4 to"),
        (lambda: CmaEs(step_size=0.0), "step_size: must be positive"),
        (lambda: GradientDescent(step_size=-1.0), "step_size: must be positive"),
        (lambda: GradientDescent(precision=0.0), "precision: must lie between"),
    ],
)
def test_settings_out_of_range_are_named(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": torch.zeros(3, dtype=T)}, "must be"),
        ({"conditions": torch.zeros(2, 0, dtype=T)}, "must be"),
        ({"conditions": torch.zeros(3, 0)}, "must agree"),
        (
            {"targets": torch.zeros(3, 1, dtype=torch.int64), "conditions": torch.zeros(3, 0, dtype=torch.int64)},
            "floating",
        ),
        ({"targets": torch.full((3, 1), math.nan, dtype=T)}, "finite"),
        ({"distance": Distance((0.01, 0.01), 0.01, 1.0)}, "a tolerance for each of the 1 outcomes"),
        ({"starts": torch.zeros(2, 8, 2)}, r"starts must be .* for 3 targets and 2 controls, got \(2, 8, 2\)"),
        ({"starts": torch.zeros(3, 0, 2)}, "starts must be"),
        ({"starts": torch.zeros(3, 8, 1)}, "starts must be"),
        ({"starts": torch.zeros(3, 2)}, "starts must be"),
        ({"starts": torch.full((3, 8, 2), math.inf)}, "starts must be finite"),
    ],
)
def test_a_problem_is_checked_at_the_door(changes: dict[str, Any], message: str) -> None:
    problem = vacuum_problem(torch.zeros(3, 1, dtype=T))
    with pytest.raises(UserError, match=message):
        replace(problem, **changes)


def test_an_answer_may_be_given_twice() -> None:
    rows = torch.tensor([0, 1, 0, 2, 1])
    once = solve(
        CannonVacuum(), vacuum_problem(torch.tensor([[3.0], [1.0], [5.0]], dtype=T)), STEPPERS["adam"], seeded()
    )
    again = once.of(rows)
    for ours, theirs in zip(fields(again), fields(once), strict=True):
        torch.testing.assert_close(ours, theirs[rows], rtol=0, atol=0)
    assert again.history.controls.shape[1] == 3  # paths are kept of so many
    torch.testing.assert_close(again.history.controls[:, 2], once.history.controls[:, 0], rtol=0, atol=0)
