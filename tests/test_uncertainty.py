"""The uncertainty of answers, held against closed forms and against measuring again and again."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import pose, seeded, write_distinct
from torch import Tensor

from aimback.core.errors import UserError
from aimback.data.targets import Targets
from aimback.evaluate.distinct import DistinctAnswers, find_distinct
from aimback.evaluate.judge import resimulate
from aimback.evaluate.uncertainty import Uncertainty, propagate
from aimback.simulators.quantity import read_outcomes
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.described import DescribedTask

G = 9.81
CALL: Any = {"call": "test:made", "arrays": "torch", "cases": "batch", "derivatives": "autograd"}


def shoot(speed: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Where it lands, and how high it rises: together they determine both controls."""
    return speed**2 * torch.sin(2 * angle) / G, (speed * torch.sin(angle)) ** 2 / (2 * G)


def make_shot(sigmas: tuple[float, float] = (0.01, 0.004)) -> DescribedTask:
    distance, height = sigmas
    return DescribedTask(
        CALL,
        {"speed": [5.0, 10.0, "m/s"], "angle": [0.3, 1.3, "rad"]},
        {
            "distance": {"unit": "m", "tolerance": 1e-3, "sigma": distance, "range": [0, 10]},
            "height": {"unit": "m", "tolerance": 1e-3, "sigma": height, "range": [0, 5]},
        },
        function=shoot,
    )


def spread(task: DescribedTask, *controls: float) -> Uncertainty:
    row = torch.tensor([controls], dtype=torch.float64)
    found = propagate(task, row, row[:, :0])
    assert found is not None
    return found


def test_one_control_by_its_closed_form() -> None:
    """The angle's deviation is sigma over the slope, 2 v^2 cos(2 a) / g."""
    task = DescribedTask(
        CALL,
        {"speed": 8.0, "angle": [0.0, math.pi / 2, "rad"]},
        {"distance": {"unit": "m", "tolerance": 0.01, "sigma": 0.02, "range": [0, 7]}},
        function=lambda speed, angle: shoot(speed, angle)[0],
    )
    found = spread(task, 0.3)
    assert float(found.deviations) == pytest.approx(0.02 / (2 * 64 * math.cos(0.6) / G), rel=1e-9)
    assert not bool(found.undetermined)
    # At the summit the slope is 0, so the distance tells nothing of the angle, and the range is all that is known.
    summit = spread(task, math.pi / 4)
    assert float(summit.deviations) == pytest.approx(math.pi / 2 / math.sqrt(12))
    assert bool(summit.undetermined)


def test_two_controls_by_the_pseudo_inverse() -> None:
    task = make_shot()
    controls = torch.tensor([[7.0, 0.6]], dtype=torch.float64)
    jacobian = task.linearise(controls, controls[:, :0])[1][0]
    weights = torch.diag(torch.tensor([0.01, 0.004], dtype=torch.float64) ** -2)
    covariance = torch.linalg.pinv(jacobian.T @ weights @ jacobian)
    torch.testing.assert_close(spread(task, 7.0, 0.6).deviations[0], covariance.diagonal().sqrt(), rtol=1e-6, atol=0)


def test_measuring_again_and_again_gives_the_same_deviations() -> None:
    """4000 targets with errors of these deviations, each solved for."""
    task, truth = make_shot(), torch.tensor([[7.0, 0.6]], dtype=torch.float64)
    exact = task(truth, truth[:, :0])
    noise = torch.randn(4000, 2, generator=seeded(1), dtype=torch.float64)
    wanted = exact + noise * torch.tensor([0.01, 0.004], dtype=torch.float64)
    problem = pose(wanted, wanted[:, :0], task.box, 1e-6, 10.0, truth.expand(4000, 1, 2))
    solution = solve(task, problem, LevenbergMarquardt(), seeded())
    assert float(solution.believed_miss.max()) < 1e-6
    measured = solution.controls[:, 0].std(0)
    torch.testing.assert_close(spread(task, 7.0, 0.6).deviations[0], measured, rtol=0.05, atol=0)


def test_what_no_outcome_depends_on_is_undetermined_and_the_others_are_not() -> None:
    def shine(colour: Tensor, height: Tensor, speed: Tensor) -> Tensor:
        return 3 * height + speed - speed + 0 * colour

    task = DescribedTask(
        CALL,
        {"colour": [0, 2], "height": [0, 5, "m"], "speed": [1, 4, "m/s"]},
        {"light": {"tolerance": 0.1, "sigma": 0.3, "range": [0, 15]}},
        function=shine,
    )
    found = spread(task, 1.0, 2.0, 2.0)
    assert found.undetermined.tolist() == [[True, False, True]]
    assert found.deviations[0].tolist() == pytest.approx([2 / math.sqrt(12), 0.1, 3 / math.sqrt(12)])


def test_of_two_controls_and_one_outcome_neither_is_determined() -> None:
    """A pseudo-inverse alone would call both exact to centimetres, though any speed above the least one will do."""
    task = DescribedTask(
        CALL,
        {"speed": [1.0, 10.0, "m/s"], "angle": [0.1, 1.4, "rad"]},
        {"distance": {"unit": "m", "tolerance": 0.01, "sigma": 0.01, "range": [0, 10]}},
        function=lambda speed, angle: shoot(speed, angle)[0],
    )
    assert spread(task, 7.0, 0.5).undetermined.tolist() == [[True, True]]


def found_of(task: DescribedTask | CannonVacuum, wanted: list[list[float]]) -> DistinctAnswers:
    table = torch.tensor(wanted, dtype=torch.float64)
    targets = Targets(table, table[:, :0], torch.zeros(len(table), dtype=torch.int64), ("",) * len(table))
    problem = pose(table, table[:, :0], task.box, 1e-3, 10.0, 8)
    solution = solve(task, problem, LevenbergMarquardt(), seeded())
    return find_distinct(task, targets, solution, resimulate(task, targets, solution))


def test_deviations_stand_beside_the_answers_only_where_targets_are_measured(tmp_path: Path) -> None:
    task = make_shot()
    found = found_of(task, [[5.0, 1.0]])
    write_distinct(tmp_path / "d.csv", task, {"direct": found})
    with (tmp_path / "d.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["undetermined"] == ""
    controls = float(row["speed [m/s]"]), float(row["angle [rad]"])
    deviations = [float(row["sd_speed [m/s]"]), float(row["sd_angle [rad]"])]
    assert deviations == pytest.approx(spread(task, *controls).deviations[0].tolist(), rel=1e-12)
    nothing = found_of(task, [[30.0, 1.0]])
    write_distinct(tmp_path / "d.csv", task, {"direct": nothing})
    assert len(nothing) == 0 and (tmp_path / "d.csv").read_text().endswith(",undetermined\n")
    plain = found_of(CannonVacuum(), [[5.0]])
    write_distinct(tmp_path / "d.csv", CannonVacuum(), {"direct": plain})
    assert plain.uncertainty is None and "sd_" not in (tmp_path / "d.csv").read_text()


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ({"a": 0}, "outcomes.a.sigma: must be a number above 0, got 0"),
        ({"a": "wide"}, "outcomes.a.sigma: must be a number above 0, got 'wide'"),
        ({"a": 1.0, "b": None}, "outcomes.b.sigma: is missing; give that of every outcome, or of none"),
    ],
)
def test_a_wrong_sigma_is_one_line(sigmas: dict[str, Any], message: str) -> None:
    section = {name: {"tolerance": 1.0, "sigma": sigma} for name, sigma in sigmas.items()}
    with pytest.raises(UserError) as raised:
        read_outcomes(section)
    assert str(raised.value) == message
