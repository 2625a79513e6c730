"""One target of a task with the answers to it, chosen from the table of answers."""

from pathlib import Path

import pytest

from aimback.report.scene import read_scene
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.robotic_arm import RoboticArm

HEADER = "route,target,line,status,wanted distance [m],wind [m/s],speed [m/s],angle [rad],distance [m],miss,problem\n"


def write(folder: Path, *rows: str) -> Path:
    file = folder / "answers.csv"
    file.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return file


def answer(route: str, target: int, miss: float, status: str = "solved", problem: str = "") -> str:
    return f"{route},{target},,{status},5.0,1.5,8.0,0.5,{5.0 + miss},{miss},{problem}"


def test_it_is_the_middle_one_of_those_that_a_route_misses(tmp_path: Path) -> None:
    misses = {0: 0.001, 1: 0.5, 2: 0.03, 3: 0.02}
    rows = [answer("surrogate", target, miss, "missed" if miss > 0.01 else "solved") for target, miss in misses.items()]
    rows += [answer("direct", target, 1e-9) for target in misses]
    scene = read_scene(write(tmp_path, *rows), CannonDrag())
    assert scene is not None
    assert scene.misses == {"surrogate": (0.03, False), "direct": (1e-9, True)}
    assert scene.given == [("wind", 1.5, "m/s")] and scene.hidden == scene.further == 0
    (distance,) = scene.outcomes
    places = {mark.of: mark.place for mark in distance.marks}
    # The axis reaches 1.4 times the worst miss, 0.042 m, to either side.
    assert places == {"target": 50.0, "surrogate": pytest.approx(50 + 50 / 1.4, abs=0.01), "direct": 50.0}
    assert distance.within == pytest.approx((50 - 50 * 0.01 / 0.042, 50 + 50 * 0.01 / 0.042))
    speed, angle = scene.controls
    assert [mark.place for mark in speed.marks] == [80.0, 80.0] and angle.unit == "rad"


def test_where_all_hit_it_is_the_middle_one_of_all(tmp_path: Path) -> None:
    rows = [answer("direct", target, miss) for target, miss in enumerate((1e-3, 1e-9, 1e-6))]
    scene = read_scene(write(tmp_path, *rows), CannonDrag())
    assert scene is not None and scene.misses == {"direct": (1e-6, True)}


def test_a_target_that_a_route_did_not_answer_is_not_drawn(tmp_path: Path) -> None:
    rows = [answer("surrogate", 0, 0.5, "missed"), "direct,0,,no_event,5.0,1.5,,,,,"]
    assert read_scene(write(tmp_path, *rows), CannonDrag()) is None
    invalid = answer("direct", 1, 0.1, "invalid_input", "line 2: no number")
    assert read_scene(write(tmp_path, invalid), CannonDrag()) is None


def test_every_outcome_has_its_own_axis(tmp_path: Path) -> None:
    task = RoboticArm()
    numbers = {axis.label: 0.1 for axis in (*task.box.axes, *task.outcomes.axes)}
    wanted = {f"wanted {axis.label}": 0.1 + 0.02 * place for place, axis in enumerate(task.outcomes.axes)}
    row = {"route": "direct", "target": 0, "status": "missed", "problem": "", "miss": 0.02, **numbers, **wanted}
    file = tmp_path / "answers.csv"
    file.write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    scene = read_scene(file, task)
    assert scene is not None
    assert [outcome.name for outcome in scene.outcomes] == list(task.outcomes.names)
    first, second = (outcome.marks[1].place for outcome in scene.outcomes)
    assert (first, second) == (50.0, pytest.approx(50 - 50 / 1.4, abs=0.01))
