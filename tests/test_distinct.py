"""The answers that differ, held against closed forms: all of a few, and a spread sample of a continuum."""

import csv
import math
from pathlib import Path

import pytest
import torch
from problems import pose, seeded, write_distinct
from torch import Tensor

from aimback.core.problem import Solution
from aimback.data.targets import Targets
from aimback.evaluate.distinct import MOST_DISTINCT, SAME_PIECE, SAME_POINT, DistinctAnswers, find_distinct
from aimback.evaluate.judge import resimulate
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.base import Task
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.described import DescribedTask

G, SPEED = 9.81, 8.0
TASK = CannonVacuum()


def shoot(speed: float, angle: Tensor) -> Tensor:
    return speed**2 * torch.sin(2 * angle) / G


def at_one_speed() -> DescribedTask:
    """A cannon whose angle alone can be turned."""
    return DescribedTask(
        {"call": "test:shoot", "arrays": "torch", "cases": "batch", "derivatives": "autograd"},
        {"speed": SPEED, "angle": [0.0, math.pi / 2, "rad"]},
        {"distance": {"unit": "m", "tolerance": 0.01, "range": [0, 7]}},
        function=shoot,
    )


def ask(*distances: float) -> Targets:
    table = torch.tensor(distances, dtype=torch.float64)[:, None]
    problems = tuple("line 3: not a number" if math.isnan(distance) else "" for distance in distances)
    return Targets(table, table[:, :0], torch.zeros(len(table), dtype=torch.int64), problems)


def find(task: Task, targets: Targets, starts: int) -> tuple[Solution, DistinctAnswers]:
    valid = targets.only_valid()
    problem = pose(valid.targets, valid.conditions, task.box, task.tolerance, task.distance.span, starts)
    solution = solve(task, problem, LevenbergMarquardt(), seeded())
    return solution, find_distinct(task, targets, solution, resimulate(task, targets, solution))


def test_both_arcs_of_a_cannon_are_found_and_nothing_else() -> None:
    distances = (3.0, 5.0, 6.4)
    _, found = find(at_one_speed(), ask(*distances), 16)
    assert found.target.tolist() == [0, 0, 1, 1, 2, 2] and found.number.tolist() == [1, 2] * 3
    for target, distance in enumerate(distances):
        low = math.asin(G * distance / SPEED**2) / 2
        angles = sorted(found.controls[found.target == target, 0].tolist())
        assert angles == pytest.approx([low, math.pi / 2 - low], abs=1e-6)
    assert found.count().tolist() == [2, 2, 2]


def test_near_the_summit_both_arcs_are_one_answer() -> None:
    """Their angles are 0.7 % of the range apart there, which is the same."""
    summit = SPEED**2 / G
    _, found = find(at_one_speed(), ask(summit * math.cos(0.007 * math.pi / 2)), 16)
    assert found.number.tolist() == [1]


def test_of_a_continuum_a_few_that_are_far_apart_are_kept() -> None:
    solution, found = find(TASK, ask(5.0, math.nan, 9.0), 64)
    assert set(found.target.tolist()) == {0, 2}
    ranked_first = solution.controls[torch.arange(2), solution.best()]
    for row, target in enumerate((0, 2)):
        mine = found.target == target
        controls, numbers = found.controls[mine], found.number[mine].tolist()
        assert numbers == list(range(1, len(numbers) + 1)) and 2 < len(numbers) <= MOST_DISTINCT
        torch.testing.assert_close(controls[0], ranked_first[row], rtol=0, atol=0)
        unit = TASK.box.to_unit(controls)
        apart = (unit[:, None] - unit).abs().amax(-1)
        assert bool((apart.fill_diagonal_(1.0) > SAME_PIECE).all())
        # Every one of them lands there, and they reach far over both arcs.
        landed = controls[:, 0] ** 2 * torch.sin(2 * controls[:, 1]) / TASK.gravity
        assert bool(((landed - ask(5.0, math.nan, 9.0).targets[target]).abs() <= 0.01).all())
        least = math.asin(TASK.gravity * (5.0, 0.0, 9.0)[target] / 100) / 2
        assert float(controls[:, 1].min()) < 0.5 * (least + math.pi / 4)
        assert float(controls[:, 1].max()) > math.pi / 2 - 0.5 * (least + math.pi / 4)


def test_what_does_not_hit_is_no_answer(tmp_path: Path) -> None:
    _, found = find(TASK, ask(25.0), 8)
    assert len(found) == 0 and len(found.count()) == 0
    write_distinct(tmp_path / "d.csv", TASK, {"direct": found})
    assert (tmp_path / "d.csv").read_text() == "route,target,number,speed [m/s],angle [rad],miss\n"


def test_the_table_has_a_row_an_answer_to_the_last_digit(tmp_path: Path) -> None:
    task = at_one_speed()
    _, found = find(task, ask(5.0), 16)
    write_distinct(tmp_path / "d.csv", task, {"direct": found})
    with (tmp_path / "d.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["route"], row["target"], row["number"]) for row in rows] == [
        ("direct", "0", "1"),
        ("direct", "0", "2"),
    ]
    assert [float(row["angle [rad]"]) for row in rows] == found.controls[:, 0].tolist()
    assert all(float(row["miss"]) <= task.tolerance for row in rows)
    assert SAME_POINT < SAME_PIECE
