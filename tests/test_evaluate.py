"""Verdicts come from re-simulation alone, and the measures from their definitions."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import compute_r_t, pose, write_answers
from torch import Tensor

from aimback.core.errors import UserError
from aimback.core.ledger import Ledger
from aimback.core.problem import History, Solution, StartStatus, Status
from aimback.data.exactness import Simulated
from aimback.data.targets import Targets
from aimback.evaluate.judge import CANDIDATES, find_reachable, judge, resimulate
from aimback.evaluate.metrics import measure, trace_descents
from aimback.evaluate.tables import (
    CURVE_COLUMNS,
    R_T_COLUMNS,
    AnswerRow,
    read_answers,
    read_by_route,
    write_r_t,
)
from aimback.tasks.cannon_vacuum import CannonVacuum

T = torch.float64
TASK = CannonVacuum()
A, S, L, E, N, _ = StartStatus


def wanted(*distances: float) -> Targets:
    problems = tuple("line 3: not a number" if math.isnan(distance) else "" for distance in distances)
    count = len(distances)
    table = torch.tensor(distances, dtype=T)[:, None]
    return Targets(table, torch.full((count, 0), 0.0, dtype=T), torch.arange(2, count + 2), problems)


def flat_shot(distance: float) -> list[float]:
    """Controls at 45 degrees that land there."""
    return [math.sqrt(distance * TASK.gravity), math.pi / 4]


def told(controls: list[list[list[float]]], believed: list[list[float]], stopped: list[list[int]]) -> Solution:
    """A solution that says this, whatever is true."""
    points, misses = torch.tensor(controls, dtype=T), torch.tensor(believed, dtype=T)
    return Solution(
        points,
        misses,
        torch.tensor(stopped, dtype=torch.int8),
        steps=torch.full(misses.shape, 4),
        steps_to_tolerance=torch.where(misses <= TASK.tolerance, 2, -1),
        history=History(torch.stack([0.5 * points, points]), torch.stack([misses + 1, misses])),
    )


def judged(targets: Targets, solution: Solution) -> list[Status]:
    return [
        Status(code) for code in judge(TASK, targets, solution, resimulate(TASK, targets, solution)).status.tolist()
    ]


@pytest.mark.parametrize(
    ("lands", "target", "believed", "stopped", "status"),
    [
        (5.0, 5.0, 0.0, A, Status.SOLVED),
        (5.0, 5.009, 0.0, A, Status.SOLVED),
        (5.0, 5.2, 0.0, A, Status.MISSED),  # the article's 20 cm
        (5.0, 5.0, 3.0, L, Status.SOLVED),  # a route may hit without knowing it
        (5.0, 6.0, 1.0, S, Status.STALLED),
        (5.0, 6.0, 1.0, L, Status.STEP_LIMIT),
        (5.0, 6.0, 1.0, N, Status.NOT_FINITE),
        (10.197, 25.0, 14.8, S, Status.UNREACHABLE),
        (10.197, 25.0, 14.8, L, Status.UNREACHABLE),
        (10.197, 25.0, 0.0, A, Status.MISSED),  # believed in, and not even reachable
    ],
)
def test_status(lands: float, target: float, believed: float, stopped: int, status: Status) -> None:
    solution = told([[flat_shot(lands)]], [[believed]], [[stopped]])
    assert judged(wanted(target), solution) == [status]


@pytest.mark.parametrize(("poison", "status"), [(math.nan, Status.NOT_FINITE), (math.inf, Status.NO_EVENT)])
def test_a_simulation_that_fails_is_named(poison: float, status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CannonVacuum, "__call__", lambda self, c, k: torch.full((*c.shape[:-1], 1), poison, dtype=T))
    solution = told([[flat_shot(5.0)]], [[0.0]], [[A]])
    assert judged(wanted(5.0), solution) == [status]


def test_invalid_rows_keep_their_place_and_spoil_nothing() -> None:
    targets = wanted(5.0, math.nan, 6.0)
    solution = told([[flat_shot(5.0)], [flat_shot(6.0)]], [[0.0], [0.0]], [[A], [A]])
    answers = judge(TASK, targets, solution, resimulate(TASK, targets, solution))
    assert answers.status.tolist() == [Status.SOLVED, Status.INVALID_INPUT, Status.SOLVED]
    assert bool(torch.isnan(answers.controls[1]).all())
    torch.testing.assert_close(answers.outcome[[0, 2], 0], torch.tensor([5.0, 6.0], dtype=T))


def test_the_best_is_chosen_by_belief_never_by_truth() -> None:
    """The second start is right and the first is believed in."""
    solution = told([[flat_shot(4.0), flat_shot(5.0)]], [[0.0, 0.5]], [[A, L]])
    assert judged(wanted(5.0), solution) == [Status.MISSED]


def test_r_t_by_hand() -> None:
    """Two targets, three candidates each, ranked by belief: squared misses 4, 1, 9 and 0.25, 16, 0."""
    controls = [[flat_shot(5 + miss) for miss in misses] for misses in ([2.0, 1.0, 3.0], [0.5, 4.0, 0.0])]
    solution = told(controls, [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]], [[A, A, A], [A, A, A]])
    truth = resimulate(TASK, wanted(5.0, 5.0), solution)
    expected = torch.tensor([[2.125, 0.25, 0.25, 4.0], [0.625, 0.25, 0.25, 1.0], [0.5, 0.0, 0.0, 1.0]], dtype=T)
    torch.testing.assert_close(compute_r_t(TASK, wanted(5.0, 5.0), truth), expected, rtol=0, atol=1e-12)


def test_a_failed_candidate_leaves_a_gap_in_r_t(tmp_path: Path) -> None:
    """The one candidate ranked first never lands: r_1 is infinite and its cells stay empty."""
    exact = torch.zeros(1, 2, dtype=T)
    missed = torch.tensor([[math.inf, 0.5]], dtype=T)
    truth = Simulated(torch.tensor([[[math.inf], [5.5]]], dtype=T), missed, exact, exact)
    write_r_t(tmp_path / "r_t.csv", {"direct": compute_r_t(TASK, wanted(5.0), truth)})
    assert (
        tmp_path / "r_t.csv"
    ).read_text() == "route,T,mean,q25,median,q75\ndirect,1,,,,\ndirect,2,0.25,0.25,0.25,0.25\n"
    read = read_by_route(tmp_path / "r_t.csv", R_T_COLUMNS)["direct"]
    np.testing.assert_array_equal(read, [[1, *[math.nan] * 4], [2, *[0.25] * 4]])


@pytest.mark.parametrize(
    "damage",
    ["", "route,T,mean\n", "route,T,mean,q25,median,q75\na,1,x,0,0,0\n", "route,T,mean,q25,median,q75\na,1\n", "\0"],
    ids=repr,
)
def test_a_damaged_table_is_one_line(tmp_path: Path, damage: str) -> None:
    (tmp_path / "t.csv").write_text(damage)
    with pytest.raises(UserError, match="t.csv: cannot be read"):
        read_by_route(tmp_path / "t.csv", R_T_COLUMNS)


def test_a_hit_from_outside_the_box_is_no_solution() -> None:
    beyond = [12.0, 0.5]
    lands = float(TASK(torch.tensor(beyond, dtype=T), torch.zeros(0, dtype=T)))
    solution = told([[beyond]], [[0.0]], [[A]])
    assert judged(wanted(lands), solution) == [Status.MISSED]
    targets = wanted(lands)
    truth = resimulate(TASK, targets, solution)
    answers = judge(TASK, targets, solution, truth)
    assert measure(TASK, targets, solution, truth, answers, Ledger())["outside_fraction"] == 1.0


def test_only_the_candidates_ranked_first_are_simulated_again() -> None:
    count = CANDIDATES + 30
    solution = told([[flat_shot(5.0)] * count], [[0.1] * count], [[A] * count])
    assert resimulate(TASK, wanted(5.0), solution).miss.shape == (1, CANDIDATES)


def measured(misses: list[float]) -> dict[str, object]:
    controls = [[flat_shot(5.0 + miss)] for miss in misses]
    solution = told(controls, [[0.0]] * len(misses), [[A]] * len(misses))
    targets = wanted(*[5.0] * len(misses))
    truth = resimulate(TASK, targets, solution)
    ledger = Ledger(simulations=7, evaluations=9, gradients=5, training_examples=3)
    return measure(TASK, targets, solution, truth, judge(TASK, targets, solution, truth), ledger)


def test_measures_by_hand() -> None:
    result = measured([0.0, 0.001, 0.002, 0.5, 1.0])
    assert result["miss_median"] == pytest.approx(0.002, abs=1e-9)
    assert result["miss_max"] == pytest.approx(1.0)
    assert result["miss_relative_max"] == pytest.approx(TASK.gravity / 100)
    assert result["believed_miss_max"] == 0
    assert result["solved_fraction"] == 0.6
    assert result["steps_to_tolerance_median"] == 2
    assert result["arrived_fraction"] == 1
    assert (result["simulations"], result["evaluations"], result["gradients"]) == (7, 9, 5)
    assert result["training_examples"] == 3
    assert result["status"]["solved"] == 3
    assert result["status"]["missed"] == 2


def test_what_cannot_be_solved_is_not_counted() -> None:
    """An invalid row, a target that one route shows to be out of reach, and three that can be solved."""
    targets = wanted(5.0, math.nan, 25.0, 6.0, 7.0)
    controls = [[flat_shot(5.0)], [flat_shot(10.197)], [flat_shot(6.0)], [flat_shot(6.5)]]
    knows = told(controls, [[0.0], [14.8], [0.0], [0.5]], [[A], [S], [A], [S]])
    believes = told(controls, [[0.0], [0.0], [0.0], [0.5]], [[A], [A], [A], [S]])
    truth = resimulate(TASK, targets, knows)
    answers = [judge(TASK, targets, solution, truth) for solution in (knows, believes)]
    assert answers[1].status[2] == Status.MISSED
    reachable = find_reachable(answers)
    assert reachable.tolist() == [True, False, False, True, True]
    for solution, answer in zip((knows, believes), answers, strict=True):
        result = measure(TASK, targets, solution, truth, answer, Ledger(), reachable)
        assert result["solved_fraction"] == pytest.approx(2 / 3)
        assert (result["targets"], result["reachable_targets"]) == (5, 3)
        assert result["miss_max"] == pytest.approx(0.5)


def test_where_no_start_arrived_there_are_no_steps_to_tell() -> None:
    solution = told([[flat_shot(4.0)]], [[1.0]], [[S]])
    targets = wanted(5.0)
    truth = resimulate(TASK, targets, solution)
    result = measure(TASK, targets, solution, truth, judge(TASK, targets, solution, truth), Ledger())
    assert result["steps_to_tolerance_median"] is None
    assert result["arrived_fraction"] == 0


def test_curves_re_simulate_every_step() -> None:
    solution = told([[flat_shot(5.0)]], [[0.0]], [[A]])
    rows = trace_descents(TASK, wanted(5.0), solution, "direct")
    assert [len(row) for row in rows] == [len(CURVE_COLUMNS)] * 2
    speed, angle = (0.5 * value for value in flat_shot(5.0))
    begun = abs(speed**2 * math.sin(2 * angle) / TASK.gravity - 5.0)
    assert rows[0][:2] == ("direct", 0)
    assert rows[0][2] == pytest.approx((TASK.gravity / 100) ** 2)
    assert rows[0][3] == pytest.approx(begun)
    assert rows[1][3] == pytest.approx(0, abs=1e-9)


def test_answers_are_written_to_the_last_digit(tmp_path: Path) -> None:
    targets = wanted(5.0, math.nan)
    solution = told([[flat_shot(5.0)]], [[0.0]], [[A]])
    answers = judge(TASK, targets, solution, resimulate(TASK, targets, solution))
    write_answers(tmp_path / "a.csv", TASK, targets, {"direct": answers})
    with (tmp_path / "a.csv").open() as file:
        first, second = csv.DictReader(file)
    assert float(first["speed [m/s]"]) == flat_shot(5.0)[0]
    assert (first["status"], first["line"], first["wanted distance [m]"]) == ("solved", "2", "5.0")
    assert (second["status"], second["miss"], second["problem"]) == ("invalid_input", "", "line 3: not a number")
    read, invalid = read_answers(tmp_path / "a.csv")
    assert read == AnswerRow("direct", 0, 2, "solved", float(answers.miss[0]), "")
    assert (invalid.line, invalid.problem, math.isnan(invalid.miss)) == (3, "line 3: not a number", True)


def test_no_false_solved_among_many() -> None:
    """30 % of the targets out of reach: none is called solved, all others are."""
    from aimback.solve.levenberg_marquardt import LevenbergMarquardt
    from aimback.solve.multistart import solve

    reachable: Tensor = torch.linspace(0.05, 10.15, 700, dtype=T)
    distances = torch.cat([reachable, torch.linspace(10.25, 30, 300, dtype=T)])
    targets = wanted(*distances.tolist())
    problem = pose(targets.targets, targets.conditions, TASK.box, TASK.tolerance, 10.0)
    solution = solve(TASK, problem, LevenbergMarquardt(), torch.Generator().manual_seed(0))
    answers = judge(TASK, targets, solution, resimulate(TASK, targets, solution))
    assert bool((answers.status[:700] == Status.SOLVED).all())
    assert bool((answers.status[700:] == Status.UNREACHABLE).all())
    closest = 100 / TASK.gravity
    torch.testing.assert_close(answers.miss[700:], distances[700:] - closest, rtol=0, atol=1e-6)
