"""Steps chosen for an accuracy: the promise against DOP853, where the sample did not look."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import DEGREE, INTERCHANGED, dop853, oracle
from torch import Tensor

from aimback.core.box import Axis, Box, make_axis
from aimback.core.errors import UserError
from aimback.core.problem import ForwardMap
from aimback.data.identity import identify
from aimback.settings.build import build
from aimback.tasks.accuracy import SAFETY, choose_steps, spread_points
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.trebuchet import Trebuchet

T = torch.float64


def hard_and_random(task: CannonDrag) -> tuple[Tensor, Tensor]:
    """Random shots, shots hard by the corners, and fast ones about straight up in the moving air."""
    generator = torch.Generator().manual_seed(17)
    controls, wind = task.box.sample(30, generator), task.conditions.sample(30, generator)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=T)] * 3)
    inward = (1e-3 * torch.rand(8, 3, generator=generator, dtype=T) - corners).abs()
    steep, against = task.box.sample(60, generator), task.conditions.sample(60, generator)
    steep[:, 0] = task.box.upper[0] * (1 - 0.1 * torch.rand(60, generator=generator, dtype=T) ** 4)
    beside = 0.02 * torch.randn(60, generator=generator, dtype=T)
    steep[:, 1] = torch.acos((against[:, 0] / steep[:, 0] + beside).clamp(0, 1))
    return (
        torch.cat([controls, task.box.from_unit(inward[:, :2]), steep]),
        torch.cat([wind, task.conditions.from_unit(inward[:, 2:]), against]),
    )


def errors(task: CannonDrag, controls: Tensor, wind: Tensor, truth: Tensor) -> Tensor:
    return (task(controls, wind)[:, 0] - truth).abs()


def landings(task: CannonDrag, controls: Tensor, wind: Tensor) -> Tensor:
    rows = zip(controls.tolist(), wind.tolist(), strict=True)
    return torch.tensor([dop853(task, *row, *given)[0] for row, given in rows], dtype=T)


@pytest.fixture(scope="module")
def shots() -> tuple[Tensor, Tensor, Tensor]:
    task = CannonDrag()
    controls, wind = hard_and_random(task)
    return controls, wind, landings(task, controls, wind)


@pytest.mark.parametrize("accuracy", [3e-4, 1e-5, 1e-7])
def test_the_promise_holds_against_dop853(accuracy: float, shots: tuple[Tensor, Tensor, Tensor]) -> None:
    """And it is not bought with many more steps than it takes: two rungs down it breaks."""
    task = CannonDrag(accuracy=accuracy)
    assert float(errors(task, *shots).max()) <= accuracy
    assert float(errors(CannonDrag(steps=task.steps // 2), *shots).max()) > accuracy


@pytest.mark.parametrize(
    "keywords",
    [
        {"launch_height": 2.0},
        {"wind": [-20.0, 20.0]},
        {"wind": [1.0, 1.0]},
        {"angle": [1.2, 1.5]},
        {"speed": [0.0, 50.0], "drag": 0.5},
    ],
    ids=lambda keywords: next(iter(keywords)),
)
def test_the_promise_holds_for_other_cannons(keywords: dict[str, Any]) -> None:
    task = CannonDrag(**keywords, accuracy=1e-5)
    controls, wind = hard_and_random(task)
    controls[:, 1] = controls[:, 1].clamp(*task.box.bounds(controls)[0][1:], *task.box.bounds(controls)[1][1:])
    assert float(errors(task, controls, wind, landings(task, controls, wind)).max()) <= 1e-5


@pytest.mark.parametrize(
    ("keywords", "shot"),
    [
        ({"speed": [0.0, 50.0], "drag": 0.5, "launch_height": 50.0}, (50.0, 0.0151, -1.414)),
        ({"speed": [0.0, 500.0]}, (426.8, 1.511, -2.0)),
        ({"speed": [0.0, 500.0], "drag": 1.0}, (427.0, 1.57, -2.0)),
        ({"speed": [0.0, 500.0], "drag": 1.0, "wind": [-50.0, 50.0], "launch_height": 10.0}, (154.3, 1.556, -50.0)),
        pytest.param(
            {"speed": [0.0, 50.0], "drag": 10.0, "launch_height": 10.0}, (19.03, 0.785, -2.0), marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_the_promise_holds_where_the_landing_is_hard_to_find(
    keywords: dict[str, Any], shot: tuple[float, float, float]
) -> None:
    """Fast balls in thick air, and falls so long that the coarse grids find no landing at all."""
    task = CannonDrag(**keywords, accuracy=0.1)
    controls, wind = torch.tensor(shot, dtype=T).split([2, 1])
    assert task(controls, wind).item() == pytest.approx(dop853(task, *shot)[0], abs=0.1)


def test_fewer_steps_for_less() -> None:
    numbers = [CannonDrag(accuracy=accuracy).steps for accuracy in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)]
    assert numbers == sorted(set(numbers))
    assert all(number % 2 == 0 for number in numbers)


def test_a_parabola_takes_the_fewest_steps() -> None:
    assert CannonDrag(drag=0.0, accuracy=1e-10).steps == 4


def test_the_default_has_not_moved() -> None:
    default = CannonDrag()
    assert default.steps == CannonDrag(steps=None).steps == 16
    assert identify(default) == identify(CannonDrag(steps=16))
    assert "accuracy" not in identify(default)
    assert Trebuchet().steps == 48


def test_the_number_is_what_a_file_is_made_for() -> None:
    """Whoever chose it, the steps make the simulator."""
    default, chosen, finer = CannonDrag(), CannonDrag(accuracy=1e-4), CannonDrag(accuracy=1e-5)
    controls, wind = hard_and_random(default)
    assert chosen.steps == 16
    assert identify(chosen) == identify(default)
    torch.testing.assert_close(chosen(controls, wind), default(controls, wind), rtol=0, atol=0)
    assert identify(finer) != identify(default)


def test_the_choice_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    assert CannonDrag(accuracy=1e-5).steps == CannonDrag(accuracy=1e-5).steps
    assert torch.equal(torch.get_rng_state(), before)


def test_both_may_be_given_where_they_agree() -> None:
    assert CannonDrag(steps=100, accuracy=1e-4).steps == 100


def test_a_config_gives_either() -> None:
    node = {"_target_": "aimback.tasks.cannon_drag.CannonDrag", "steps": None, "accuracy": 1e-5}
    task = build(node, Task, "task.cannon_drag")
    assert isinstance(task, CannonDrag)
    assert task.steps == CannonDrag(accuracy=1e-5).steps
    with pytest.raises(UserError, match=r"^task\.cannon_drag\.steps: 16 are too few for an accuracy of 1e-05 m"):
        build(node | {"steps": 16}, Task, "task.cannon_drag")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CannonDrag(accuracy=0.0), "^accuracy: must be positive and finite, got 0"),
        (lambda: CannonDrag(accuracy=math.nan), "^accuracy: must be positive"),
        (lambda: CannonDrag(accuracy=1e-10), r"^accuracy: 1e-10 m cannot be promised; .* tried, 256, promise some \d"),
        (lambda: CannonDrag(steps=8, accuracy=1e-6), "^steps: 8 are too few for an accuracy of 1e-06 m, which takes"),
        (lambda: CannonDrag(steps=3, accuracy=1e-2), "^steps: must be a whole number from 4 to"),
        (lambda: Trebuchet(integrator="euler60", accuracy=0.1), "^accuracy: euler60 has its own steps"),
        (lambda: Trebuchet(weight=[10.0, 200.0], accuracy=1.0), "^weight: 10 lb do not throw"),
    ],
)
def test_what_cannot_be_promised_is_said(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [1e-1, 1e-3])
def test_the_trebuchets_promise_holds_against_dop853(accuracy: float) -> None:
    """Random shots, and some whose projectile the wind overtakes at its apex."""
    task = Trebuchet(wind=[-10.0, 14.0], accuracy=accuracy)
    asked = [(3.1, 0.4, 77.0), (-9.0, 1.0, 390.0), (10.9, 1.22, 50.5), (13.9, 1.22, 61.0), (13.5, 1.2, 55.0)]
    controls = torch.tensor([[angle, weight] for _, angle, weight in asked], dtype=T)
    wind = torch.tensor([[wind] for wind, _, _ in asked], dtype=T)
    truth = [oracle(wind, angle / DEGREE, weight, INTERCHANGED) for wind, angle, weight in asked]
    error = (task(controls, wind)[:, 0] - torch.tensor(truth, dtype=T)).abs()
    assert float(error.max()) <= accuracy
    assert Trebuchet(accuracy=1e-1).steps < 48


# The choice by itself, on simulators whose error is known.


def choose(accuracy: float, outcomes: Callable[[int], list[float]], bias: float = 0.0) -> int:
    """`bias` is an error that no number of steps removes."""
    rows = torch.arange(len(outcomes(4)), dtype=T)[:, None]

    def truth_in(number: int) -> ForwardMap:
        return lambda controls, conditions: torch.tensor(outcomes(number), dtype=T)[:, None]

    def in_steps(number: int) -> ForwardMap:
        return lambda controls, conditions: bias + torch.tensor(outcomes(number), dtype=T)[:, None]

    return choose_steps(
        None,
        accuracy,
        in_steps,
        truth_in,
        lambda: (rows, rows[:, :0]),
        default=16,
        least=4,
        most=256,
        unit="m",
        axes=[Axis("row", "", 0.0, 9.0)],
    )


@pytest.mark.parametrize("order", [3, 4])
def test_the_fewest_that_keep_a_known_error(order: int) -> None:
    ladder = [4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]
    for accuracy in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
        fitting = [number for number in ladder if SAFETY * number**-order <= 1.001 * accuracy]
        assert choose(accuracy, lambda n, order=order: [1.0, 5.0 + n**-order]) == fitting[0]


def test_an_error_that_steps_do_not_remove_counts() -> None:
    assert choose(1e-2, lambda n: [n**-4.0], bias=1e-3) == 4
    with pytest.raises(UserError, match=r"tried, 256, promise some 0\.02 m at row 0; "):
        choose(1e-2, lambda n: [n**-4.0], bias=1e-2)


def test_what_is_no_number_is_not_accurate() -> None:
    assert choose(1.0, lambda n: [1.0, math.nan if n < 10 else 2.0]) == 12
    assert choose(1.0, lambda n: [1.0, math.inf if n < 100 else 2.0]) == 128
    with pytest.raises(UserError, match="^accuracy: .* tried, 256, cannot follow the motion at row 1; "):
        choose(1.0, lambda n: [0.0, math.nan])


def test_a_grid_that_fails_spoils_no_finer_one() -> None:
    """Neither as a candidate nor as the truth: the fine grid of 64 fails here, and so do its candidates."""
    assert choose(1.0, lambda n: [math.inf if n < 80 else 2.0, math.nan if n < 20 else 1.0]) == 96


def test_spread_points_reach_every_corner() -> None:
    box, conditions = (
        Box([make_axis("a", "", [1, 2]), make_axis("b", "", [0, 0.3])]),
        Box([make_axis("c", "", [5, 5], fixed=True)]),
    )
    points, given = spread_points(box, conditions, counts=(5, 4, 2))
    assert (points.shape, given.shape) == ((40, 2), (40, 1))
    assert bool(box.contains(points).all())
    corners = {tuple(row) for row in points.tolist()} & {(a, b) for a in (1.0, 2.0) for b in (0.0, 0.3)}
    assert len(corners) == 4
    assert bool((given == 5).all())
