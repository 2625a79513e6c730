"""Simulators that misbehave, each in a project of its own: one line says what is wrong, and nothing is lost."""

import csv

import pytest
import yaml
from conftest import Finished
from test_init import Lab

pytestmark = pytest.mark.slow

SMALL = (
    *("routes=[surrogate]", "data.examples=150", "data.targets=2", "training.max_epochs=2"),
    *("diagnose=none", "tracking=off"),
)

MISBEHAVING = '''
"""Some do what they should not for all cases, and some for the fastest of them."""

import math
import os
import random
import signal
import sys
import time


def good(speed, angle):
    return speed * math.sin(angle)


def text(speed, angle):
    return "far"


def none(speed, angle):
    return None


def pair(speed, angle):
    return speed, angle


def one(speed):
    return speed


def three(speed, angle, wind):
    return speed


def raising(speed, angle):
    raise RuntimeError("no convergence")


def leaving(speed, angle):
    os._exit(3)


def slow(speed, angle):
    time.sleep(1000)


def fickle(speed, angle):
    return speed + random.random()


def printing(speed, angle):
    print("noise" * 10_000)
    os.write(1, b"noise")
    os.write(2, b"noise")
    return good(speed, angle)


def moving(speed, angle):
    os.chdir("/")
    return good(speed, angle)


def raising_at_times(speed, angle):
    if speed > 9.7:
        raise RuntimeError("no convergence")
    return good(speed, angle)


def leaving_at_times(speed, angle):
    if speed > 9.7:
        os._exit(3)
    return good(speed, angle)


def deaf(speed, angle):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if speed > 9.7:
        time.sleep(1000)
    return good(speed, angle)


def writing(speed, angle):
    if speed > 9.7:
        with open(os.environ["FILE_OF_THE_TEST"], "wb") as file:
            while True:  # gigabytes
                file.write(bytes(1 << 20))
                file.seek(0)
    return good(speed, angle)


def shouting(speed, angle):
    while speed > 9.7:
        sys.stdout.write("noise" * 100_000)
    return good(speed, angle)


def wrong_at_times(speed, angle):
    return None if speed > 9.7 else good(speed, angle)
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One in which a run has gone well before."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "simulator.py").write_text(MISBEHAVING)
    axes = ("--controls", "speed=1:10:m/s,angle=0.1:1.4:rad", "--outcomes", "distance:m:0.01")
    lab = Lab(folder, "--call", "simulator.py:good", *axes)
    lab.given["FILE_OF_THE_TEST"] = str(folder / "huge")
    lab.aimback(*SMALL).ok()
    return lab


def simulate(lab: Lab, function: str, **settings: object) -> Finished:
    """What a run does with another function in the place of the good one, of which each case gets four seconds."""
    task = lab.root / "conf" / "task" / "mylab.yaml"
    node = yaml.safe_load(task.read_text())
    node["mylab"]["simulator"] |= {"timeout": 4.0, "call": f"mylab.simulator:{function}", **settings}
    task.write_text(yaml.safe_dump(node))
    return lab.aimback(*SMALL)


def read_answers(lab: Lab) -> str:
    return (lab.root / "outputs" / "mylab" / "evaluate" / "answers.csv").read_text()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("absent", ": mylab.simulator:absent: the module has no function absent; it has "),
        ("text", ": mylab.simulator:text returned 'far'; it must return distance, as a number or an array each"),
        ("none", ": mylab.simulator:none returned None; it must return distance, as a number or an array each"),
        ("pair", ": mylab.simulator:pair returned 2 numbers as distance, it should be 1"),
        ("one", "mylab.simulator:one takes (speed), and no angle, which is listed as a control or a condition"),
        ("three", "mylab.simulator:three takes (speed, angle, wind); wind is no control and no condition: "),
        ("raising", ": 20 RuntimeError: no convergence; simulator.failures allows fewer"),
        ("leaving", "has ended the process that it ran in"),
        ("slow", "simulator.timeout: a run has not ended within 4 s"),
    ],
)
def test_what_never_works_is_one_line_and_leaves_all_as_it_was(lab: Lab, function: str, message: str) -> None:
    before = read_answers(lab)
    finished = simulate(lab, function)
    (line,) = finished.printed.splitlines()
    assert finished.code == 2
    assert line.startswith("error: task.mylab") and message in line
    assert read_answers(lab) == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("mylab.nowhere:simulate", "task.mylab.simulator.call: mylab.nowhere: there is no such module; "),
        ("os:getcwd", "task.mylab.simulator.call: 'os:getcwd' is not trusted; list it in conf/config.yaml"),
    ],
)
def test_what_is_not_there_or_not_trusted_is_one_line(lab: Lab, call: str, message: str) -> None:
    finished = simulate(lab, "good", call=call)
    (line,) = finished.printed.splitlines()
    assert finished.code == 2 and message in line


def test_without_repeatable_outcomes_there_are_no_differences(lab: Lab) -> None:
    finished = simulate(lab, "fickle").ok()
    assert "finite_differences: its noise is " in finished.printed
    refused = lab.aimback(*SMALL, "routes=[direct]")
    assert refused.code == 2
    assert refused.printed.splitlines()[-1] == (
        "error: task.mylab: has no derivatives for the route direct; routes=[surrogate,cma_es]"
    )


@pytest.mark.parametrize("function", ["printing", "moving"])
def test_what_it_does_beside_is_neither_seen_nor_felt(lab: Lab, function: str) -> None:
    finished = simulate(lab, function).ok()
    assert "noise" not in finished.printed
    assert lab.root.is_dir() and not (lab.root / "outputs" / "mylab" / "data" / "failures.csv").exists()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("raising_at_times", "RuntimeError: no convergence"),
        ("leaving_at_times", "ended with exit code 3"),
        ("deaf", "timed out after 4 s"),
        ("writing", "timed out after 4 s"),
        ("shouting", "timed out after 4 s"),
        ("wrong_at_times", "mylab.simulator:wrong_at_times returned None; it must return distance, as a number"),
    ],
)
def test_what_fails_at_times_costs_its_rows_alone(lab: Lab, function: str, reason: str) -> None:
    simulate(lab, function).ok()
    with (lab.root / "outputs/mylab/data/failures.csv").open() as file:
        failed = list(csv.DictReader(file))
    assert 1 <= len(failed) <= 15
    for row in failed:
        assert float(row["speed"]) > 9.7 and row["reason"].startswith(reason)
    header, *answers = csv.reader(read_answers(lab).splitlines())
    assert [float(answer[header.index("miss")]) < 100 for answer in answers] == [True, True]
