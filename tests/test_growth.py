"""What fewer starts would have solved is what they do solve."""

import math

import pytest
import torch
from problems import Off, pose, seeded

from aimback.core.problem import Status
from aimback.data.targets import Targets
from aimback.evaluate.growth import count_growth
from aimback.evaluate.judge import find_reachable, judge, resimulate
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.multistart import solve
from aimback.tasks.cannon_vacuum import CannonVacuum

TASK = CannonVacuum()


@pytest.mark.parametrize("off", [0.0, 0.008], ids=["direct", "misbelieving"])
def test_counts_are_those_of_runs_with_fewer_starts(off: float) -> None:
    """Some steps of gradient descent, so that many starts do not arrive; one target is invalid, one out of reach."""
    distances = [*torch.linspace(0.3, 10, 60).tolist(), math.nan, 25.0]
    table = torch.tensor(distances, dtype=torch.float64)[:, None]
    problems = ("",) * 60 + ("line 62: not a number", "")
    targets = Targets(table, table[:, :0], torch.zeros(62, dtype=torch.int64), problems)
    valid = targets.only_valid()
    starts = TASK.box.sample(61 * 8, seeded()).unflatten(0, (61, 8))

    def run(number: int) -> tuple[int, dict[int, int]]:
        problem = pose(valid.targets, valid.conditions, TASK.box, TASK.tolerance, 10.0, starts[:, :number])
        solution = solve(Off(TASK, off), problem, GradientDescent(max_steps=12), seeded())
        truth = resimulate(TASK, targets, solution)
        answers = judge(TASK, targets, solution, truth)
        reachable = find_reachable([answers])
        reachable[61] = False
        solved = int((answers.status == Status.SOLVED).sum())
        return solved, count_growth(TASK, targets, solution, truth, reachable)

    solved = {number: run(number)[0] for number in (1, 2, 4, 8)}
    assert run(8)[1] == solved
    assert set(run(6)[1]) == {1, 3, 6}
    assert 0 < solved[1] < solved[8]
