"""Randomised smoothing against closed forms, and what it is for: tasks whose own gradient leads nowhere."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Repository
from made_up import published_bounce
from problems import pose, seeded
from pydantic import ValidationError
from torch import Tensor

from aimback.autodiff.any_torch import linearise_by_autograd
from aimback.autodiff.dual import linearise
from aimback.core.box import Axis, Box
from aimback.core.errors import UserError
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import Linearised, Solution, StartStatus
from aimback.data.solution import load_solution
from aimback.data.targets import draw_targets, load_targets
from aimback.solve import smoothed
from aimback.solve.continuation import solve_by_continuation
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.smoothed import Smoothed
from aimback.solve.smoothing_settings import Order, Smoothing
from aimback.tasks.ball_with_wall import BallWithWall
from aimback.tasks.base import Task
from aimback.tasks.bouncing_ball import BouncingBall
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.robotic_arm import RoboticArm

T = torch.float64
ORDERS: tuple[Order, ...] = ("zeroth", "first", "switch")
LADDER = (0.1, 0.03, 0.01)


class Map:
    """A forward map of one formula; it remembers what it was asked."""

    def __init__(self, formula: Any) -> None:
        self.formula = formula
        self.asked: list[Tensor] = []

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        self.asked.append(controls.value if hasattr(controls, "value") else controls)
        return self.formula(controls, conditions)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return linearise(self, controls, conditions)


def line(lower: float = 0.0, upper: float = 1.0) -> Box:
    return Box([Axis("x", "", lower, upper)])


def smooth(forward: Linearised, box: Box, sigma: float, order: Order, samples: int = 32) -> Smoothed:
    return Smoothed(forward, box, sigma, samples, order, seeded())


def rows(*controls: float) -> tuple[Tensor, Tensor]:
    points = torch.tensor(controls, dtype=T)[:, None]
    return points, points[:, :0]


# ---- the estimators


@pytest.mark.parametrize("order", ORDERS)
def test_a_linear_map_is_left_as_it_is(order: Order) -> None:
    """To rounding, however few the samples, in boxes of any widths, as long as no perturbation meets a wall."""
    box = Box([Axis("a", "m", -3.0, 5.0), Axis("b", "rad", 0.0, 0.1), Axis("c", "", 10.0, 1010.0)])
    matrix = torch.tensor([[1.0, -2.0, 0.5], [0.0, 30.0, -0.01]], dtype=T)

    def formula(controls: Any, conditions: Tensor) -> Any:
        a, b, c = controls.unbind(-1)
        return torch.stack([1 + matrix[i, 0] * a + matrix[i, 1] * b + matrix[i, 2] * c for i in range(2)], dim=-1)

    controls = box.shrink(0.4).sample(20, seeded(1))
    outcome, jacobian = smooth(Map(formula), box, 0.05, order, 6).linearise(controls, controls[:, :0])
    torch.testing.assert_close(outcome, formula(controls, controls[:, :0]))
    torch.testing.assert_close(jacobian, matrix.expand(20, 2, 3), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", ORDERS)
def test_a_parabola_is_raised_by_the_variance(order: Order) -> None:
    """E (x + s z)^2 = x^2 + s^2 with s in units of the control, and its slope is 2 x: exact by matched moments."""
    controls, none = rows(-0.5, 0.1, 0.7)
    outcome, jacobian = smooth(Map(lambda x, _: x * x), line(-4.0, 4.0), 0.05, order).linearise(controls, none)
    torch.testing.assert_close(outcome, controls**2 + 0.4**2)
    torch.testing.assert_close(jacobian[..., 0], 2 * controls)


@pytest.mark.parametrize("order", ORDERS)
def test_a_wave_is_flattened_as_its_integral_says(order: Order) -> None:
    """E sin(x + s z) = exp(-s^2 / 2) sin x, to the noise of 4000 samples."""
    controls, none = rows(-1.0, 0.3, 1.2)
    outcome, jacobian = smooth(Map(lambda x, _: torch.sin(x)), line(-5.0, 5.0), 0.05, order, 4000).linearise(
        controls, none
    )
    factor = math.exp(-(0.5**2) / 2)
    torch.testing.assert_close(outcome, factor * torch.sin(controls), rtol=0, atol=0.02)
    torch.testing.assert_close(jacobian[..., 0], factor * torch.cos(controls), rtol=0, atol=0.02)


def test_the_zeroth_order_sees_a_jump_and_the_first_does_not() -> None:
    """Of a unit step at 0.5 the smoothed slope is the Gaussian density; the mean of its derivatives is nought."""
    step = Map(lambda x, _: torch.where((x.value if hasattr(x, "value") else x) > 0.5, x * 0 + 1, x * 0))
    controls, none = rows(0.35, 0.5, 0.6)
    density = torch.exp(-0.5 * ((controls - 0.5) / 0.1) ** 2) / (0.1 * math.sqrt(2 * math.pi))
    looks = [smooth(step, line(), 0.1, order, 4000).linearise(controls, none) for order in ORDERS]
    values, slopes = zip(*looks, strict=True)
    torch.testing.assert_close(values[0], torch.special.ndtr((controls - 0.5) / 0.1), rtol=0, atol=0.02)
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=0)
    torch.testing.assert_close(slopes[0][..., 0], density, rtol=0.1, atol=0)
    assert float(slopes[1].abs().max()) == 0


def test_the_switch_takes_the_order_that_an_outcome_asks_for() -> None:
    """Where it is smooth the first; where it jumps among the perturbations the zeroth, and far from there the first."""

    def formula(x: Any, _: Tensor) -> Any:
        bare = x.value if hasattr(x, "value") else x
        return torch.cat([torch.sin(5 * x), x + torch.where(bare > 0.5, 1.0, 0.0)], dim=-1)

    controls, none = rows(0.05, 0.45, 0.55, 0.95)
    zeroth, first, switched = (
        smooth(Map(formula), line(), 0.1, order).linearise(controls, none)[1] for order in ORDERS
    )
    torch.testing.assert_close(switched[:, 0], first[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(switched[1:3, 1], zeroth[1:3, 1], rtol=0, atol=0)
    torch.testing.assert_close(switched[::3, 1], first[::3, 1], rtol=0, atol=0)
    assert bool((first != zeroth)[:, 0].all() and (first != zeroth)[1:3, 1].all())


def test_the_first_order_is_the_derivative_of_the_very_map() -> None:
    """The perturbations are the same everywhere, so the mean is a function like any other; walls included."""
    task = CannonDrag()
    controls, conditions = task.box.sample(40, seeded(1)), task.conditions.sample(40, seeded(2))
    mean = smooth(task, task.box, 0.2, "first")
    outcome, jacobian = mean.linearise(controls, conditions)
    value, gradient = linearise_by_autograd(mean, controls, conditions)
    torch.testing.assert_close(outcome, value, rtol=0, atol=0)
    torch.testing.assert_close(jacobian, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_a_wall_leaves_half_of_the_slope_and_is_never_passed(order: Order) -> None:
    forward = Map(lambda x, _: 3 * x)
    controls, none = rows(2.0, 6.0)
    outcome, jacobian = smooth(forward, line(2.0, 6.0), 0.1, order).linearise(controls, none)
    torch.testing.assert_close(jacobian[..., 0], torch.full((2, 1), 1.5, dtype=T))
    assert float(outcome[0]) > 6 and float(outcome[1]) < 18
    asked = torch.cat([points.flatten() for points in forward.asked])
    assert (float(asked.min()), float(asked.max())) == (2.0, 6.0)


def test_both_orders_agree_where_nothing_jumps() -> None:
    """Four controls and two outcomes, to the noise of 4000 samples."""
    task = RoboticArm()
    controls = task.box.sample(10, seeded(1))
    looks = [smooth(task, task.box, 0.1, order, 4000).linearise(controls, controls[:, :0]) for order in ORDERS]
    torch.testing.assert_close(looks[0][0], looks[1][0])
    torch.testing.assert_close(looks[0][1], looks[1][1], rtol=0, atol=0.1)
    assert looks[0][1].shape == (10, 2, 4)


# ---- a map like any other


@pytest.mark.parametrize("order", ORDERS)
def test_a_rows_bits_are_its_own(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, in a batch, in any leading shape, and however many rows are evaluated at once."""
    task = CannonDrag()
    controls, conditions = task.box.sample(60, seeded(1)), task.conditions.sample(60, seeded(2))
    mean = smooth(task, task.box, 0.1, order)
    outcome, jacobian = mean.linearise(controls, conditions)
    for row in (0, 17, 59):
        for whole, alone in zip((outcome, jacobian), mean.linearise(controls[row], conditions[row]), strict=True):
            torch.testing.assert_close(alone, whole[row], rtol=0, atol=0)
    shaped = mean.linearise(controls.reshape(3, 4, 5, 2), conditions.reshape(3, 4, 5, 1))
    monkeypatch.setattr(smoothed, "_ROWS", 7 * 32)
    chunked = mean.linearise(controls, conditions)
    for whole, inner, parts in zip((outcome, jacobian), shaped, chunked, strict=True):
        torch.testing.assert_close(inner.flatten(0, 2), whole, rtol=0, atol=0)
        torch.testing.assert_close(parts, whole, rtol=0, atol=0)
    torch.testing.assert_close(mean(controls, conditions), outcome, rtol=0, atol=0)


def test_the_same_generator_gives_the_same_map() -> None:
    controls, none = rows(0.2, 0.5)
    forward = Map(lambda x, _: torch.sin(9 * x))
    first, again, other = (Smoothed(forward, line(), 0.1, 8, "zeroth", seeded(seed)) for seed in (1, 1, 2))
    torch.testing.assert_close(first(controls, none), again(controls, none), rtol=0, atol=0)
    assert not torch.equal(first(controls, none), other(controls, none))


def test_every_sample_is_on_the_ledger() -> None:
    """As a simulation; as a gradient where its derivative is asked for."""
    task, ledgers = BallWithWall(), (Ledger(), Ledger(), Ledger())
    for order, ledger in zip(ORDERS, ledgers, strict=True):
        mean = smooth(Counted(task, ledger, simulates=True), task.box, 0.1, order, 10)
        mean.linearise(*rows(0.2, 0.5, 0.9))
        mean(*rows(0.2))
    assert [(ledger.simulations, ledger.evaluations, ledger.gradients) for ledger in ledgers] == [
        (40, 40, 0),
        (40, 40, 30),
        (40, 40, 30),
    ]


# ---- what it is for


def descended(
    task: Task, target: float, start: float, sigmas: tuple[float, ...], order: Order = "zeroth"
) -> tuple[float, Solution]:
    """The true miss of the direct route's answer from one start, and all it says of it."""
    span = float((task.outcomes.upper - task.outcomes.lower).item())
    targets, none = rows(target)
    problem = pose(targets, none, task.box, task.tolerance, span, rows(start)[0][None])
    solver = LevenbergMarquardt()
    generator = seeded()
    maps = [Smoothed(task, task.box, sigma, 32, order, generator) for sigma in sigmas]
    solution = solve_by_continuation([*maps, task], problem, solver, seeded())
    miss = abs(float(task(solution.controls[0, 0], none[0])) - target)
    assert float(solution.believed_miss) == pytest.approx(miss, abs=1e-15)
    return miss, solution


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("target", "start"), [(0.101, 0.5), (0.101, 0.2), (0.08, 1.22), (0.09, 1.25)])
def test_smoothing_gets_over_the_wall(target: float, start: float, order: Order) -> None:
    """From before it and from behind it; the simulator's own gradient stops at the flat stretch between."""
    task = BallWithWall()
    plain, stuck = descended(task, target, start, ())
    assert plain > 100 * task.tolerance
    assert int(stuck.start_status) == StartStatus.STALLED
    assert descended(task, target, start, LADDER, order)[0] <= task.tolerance


def test_smoothing_finds_the_sign_of_the_naive_bounce() -> None:
    """+1 is what autograd says, and so does the mean of it; differences and the switch say -1, the truth."""
    task = published_bounce()
    heights = task.box.from_unit(torch.linspace(0.35, 0.65, 200, dtype=T)[:, None])
    zeroth, first, switched = (
        smooth(task, task.box, 0.1, order, 64).linearise(heights, heights[:, :0])[1] for order in ORDERS
    )
    torch.testing.assert_close(switched, zeroth, rtol=0, atol=0)
    torch.testing.assert_close(zeroth, torch.full_like(zeroth, -1.0), rtol=0.2, atol=0)
    assert float(zeroth.mean()) == pytest.approx(-1, abs=0.02)
    torch.testing.assert_close(first, torch.ones_like(first))


def share_solved(task: Task, sigmas: tuple[float, ...], order: Order, starts: int = 1) -> float:
    """Of 200 targets that can be hit."""
    targets = draw_targets(task, 200, seeded(1))
    span = float((task.outcomes.upper - task.outcomes.lower).item())
    problem = pose(targets.targets, targets.conditions, task.box, task.tolerance, span, starts, 3)
    generator = seeded(2)
    maps = [Smoothed(task, task.box, sigma, 32, order, generator) for sigma in sigmas]
    solution = solve_by_continuation([*maps, task], problem, LevenbergMarquardt(), seeded(3))
    return float((solution.believed_miss.amin(1) <= task.tolerance).double().mean())


def test_what_the_remedies_are_worth() -> None:
    """From one start each: the first order does not help with the naive bounce, all help with the wall."""
    bounce, wall = published_bounce(), BallWithWall()
    assert share_solved(bounce, (), "zeroth") < 0.1
    assert share_solved(bounce, LADDER, "first") < 0.1
    assert all(share_solved(bounce, LADDER, order) > 0.9 for order in ("zeroth", "switch"))
    assert share_solved(published_bounce(contact="time_of_impact"), (), "zeroth") == 1
    assert share_solved(wall, (), "zeroth") < 0.75
    assert all(share_solved(wall, LADDER, order) > 0.85 for order in ORDERS)


# ---- descents in turn


def test_a_single_descent_in_turn_is_that_descent() -> None:
    task = CannonDrag()
    targets = draw_targets(task, 20, seeded(1))
    problem = pose(targets.targets, targets.conditions, task.box, task.tolerance, 10.0, seed=3)
    alone = solve(task, problem, LevenbergMarquardt(), seeded(3))
    in_turn = solve_by_continuation([task], problem, LevenbergMarquardt(), seeded(3))
    for name in ("controls", "believed_miss", "start_status", "steps", "steps_to_tolerance"):
        torch.testing.assert_close(getattr(in_turn, name), getattr(alone, name), rtol=0, atol=0)


def test_the_last_map_decides_and_all_steps_count() -> None:
    """The first map is off by 0.3 on purpose: only a warm start is taken from it."""
    off, right = Map(lambda x, _: x * x + 0.3), Map(lambda x, _: x * x)
    targets, none = rows(0.49, 0.64)
    problem = pose(targets, none, line(), 1e-3, 1.0, 2)
    told: list[tuple[int, int]] = []
    ways = [
        solve_by_continuation(maps, problem, LevenbergMarquardt(), seeded(), lambda *counts: told.append(counts))
        for maps in ([off, right], [right])
    ]
    solution, plain = ways
    torch.testing.assert_close(solution.controls.square(), targets[:, None].expand(2, 2, 1), rtol=0, atol=1e-6)
    assert bool((solution.start_status == StartStatus.ARRIVED).all())
    first = solve(off, problem, LevenbergMarquardt(precision=1e-3), seeded())
    assert bool((solution.steps_to_tolerance > first.steps).all())
    assert bool((solution.steps >= solution.steps_to_tolerance).all())
    # The path: the first map's steps with its start, then the second's with its own first look.
    path = solution.history.controls
    assert len(path) == len(solution.history.believed_miss) > len(first.history.controls)
    torch.testing.assert_close(path[: len(first.history.controls)], first.history.controls, rtol=0, atol=0)
    torch.testing.assert_close(path[len(first.history.controls)], first.controls, rtol=0, atol=0)
    torch.testing.assert_close(path[-1], solution.controls)
    assert max(count for _, count in told) == 2 and plain.steps.shape == solution.steps.shape


def test_a_map_that_fails_leaves_the_start_where_it_was() -> None:
    failing, right = Map(lambda x, _: x * math.nan), Map(lambda x, _: x * x)
    targets, none = rows(0.49)
    problem = pose(targets, none, line(), 1e-3, 1.0)
    through, plain = (
        solve_by_continuation(maps, problem, LevenbergMarquardt(), seeded()) for maps in ([failing, right], [right])
    )
    torch.testing.assert_close(through.controls, plain.controls, rtol=0, atol=0)


# ---- the stage, and its settings


@pytest.mark.slow
def test_the_direct_route_takes_the_remedy_that_is_configured(tmp_path: Path) -> None:
    """And none where none is asked for; twice the same is the same bytes."""
    repository = Repository(tmp_path, git=False)
    made = "outputs/by_hand/made"
    common = ["task=bouncing_ball", "data.examples=20", "data.targets=50", "starts.number=1"]
    repository.run("pipelines.generate", *common, f"hydra.run.dir={made}").ok()

    def optimised(name: str, *overrides: str) -> tuple[dict[str, int], float, bytes]:
        """The ledger, the share of targets that are truly hit, and the file."""
        folder = f"outputs/by_hand/{name}"
        given = (*common, f"inputs=[{made}]", f"hydra.run.dir={folder}")
        repository.run("pipelines.optimise", *given, *overrides).ok()
        written = repository.root / folder / "bouncing_ball" / "routes" / "direct"
        task = BouncingBall(time_step=1e-4, steps=4060)
        targets = load_targets(repository.root / made / "bouncing_ball" / "data" / "targets.npz", task)
        controls = load_solution(written / "solution.npz", task).controls[:, 0]
        miss = (task(controls, targets.conditions) - targets.targets).abs()
        share = float((miss <= task.tolerance).double().mean())
        return json.loads((written / "ledger.json").read_text()), share, (written / "solution.npz").read_bytes()

    off, share_off, _ = optimised("off")
    assert off["gradients"] == off["simulations"] and share_off < 0.2
    zeroth, share_on, solution = optimised("zeroth", "smoothing=zeroth_order")
    assert zeroth["gradients"] < zeroth["simulations"] == zeroth["evaluations"] and share_on > 0.9
    assert optimised("again", "smoothing=zeroth_order")[2] == solution
    first, share_first, _ = optimised("first", "smoothing=first_order")
    assert first["gradients"] == first["simulations"] > 10 * off["simulations"] and share_first < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigmas": [0.1, 0.2]}, r"sigmas\n.* must have the widest first"),
        ({"sigmas": [0.0]}, r"sigmas\.0\n.* should be greater than 0"),
        ({"sigmas": [math.nan]}, r"sigmas\.0\n.* should be a finite number"),
        ({"samples": 3}, r"samples\n.* should be a multiple of 2"),
        ({"samples": 0}, r"samples\n.* should be greater than or equal to 2"),
        ({"blurs": [5, 10]}, r"blurs\n.* must have the widest first"),
        ({"blurs": [0]}, r"blurs\.0\n.* should be greater than 0"),
        ({"order": "second"}, r"order\n.* should be 'zeroth', 'first' or 'switch'"),
    ],
)
def test_values_out_of_range_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Smoothing(**{"sigmas": [0.1], "samples": 4, "order": "zeroth", "blurs": []} | change)


def test_too_few_samples_for_the_controls_are_named() -> None:
    with pytest.raises(UserError, match="^samples: at least two a control, 4"):
        smooth(CannonDrag(), CannonDrag().box, 0.1, "zeroth", 2)
