"""Among the answers that hit, the one that its user would rather have, by the route's own belief."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import pose, seeded, write_answers, write_distinct

from aimback.core.errors import UserError
from aimback.core.problem import Solution, Status
from aimback.data.solution import load_solution, save_solution
from aimback.data.targets import Targets
from aimback.evaluate.distinct import find_distinct
from aimback.evaluate.judge import judge, resimulate
from aimback.settings.build import build
from aimback.settings.foreign import hash_code
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.base import Task
from aimback.tasks.cannon_vacuum import CannonVacuum

G = 9.81
NODE = {
    "simulator": {"call": "foreign:count", "arrays": "torch", "cases": "batch", "derivatives": "finite_differences"},
    "controls": {"speed": [1, 10, "m/s"], "angle": [0.1, 1.4, "rad"]},
    "outcomes": {"distance": {"unit": "m", "tolerance": 0.01, "range": [0, 10]}},
}


def prefer(preference: dict[str, Any] | None) -> Task:
    node = {**NODE, "simulator": {**NODE["simulator"], "arrays": "numpy", "step": 1e-6}}
    return build(node if preference is None else {**node, "preference": preference}, Task)  # type: ignore[type-abstract]


def solved(task: Task, path: Path, distances: tuple[float, ...] = (5.0, 8.0, 25.0), starts: int = 64) -> Solution:
    """What a stage reads of a solution."""
    wanted = torch.tensor(distances, dtype=torch.float64)[:, None]
    problem = pose(wanted, wanted[:, :0], task.box, task.tolerance, task.distance.span, starts)
    save_solution(path / "s.npz", [solve(task, problem, LevenbergMarquardt(), seeded())], task)
    return load_solution(path / "s.npz", task)


def ask(*distances: float) -> Targets:
    table = torch.tensor(distances, dtype=torch.float64)[:, None]
    return Targets(table, table[:, :0], torch.zeros(len(table), dtype=torch.int64), ("",) * len(table))


def test_the_reference_is_weighed_in_lengths_of_the_ranges() -> None:
    costs = prefer({"reference": {"speed": 5.5, "angle": 0.75}, "weights": {"angle": 2.0}}).compute_costs(
        torch.tensor([[5.5, 0.75], [10.0, 0.75], [5.5, 1.4], [1.0, 0.1]], dtype=torch.float64)
    )
    assert costs is not None
    assert costs.tolist() == pytest.approx([0.0, 0.5, 1.0, math.sqrt(1.25)])
    speed_alone = prefer({"reference": {"speed": 5.5}}).compute_costs(torch.tensor([[10.0, 0.1]]))
    assert speed_alone is not None and speed_alone.tolist() == [0.5]


@pytest.mark.parametrize(
    "preference", [{"reference": {"speed": 1.0}}, {"cost": "foreign:energy"}], ids=["reference", "cost"]
)
def test_the_slowest_of_the_shots_that_hit_is_taken(preference: dict[str, Any], tmp_path: Path) -> None:
    """Least speed at a distance R is that at 45 degrees, sqrt(g R); of 64 starts one comes close."""
    task = prefer(preference)
    solution = solved(task, tmp_path)
    speeds = solution.controls[..., 0]
    hits = solution.believed_miss <= task.tolerance
    best = solution.best()
    assert solution.costs is not None and bool(solution.costs[~hits].isinf().all())
    for row, distance in enumerate((5.0, 8.0)):
        slowest = float(speeds[row, best[row]])
        assert slowest == float(speeds[row][hits[row]].min())
        assert math.sqrt(G * distance) - 1e-6 <= slowest < 1.02 * math.sqrt(G * distance)
        ranked = solution.ranking()[row]
        assert bool((speeds[row, ranked][hits[row, ranked]].diff() >= 0).all())
    # None reaches 25 m, so the least miss is the answer, as without a preference.
    assert int(best[2]) == int(replace(solution, costs=None).best()[2])


def test_belief_chooses_and_never_the_truth(tmp_path: Path) -> None:
    """A cheap answer that only the route believes in is taken, and missed."""
    task = prefer({"reference": {"speed": 1.0}})
    solution = solved(task, tmp_path, (5.0,), 4)
    cheap = solution.controls.clone()
    cheap[0, 3] = torch.tensor([2.0, 0.7])
    save_solution(tmp_path / "s.npz", [replace(solution, controls=cheap, costs=None)], task)
    deluded = load_solution(tmp_path / "s.npz", task)
    assert deluded.best().tolist() == [3]
    targets = ask(5.0)
    answers = judge(task, targets, deluded, resimulate(task, targets, deluded))
    assert answers.status.tolist() == [Status.MISSED]


def test_without_a_preference_nothing_has_a_cost(tmp_path: Path) -> None:
    task = prefer(None)
    solution = solved(task, tmp_path)
    assert solution.costs is None and CannonVacuum().compute_costs(torch.zeros(1, 2)) is None
    assert torch.equal(solution.ranking(), solution.believed_miss.argsort(dim=-1, stable=True))


def test_costs_stand_in_the_tables(tmp_path: Path) -> None:
    task, targets = prefer({"cost": "foreign:energy"}), ask(5.0, 8.0, 25.0)
    solution = solved(task, tmp_path)
    truth = resimulate(task, targets, solution)
    write_answers(tmp_path / "a.csv", task, targets, {"direct": judge(task, targets, solution, truth)})
    write_distinct(tmp_path / "d.csv", task, {"direct": find_distinct(task, targets, solution, truth)})
    tables = {}
    for name in ("a", "d"):
        with (tmp_path / f"{name}.csv").open() as file:
            tables[name] = list(csv.DictReader(file))
        assert all(float(row["cost"]) == float(row["speed [m/s]"]) ** 2 for row in tables[name])
    first = [row for row in tables["d"] if row["number"] == "1"]
    assert [row["cost"] for row in first] == [row["cost"] for row in tables["a"][:2]]
    costs = [float(row["cost"]) for row in tables["d"] if row["target"] == "0"]
    assert len(costs) > 2 and costs == sorted(costs)


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        ({}, "give either a reference, {speed: 5.0}, or a cost"),
        ({"reference": {"speed": 1.0}, "cost": "a:b"}, "give either a reference"),
        ({"reference": {"sped": 1.0}}, "preference.reference.sped: is no control with a range; these are speed, angle"),
        ({"reference": {"speed": 1.0}, "weights": {"angle": 1.0}}, "preference.weights.angle: is not in the reference"),
        ({"reference": {"speed": 1.0}, "weights": {"speed": -1.0}}, "weights.speed: must be at least 0, got -1"),
        ({"reference": {"speed": "fast"}}, "preference.reference.speed: must be a valid number, got 'fast'"),
        ({"cost": "foreign:energy", "weights": {"speed": 1.0}}, "weights: are those of a reference"),
        ({"refrence": {"speed": 1.0}}, "preference.refrence: unknown key; did you mean reference?"),
    ],
)
def test_a_wrong_preference_is_one_line(preference: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        build({**NODE, "preference": preference}, Task, "task.drop")  # type: ignore[type-abstract]
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert str(raised.value).startswith("task.drop.preference")


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ("foreign:sulk", "preference.cost: foreign:sulk gave no number at {'speed': 1.0, 'angle': 0.5} (ValueError"),
        ("foreign:in_dual_numbers", "preference.cost: foreign:in_dual_numbers gave no number at"),
        ("foreign:nowhere", "foreign:nowhere: the module has no function nowhere"),
    ],
)
def test_a_cost_that_fails_is_one_line(cost: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        prefer({"cost": cost}).compute_costs(torch.tensor([[1.0, 0.5]], dtype=torch.float64))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_the_cost_is_trusted_and_hashed_like_the_simulator() -> None:
    with pytest.raises(UserError, match=r"task.drop.preference.cost: 'os:remove' is not trusted; list it in"):
        hash_code({**NODE, "preference": {"cost": "os:remove"}}, "task.drop", ["foreign"])
    plain = hash_code(NODE, "task.drop", ["foreign"])
    assert hash_code({**NODE, "preference": {"reference": {"speed": 1.0}}}, "task.drop", ["foreign"]) == plain
    assert hash_code({**NODE, "preference": {"cost": "foreign:energy"}}, "task.drop", ["foreign"]) != plain
