"""Data without a simulator: what is said of answers is true of the function that the data came from."""

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from plans import plan_network, plan_training
from test_init import Lab
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.errors import UserError
from aimback.core.problem import History, Solution, StartStatus, Status
from aimback.data import measurements
from aimback.data.dataset import split_examples
from aimback.data.identity import identify
from aimback.data.measurements import read_measurements
from aimback.data.targets import Targets
from aimback.evaluate.domain import Domain
from aimback.evaluate.judge import believe
from aimback.learn.calibration import bound_error
from aimback.learn.cross_validation import cross_validate, summarise_errors
from aimback.learn.surrogate_training import train_surrogate
from aimback.settings import foreign
from aimback.settings.build import build
from aimback.settings.foreign import find_out, reuse_findings
from aimback.settings.limits import check_limits
from aimback.settings.tree import read_settings
from aimback.tasks.base import Task
from aimback.tasks.laws import LAWS, list_laws
from aimback.tasks.measured import MeasuredTask
from aimback.workflow.compose import compose_conf
from aimback.workflow.origin import read_data

T = torch.float64
HEADER = "speed [m/s],angle [rad],wind [m/s],distance [m]"
NODE: dict[str, Any] = {
    "data": "runs.csv",
    "controls": {"speed": [1, 10, "m/s"], "angle": [0.1, 1.4, "rad"]},
    "conditions": {"wind": [-2, 2, "m/s"]},
    "outcomes": {"distance": {"unit": "m", "tolerance": 0.1}},
}


def fly(controls: Tensor, conditions: Tensor) -> Tensor:
    """The function that the data come from."""
    speed, angle = controls.unbind(-1)
    flight = 2 * speed * torch.sin(angle) / 9.81
    return (flight * (speed * torch.cos(angle) + conditions[..., 0]))[..., None]


def make_rows(count: int, seed: int = 0) -> list[list[float]]:
    draw = random.Random(seed).uniform
    inputs = torch.tensor([[draw(1, 10), draw(0.1, 1.4), draw(-2, 2)] for _ in range(count)], dtype=T)
    return torch.cat([inputs, fly(inputs[:, :2], inputs[:, 2:])], dim=1).tolist()


def write(file: Path, rows: list[list[float]], *more: str, header: str = HEADER) -> None:
    file.write_text("\n".join([header, *(",".join(map(repr, row)) for row in rows), *more]) + "\n")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where paths of the configuration begin."""
    for module in (measurements, foreign):
        monkeypatch.setattr(module, "locate_untracked", lambda path: tmp_path / path)
    return tmp_path


def make_task(**changes: Any) -> MeasuredTask:
    task = build({**NODE, **changes}, Task, "task.runs")  # type: ignore[type-abstract]
    assert isinstance(task, MeasuredTask)
    return task


# ---- the table


def test_a_row_that_says_nothing_is_left_out_and_named(project: Path) -> None:
    bad = {
        "3,,0,1": "angle is empty",
        "3,0.5,0,oops": "distance is 'oops', not a finite number",
        "3,0.5,0,nan": "distance is 'nan', not a finite number",
        "3,0.5,0": "3 cells, the header has 4",
        "11,0.5,0,1": "speed 11 is outside the range the task was made for [1, 10]",
        "3,0.5,-3,1": "wind -3 is outside the range the task was made for [-2, 2]",
    }
    rows = make_rows(20)
    write(project / "runs.csv", rows, *bad)
    measured = read_measurements(make_task())
    assert measured.problems == tuple(f"line {line}: {why}" for line, why in enumerate(bad.values(), 22))
    assert torch.cat([measured.controls, measured.conditions, measured.outcomes], dim=1).tolist() == rows
    dataset = measured.make_dataset(0.1, torch.Generator().manual_seed(0))
    assert (len(dataset), dataset.n_validation, dataset.n_left_out) == (20, 2, 6)
    assert sorted(dataset.outcomes[:, 0].tolist()) == sorted(row[3] for row in rows)


def test_rows_that_repeat_others_and_constant_columns_are_told(project: Path) -> None:
    rows = [[speed, angle, 1.0, distance] for speed, angle, _, distance in make_rows(12)]
    write(project / "runs.csv", [*rows, *rows[:3]])
    assert read_measurements(make_task()).notes == (
        "3 of its rows repeat the controls and conditions of others",
        "wind is 1 in all of its rows, so nothing is learned of it",
    )


def test_parquet_is_held_to_the_same_rules(project: Path) -> None:
    rows = make_rows(12)
    frame = pd.DataFrame(rows, columns=HEADER.split(","))
    frame["who"] = "me"
    frame.loc[3, "angle [rad]"] = None
    frame.to_parquet(project / "runs.parquet")
    measured = read_measurements(make_task(data="runs.parquet"))
    assert measured.problems == ("row 4: angle is empty",)
    assert measured.outcomes[:, 0].tolist() == [row[3] for row in rows[:3] + rows[4:]]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["speed [m/s],wind,distance", "1,0,1"], "column 'angle' is missing; needed is speed [m/s],angle [rad]"),
        (["speed [km/h],angle,wind,distance", "1,1,0,1"], "column 'speed' is in [km/h], the task has it in [m/s]"),
        (["speed;angle;wind;distance", "1;1;0;1"], "its columns are separated by semicolons"),
        ([HEADER], "there is a header and no measurement below it"),
        ([HEADER, *["2,0.5,0,1"] * 30], "has 1 different rows to learn from, at least 10 are needed"),
        ([HEADER, *(f"{1 + k / 10},0.5,0,3" for k in range(30))], "outcomes.distance: is 3 in all rows of runs.csv"),
    ],
)
def test_a_table_that_will_not_do_is_one_line_before_the_first_stage(
    project: Path, lines: list[str], says: str
) -> None:
    (project / "runs.csv").write_text("\n".join(lines))
    with pytest.raises(UserError) as caught:
        find_out({"runs": NODE}, [])
    assert str(caught.value).startswith("task.runs: ") and says in str(caught.value)


def test_init_takes_the_columns_that_vary(tmp_path: Path) -> None:
    frame = pd.DataFrame({"who": ["me", "you"], "mass [kg]": [3, 3], "speed [m/s]": [1, 4.5], "distance": [None, 2]})
    frame = pd.concat([frame, pd.DataFrame({"speed [m/s]": [math.nan], "distance": [8.0]})])
    frame.to_parquet(tmp_path / "runs.parquet")
    frame.to_csv(tmp_path / "runs.csv", index=False)
    for name in ("runs.parquet", "runs.csv"):
        origin = read_data(str(tmp_path / name), "lab")
        assert origin.ranges == {"speed": ([1.0, 4.5, "m/s"], "of the data"), "distance": ([2.0, 8.0], "of the data")}
        assert origin.head == {"data": name}


# ---- the task


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"controls": {"speed": 3.0, "angle": [0, 1]}}, "task.runs.controls.speed: give its range"),
        ({"outcomes": {"wind": {"tolerance": 1}}}, "task.runs.outcomes.wind: is a control or a condition too"),
        ({"simulator": {"call": "a:b"}}, "task.runs.data: unknown key"),
        ({"data": 3}, "task.runs.data: must be a valid string, got 3"),
    ],
)
def test_a_wrong_description_is_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        build({**NODE, **changes}, Task, "task.runs")  # type: ignore[type-abstract]
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["../runs.csv", "/etc/passwd", "", "nothing.csv"])
def test_data_lie_below_the_root(project: Path, path: str) -> None:
    with pytest.raises(UserError, match=r"^task\.runs\.data: "):
        find_out({"runs": {**NODE, "data": path}}, [])


def test_it_keeps_the_laws_that_need_no_simulation() -> None:
    task = make_task()
    assert list_laws(task) == ["contract", "draws"]
    for law in list_laws(task):
        LAWS[law](task)
    with pytest.raises(UserError, match="there is no simulator"):
        task(task.box.lower, task.conditions.lower)


def test_an_edit_of_the_data_is_noticed(project: Path) -> None:
    """What was composed before the edit is refused, composed anew it is another task, unedited it is known."""
    rows = make_rows(20)
    write(project / "runs.csv", rows)
    before = find_out({"runs": NODE}, [])
    distances = [row[3] for row in rows]
    assert before["runs"]["outcomes"]["distance"]["range"] == [min(distances), max(distances)]
    assert reuse_findings({"runs": NODE}, before, []) == before == find_out(before, [])
    write(project / "runs.csv", make_rows(20, seed=1))
    with pytest.raises(UserError, match="its data were edited after params.yaml was composed"):
        find_out(before, [])
    after = find_out(reuse_findings({"runs": NODE}, before, []), [])
    tasks = [build(node["runs"], Task) for node in (before, after)]  # type: ignore[type-abstract]
    assert identify(tasks[0]) != identify(tasks[1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        *(
            (f"routes=[surrogate,{route}]", rf"^task\.runs: has no simulator for the route {route}; choose")
            for route in ("direct", "hybrid", "cma_es")
        ),
        *(
            (f"invert.surrogate.{key}=1", rf"^invert\.surrogate\.{key}: task\.runs has no simulator to ask; choose 0$")
            for key in ("rounds", "calibration")
        ),
    ],
)
def test_routes_through_a_simulator_are_refused(project: Path, override: str, message: str) -> None:
    write(project / "runs.csv", make_rows(20))
    tree: Any = OmegaConf.to_container(compose_conf("routes=[surrogate]", override), resolve=True)
    tree |= {"task": {"runs": NODE}, "tasks": ["runs"], "examined": ["runs"]}
    with pytest.raises(UserError, match=message):
        settings = read_settings(tree)
        check_limits(settings, settings.tasks)


# ---- what is believed


def draw_data(count: int, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    task = make_task()
    controls, conditions = task.box.sample(count, generator), task.conditions.sample(count, generator)
    outcomes = fly(controls, conditions)
    return controls, conditions, outcomes + noise * torch.randn(outcomes.shape, generator=generator, dtype=T)


NETWORK = plan_network()
SMALL, SECOND_ORDER = plan_network("second_order"), plan_training("second_order")


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_nine_of_ten_new_measurements_are_within_the_bound(tmp_path: Path, noise: float) -> None:
    generator, task = torch.Generator().manual_seed(5), make_task()
    dataset = split_examples(draw_data(300, noise, generator), 0.1, generator, 0)
    errors = cross_validate(dataset, task, SMALL, SECOND_ORDER, generator, "cpu", tmp_path)
    network, _ = train_surrogate(dataset, task, SMALL, SECOND_ORDER, 0, "cpu", tmp_path)
    controls, conditions, outcomes = draw_data(2000, noise, generator)
    bound = float(bound_error(errors))
    covered = float(((network.to(T)(controls, conditions) - outcomes).abs() <= bound).double().mean())
    # The share of a bound by 300 errors spreads by 0.017 around 0.9; the network has seen more rows than the folds'.
    spread = math.sqrt(0.9 * 0.1 * (1 / 300 + 1 / 2000))
    assert 0.9 - 3 * spread < covered < 0.995
    summary = summarise_errors(task, errors)
    assert summary["held_out_error_distance_p90"] == summary["held_out_miss_p90"] == bound
    assert summary["held_out_error_distance_tolerances_p90"] == pytest.approx(10 * bound)
    if noise:  # no network can do better than the measurements
        assert 0.09 < summary["held_out_miss_rms"] < 0.2


def test_the_bound_is_the_conformal_one() -> None:
    assert float(bound_error(torch.arange(1.0, 10.0)[:, None])) == 9  # of nine errors the greatest
    assert float(bound_error(-torch.arange(1.0, 100.0)[:, None])) == 90


def test_rows_of_the_same_place_are_held_out_together(tmp_path: Path) -> None:
    """Each place is measured twice; what a network says of one of the two it has learned from neither."""
    generator = torch.Generator().manual_seed(0)
    controls, conditions, _ = (torch.cat([part, part]) for part in draw_data(20, 0.0, generator))
    noise = torch.randn(20, 1, generator=generator, dtype=T)
    dataset = split_examples([controls, conditions, torch.cat([noise, noise])], 0.1, generator, 0)
    errors = cross_validate(dataset, make_task(), NETWORK, plan_training(max_epochs=1), generator, "cpu", tmp_path)
    said = errors + dataset.outcomes
    order = dataset.controls[:, 0].argsort(stable=True)
    assert torch.equal(said[order][::2], said[order][1::2])


@pytest.mark.parametrize(("controls", "conditions"), [(1, 0), (2, 1), (4, 0)])
def test_about_one_in_a_hundred_places_from_where_the_data_come_from_is_outside(controls: int, conditions: int) -> None:
    generator = torch.Generator().manual_seed(1)
    box, ranges = (Box(Axis(f"x{n}", "", -3.0, 5.0) for n in range(size)) for size in (controls, conditions))
    shares = []
    for _ in range(20):  # that of one data set spreads by about its half
        domain = Domain(box.sample(400, generator), ranges.sample(400, generator), box, ranges)
        outside = domain.is_outside(box.sample(1000, generator), ranges.sample(1000, generator))
        shares.append(float(outside.double().mean()))
    assert 0.005 < sum(shares) / len(shares) < 0.02, shares


def test_a_hole_and_what_lies_beyond_are_outside() -> None:
    generator = torch.Generator().manual_seed(1)
    box, none = Box([Axis("x", "m", 0.0, 10.0), Axis("y", "", 0.0, 0.1)]), Box([])
    rows = box.sample(2000, generator)
    rows = rows[(rows[:, 0] < 6) & ((rows[:, 0] - 2).abs() > 1)]  # none from 1 to 3, and none from 6 on
    twice = torch.cat([rows, rows])  # a row that is there twice is no neighbour of itself
    for data in (rows, twice):
        domain = Domain(data, torch.zeros(len(data), 0, dtype=T), box, none)
        asked = torch.tensor(
            [[0.5, 0.05], [2.0, 0.05], [4.5, 0.02], [6.1, 0.05], [9.0, 0.05], [math.nan, 0.0]], dtype=T
        )
        found = domain.is_outside(asked, torch.zeros(len(asked), 0, dtype=T))
        assert found.tolist() == [False, True, False, False, True, False]


def test_believed_stands_in_the_place_of_solved() -> None:
    """Where the route believes in a hit; elsewhere it is told how the start stopped."""
    task = make_task()
    inside, outside = [2.0, 0.5], [12.0, 0.5]
    controls = torch.tensor([[inside], [inside], [inside], [outside]], dtype=T)
    believed = torch.tensor([[0.05], [0.2], [0.2], [0.05]], dtype=T)
    stopped = torch.tensor([[StartStatus.ARRIVED], [StartStatus.STALLED], [StartStatus.STEP_LIMIT], [0]])
    steps = torch.ones(4, 1, dtype=torch.int64)
    history = History(controls[None], believed[None])
    solution = Solution(controls, believed, stopped.to(torch.int8), steps, steps, history)
    nan = math.nan
    wanted = torch.tensor([[1.0], [1.0], [nan], [1.0], [1.0]], dtype=T)
    targets = Targets(wanted, 0 * wanted, torch.arange(2, 7), ("", "", "line 4: is empty", "", ""))
    answers = believe(task, targets, solution)
    assert answers.status.tolist() == [
        *(Status.BELIEVED, Status.STALLED, Status.INVALID_INPUT, Status.STEP_LIMIT, Status.MISSED)
    ]
    assert bool(answers.miss.isnan().all()) and bool(answers.outcome.isnan().all())


# ---- the pipeline


@pytest.mark.slow
def test_a_table_becomes_a_report(tmp_path: Path) -> None:
    write(tmp_path / "runs.csv", make_rows(300), "3,,0,1")
    lab = Lab(tmp_path, "--data", "runs.csv", "--conditions", "wind", "--outcomes", "distance:m:0.1")
    done = lab.aimback().ok()
    assert done.stages() == [
        *("compose", "generate@mylab", "train@mylab-surrogate", "invert@mylab-surrogate", "evaluate@mylab"),
        *("report@mylab", "publish"),
    ]
    assert "1 row is left out: line 302: angle is empty" in done.printed
    assert "MLflow: 2 runs written" in done.printed
    (metrics,) = json.loads((lab.root / "outputs/mylab/evaluate/metrics.json").read_text()).values()
    assert (metrics["simulations"], metrics["training_examples"], metrics["targets"]) == (0, 300, 300)
    assert metrics["believed_fraction"] > 0.9 and metrics["status"]["believed"] > 270
    assert not [name for name in metrics if name.startswith(("solved", "miss", "r_"))]
    with (lab.root / "outputs/mylab/evaluate/answers.csv").open() as file:
        answers = [row for row in csv.DictReader(file) if row["status"] == "believed"]
    columns = ("speed [m/s]", "angle [rad]", "wind [m/s]", "wanted distance [m]", "miss 90 %", "outside_data")
    table = torch.tensor([[float(row[column]) for column in columns] for row in answers], dtype=T)
    true = (fly(table[:, :2], table[:, 2:3])[:, 0] - table[:, 3]).abs()
    inside = table[:, 5] == 0
    # An answer is no draw from where the data come from; it is nearly as good as one.
    assert float((true <= table[:, 4])[inside].double().mean()) > 0.75
    assert float((true <= 0.1).double().mean()) > 0.95
    report = (lab.root / "outputs/report/report.md").read_text()
    assert "- The network believes that it hits " in report and "solved" not in report
    assert "outside of the data" in (lab.root / "outputs/report/index.html").read_text()

    stale = ["compose", "publish"]
    assert lab.run("dvc", "repro").ok().stages() == stale
    lab.edit("conf/config.yaml", "[surrogate]", "[surrogate, direct]")
    assert "has no simulator for the route direct" in lab.run("dvc", "repro").printed
    lab.edit("conf/config.yaml", "[surrogate, direct]", "[surrogate]")
    with (lab.root / "runs.csv").open("a") as file:
        file.write("5.0,0.7,0.0,2.5\n")
    assert "train@mylab-surrogate" in lab.run("dvc", "repro").ok().stages()
