"""What is called solved is solved by tighter references too, whatever the simulator's own steps make of it."""

from typing import Any

import pytest
import torch
from made_up import published_bounce
from problems import DEGREE, INTERCHANGED, OWN, dop853, oracle, pose
from torch import Tensor

from aimback.core.problem import Status
from aimback.data.exactness import SMALL_ERROR, error_note, simulate_closely, simulation_error
from aimback.data.targets import Targets, draw_targets
from aimback.evaluate.judge import Answers, judge, resimulate
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.ballistics import Ballistics
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.trebuchet import Trebuchet

T = torch.float64


def answered(task: Task, targets: Targets) -> Answers:
    """What becomes of the targets by the direct route."""
    problem = pose(targets.targets, targets.conditions, task.box, task.tolerance, task.distance.span, 4, 1)
    solution = solve(task, problem, LevenbergMarquardt(), torch.Generator().manual_seed(1))
    return judge(task, targets, solution, resimulate(task, targets, solution))


def false_solved(task: Task, targets: Targets, answers: Answers, truth: Tensor) -> int:
    miss = (truth - targets.targets[:, 0]).abs()
    return int(((answers.status == Status.SOLVED) & ~(miss <= task.tolerance)).sum())


@pytest.mark.parametrize(
    ("keywords", "old"),
    [
        ({"drag": 0.001, "wind": [-50.0, 50.0], "speed": [0.0, 2000.0]}, 20),
        ({"speed": [0.0, 300.0]}, 5),
        ({"tolerance": 1e-6}, 1),
        ({"steps": 4, "tolerance": 1e-4}, 5),
        ({"steps": 6, "speed": [0.0, 60.0], "drag": 0.2, "wind": [-20.0, 20.0]}, 5),
        ({"launch_height": 30.0, "speed": [0.0, 100.0], "tolerance": 1e-3}, 5),
        ({"steps": 32, "speed": [0.0, 100.0], "tolerance": 1e-6}, 5),
    ],
    ids=str,
)
def test_no_false_solved_of_a_cannon(keywords: dict[str, Any], old: int) -> None:
    """Against DOP853; judged by its own steps, the cannon would call so many answers solved that are not."""
    task = CannonDrag(**keywords)
    targets = draw_targets(task, 40, torch.Generator().manual_seed(0))
    answers = answered(task, targets)
    shots = zip(answers.controls.tolist(), targets.conditions.tolist(), strict=True)
    truth = torch.tensor([dop853(task, *shot, *wind)[0] for shot, wind in shots], dtype=T)
    assert false_solved(task, targets, answers, truth) == 0
    assert not bool((answers.status == Status.UNREACHABLE).any()), "each was drawn within reach"
    by_own_steps = (task(answers.controls, targets.conditions) - targets.targets)[:, 0].abs() <= task.tolerance
    miss = (truth - targets.targets[:, 0]).abs()
    assert int((by_own_steps & (miss > task.tolerance)).sum()) >= old


@pytest.mark.parametrize(
    "keywords",
    [
        {"steps": 12, "inertias": "own", "tolerance": 1e-3},
        pytest.param({"steps": 12}, marks=pytest.mark.slow),
        pytest.param({"tolerance": 1e-5}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_no_false_solved_of_a_trebuchet(keywords: dict[str, Any]) -> None:
    task = Trebuchet(**keywords)
    targets = draw_targets(task, 4, torch.Generator().manual_seed(0))
    answers = answered(task, targets)
    inertias = OWN if task.inertias == "own" else INTERCHANGED
    truth = [
        oracle(wind, angle / DEGREE, weight, inertias)
        for (angle, weight), (wind,) in zip(answers.controls.tolist(), targets.conditions.tolist(), strict=True)
    ]
    assert false_solved(task, targets, answers, torch.tensor(truth, dtype=T)) == 0
    error = simulation_error(task, answers.controls, targets.conditions)
    assert error is not None
    assert float(error.max()) > SMALL_ERROR * task.tolerance


def test_no_false_solved_of_a_bouncing_ball() -> None:
    """The ball itself ends at ground + v T - (y0 - ground), whatever the time steps make of it."""
    task = published_bounce()
    targets = draw_targets(task, 300, torch.Generator().manual_seed(0))
    answers = answered(task, targets)
    truth = 0.1 + 2 * 0.406 - (answers.controls[:, 0] - 0.1)
    assert false_solved(task, targets, answers, truth) == 0
    assert not bool((answers.status == Status.UNREACHABLE).any())
    assert task.settings_of_accuracy() == {"contact": "time_of_impact"}


@pytest.mark.parametrize(
    "task",
    [
        CannonDrag(speed=[0.0, 300.0]),
        CannonDrag(steps=4, speed=[10.0, 20.0]),
        published_bounce(),
        pytest.param(Trebuchet(steps=12), marks=pytest.mark.slow),
    ],
    ids=lambda task: type(task).__name__,
)
def test_the_edge_of_reach_is_not_moved_by_the_steps(task: Task) -> None:
    """Neither what the coarse steps reach, nor what finer ones do, is called out of reach."""
    conditions = task.conditions.sample(20, torch.Generator().manual_seed(3))[:8]
    finer, finest = task.finer(4), task.finer(16)
    assert finer is not None
    assert finest is not None
    low, high = finer.reach(conditions) or ()
    points = task.box.sample(2000, torch.Generator().manual_seed(4))
    edges = task.box.from_unit(torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=T)] * len(task.box)))
    points = torch.cat([points, edges.reshape(-1, len(task.box))])
    for simulator in (task, finest):
        outcomes = simulator(points[:, None].expand(-1, 8, -1), conditions.expand(len(points), -1, -1))
        assert bool((outcomes >= low - 1e-9).all())
        assert bool((outcomes <= high + 1e-9).all())


def test_what_is_exact_has_nothing_finer() -> None:
    for task in (Ballistics(), published_bounce(contact="time_of_impact"), Trebuchet(integrator="euler60")):
        assert task.finer(4) is None
        assert task.settings_of_accuracy() == {}
        assert (
            simulation_error(task, task.box.sample(3, torch.Generator()), task.conditions.sample(3, torch.Generator()))
            is None
        )


CANNON = CannonDrag()


class Wavering(Task):
    """Its outcome is 1 / steps off; with fewer than 8 steps it fails."""

    def __init__(self, steps: int, tolerance: float = 0.01) -> None:
        self.box, self.conditions, self.outcomes = CANNON.box, CANNON.conditions, CANNON.outcomes
        self.steps, self.tolerance = steps, tolerance

    def __call__(self, controls: Any, conditions: Tensor) -> Tensor:
        value = controls[..., :1] + 1 / self.steps
        return value if self.steps >= 8 else torch.full_like(value, torch.nan)

    def finer(self, factor: int) -> "Wavering":
        return Wavering(factor * self.steps, self.tolerance)


@pytest.mark.parametrize(
    ("steps", "miss", "status"),
    [
        (10_000, 0.0, True),  # exact enough
        (100, 0.005, True),  # half of the tolerance, and 1/6400 off after three refinements
        (100, 0.0099, False),  # a hit by the last simulation, and what is left of doubt may take it out
        (4, 0.0, False),  # fails by itself, follows when finer, and stays too far off to be called a hit
        (10, 0.0, True),
    ],
)
def test_a_hit_counts_with_all_that_is_uncertain(steps: int, miss: float, status: bool) -> None:
    controls = torch.tensor([[1.0, 0.0]], dtype=T)
    wanted = torch.tensor([[1.0 - miss]], dtype=T)
    found = simulate_closely(Wavering(steps), controls, torch.zeros(1, 1, dtype=T), wanted)
    assert bool(found.miss + found.doubt <= 0.01) is status
    assert float(found.error) == pytest.approx(abs(1 / steps - float(found.outcome) + 1), rel=1e-9) or steps == 4


def test_the_note_says_what_to_set() -> None:
    assert error_note("cannon_drag", CANNON, 1e-5, 1e-3) == ""
    note = error_note("cannon_drag", CANNON, 1e-5, 2e-3)
    assert "greatest 0.002 m) is not small against the tolerance of 0.01 m" in note
    assert note.endswith("set task.cannon_drag.steps=null task.cannon_drag.accuracy=0.001")
    assert "greatest unknown" in error_note("cannon_drag", CANNON, 1e-5, None)
