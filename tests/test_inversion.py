"""The direct route on the published tasks: what it reaches, and what it says of what cannot be reached."""

import pytest
import torch
from problems import compute_r_t, pose

from aimback.core.problem import Status
from aimback.data.targets import Targets, draw_targets
from aimback.evaluate.judge import Answers, judge, resimulate
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.ballistics import Ballistics
from aimback.tasks.base import Task
from aimback.tasks.robotic_arm import RoboticArm
from aimback.tasks.sine_wave import SineWave

T = torch.float64


def answered(task: Task, targets: Targets, starts: int = 16) -> tuple[Answers, float]:
    """The answers by the direct route from the task's own guesses, and their r_1."""
    generator = torch.Generator().manual_seed(1)
    guesses = task.draw_starts(len(targets) * starts, generator).unflatten(0, (len(targets), starts))
    problem = pose(targets.targets, targets.conditions, task.box, task.tolerance, task.distance.span, guesses)
    solution = solve(task, problem, LevenbergMarquardt(), generator)
    truth = resimulate(task, targets, solution)
    return judge(task, targets, solution, truth), float(compute_r_t(task, targets, truth)[0, 0])


@pytest.mark.parametrize("task", [SineWave(), RoboticArm(), RoboticArm(convention="kruse2021"), Ballistics()])
def test_every_target_is_hit_to_rounding(task: Task) -> None:
    targets = draw_targets(task, 200, torch.Generator().manual_seed(0))
    answers, r_1 = answered(task, targets)
    assert r_1 < 1e-20
    assert answers.status.tolist() == [Status.SOLVED] * 200
    assert bool(task.box.contains(answers.controls).all())


def test_exact_impacts_score_on_the_grid_what_the_grid_resolves() -> None:
    """It falls short by up to a step of 4 ms: (v dt)^2 / 3 in the mean square, 2e-5 m^2 at the speed of impact."""
    task = Ballistics(readout="grid")
    answers, r_1 = answered(task, draw_targets(task, 500, torch.Generator().manual_seed(0)))
    assert 1e-5 < r_1 < 4e-5
    assert float(answers.believed_miss.max()) < 1e-9


def test_what_the_arm_cannot_reach_is_said_and_how_near_it_comes() -> None:
    """Straight out it is 2 m long and its shoulder moves by 0.6 m; (2, 1.7) lies within the range of either
    coordinate, but not of both together."""
    task = RoboticArm(convention="kruse2021")
    wanted = torch.tensor([[5.0, 0.0], [0.0, 9.0], [2.0, 1.7], [1.9, 0.5]], dtype=T)
    none, lines = torch.zeros(4, 0, dtype=T), torch.zeros(4, dtype=torch.int64)
    answers, _ = answered(task, Targets(wanted, none, lines, ("",) * 4))
    status = [Status(code) for code in answers.status.tolist()]
    assert status == [Status.UNREACHABLE, Status.UNREACHABLE, Status.STALLED, Status.SOLVED]
    assert float(answers.miss[0]) == pytest.approx(3.0)
    # From the shoulder at its highest straight towards the target; x is then farther off than y.
    assert float(answers.miss[2]) == pytest.approx(2.0 - 2 * 2.0 / (2.0**2 + 1.1**2) ** 0.5)
