"""The cases that strangers come with, each as a project of its own that `aimback init` makes, from call to report."""

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_init import Lab

pytestmark = pytest.mark.slow

SMALL = (
    "budget.simulations=1500",
    "data.examples=200",
    "data.targets=8",
    "training.max_epochs=20",
    "diagnose=none",
    "tracking=off",
)

FILM = '''
"""Seven layers of glass and air alike: transmission at normal incidence by complex transfer matrices (Macleod)."""

import torch


def simulate(thickness):
    wavelength = torch.linspace(400.0, 800.0, 101, dtype=thickness.dtype)
    index = torch.tensor([2.3, 1.45, 2.3, 1.45, 2.3, 1.45, 2.3], dtype=thickness.dtype)
    phase = 2 * torch.pi * index[:, None] * thickness[..., :, None] / wavelength
    cos, sin = torch.cos(phase).to(torch.complex128), 1j * torch.sin(phase)
    layers = torch.stack([
        torch.stack([cos, sin / index[:, None]], -1),
        torch.stack([sin * index[:, None], cos], -1),
    ], -2)
    whole = layers[..., 0, :, :, :]
    for layer in range(1, 7):
        whole = whole @ layers[..., layer, :, :, :]
    field = whole @ torch.tensor([1.0, 1.52], dtype=torch.complex128)
    return 4 * 1.52 / (field[..., 0] + field[..., 1]).abs() ** 2
'''

DRAG = '''
"""A ball with drag, by SciPy: no derivatives, milliseconds a call."""

import math

from scipy.integrate import solve_ivp


def simulate(speed, angle, wind):
    def move(_, state):
        vx, vy = state[2] - wind, state[3]
        size = 0.05 * math.hypot(vx, vy)
        return [state[2], state[3], -size * vx, -9.81 - size * vy]

    def land(t, state):
        return state[1] if t > 0 else 1.0

    land.terminal, land.direction = True, -1
    begin = [0.0, 0.0, speed * math.cos(angle), speed * math.sin(angle)]
    return solve_ivp(move, [0, 10], begin, events=land, rtol=1e-8, atol=1e-10).y[0, -1]
'''

PROGRAM = """#!{python}
import math, sys
speed, angle = map(float, sys.argv[1:])
if speed > 9.7:
    sys.exit("no convergence")
print("some words")
print(speed**2 * math.sin(2 * angle) / 9.81)
"""

THROW = '''
"""A throw, in JAX."""

import jax.numpy as jnp


def simulate(speed, angle, wind):
    return speed**2 * jnp.sin(2 * angle) / 9.81 + wind
'''

NETWORK = '''
"""A network that somebody else has trained."""

import torch
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = nn.Sequential(
                *(nn.Linear(3, 32), nn.ELU(), nn.LayerNorm(32), nn.Dropout(0.2), nn.Linear(32, 16)),
                *(nn.LeakyReLU(), nn.Unflatten(-1, (1, 16)), nn.Conv1d(1, 2, 3), nn.Flatten(-2), nn.Linear(28, 1)),
            )

    def forward(self, inputs):
        return 5 * self.inner(inputs - 3)
'''

CARTPOLE = '''
"""A cart with a pole, pushed by a sequence of forces: where it stands in the end, and how the pole hangs."""

import torch


def simulate(force):
    x = v = w = torch.zeros_like(force[..., 0])
    a = x + 0.1
    for push in force.unbind(-1):
        acceleration = push / 1.1
        x, v = x + 0.02 * v, v + 0.02 * acceleration
        a, w = a + 0.02 * w, w + 0.02 * (9.81 * a.sin() - acceleration * a.cos())
    return {"place": x, "angle": a}
'''

PUMP = '''
"""A pump: pressure in pascals, efficiency without a unit."""

import numpy as np


def simulate(speed, opening, density):
    flow = 0.01 * speed * opening
    pressure = density * (0.02 * speed**2 - 40.0 * flow**2)
    return {"efficiency": 0.9 - 0.5 * (flow - 0.6) ** 2 - 0.1 * np.sin(speed / 30.0) ** 2, "pressure": pressure}
'''


def make(
    folder: Path, code: str, *arguments: str, name: str = "simulator.py", call: str = "simulator.py:simulate"
) -> Lab:
    (folder / name).write_text(code)
    return Lab(folder, "--call", call, *arguments)


def read_metrics(lab: Lab, task: str = "mylab") -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((lab.root / "outputs" / task / "evaluate" / "metrics.json").read_text())
    return metrics


def read_simulator(lab: Lab) -> dict[str, Any]:
    simulator: dict[str, Any] = yaml.safe_load((lab.root / "params.yaml").read_text())["task"]["mylab"]["simulator"]
    return simulator


def count_own_lines(lab: Lab, besides: Sequence[str]) -> int:
    """The lines that a user has to write: the task's file, without comments."""
    text = (lab.root / "conf" / "task" / "mylab.yaml").read_text()
    assert not (set(besides) & {"conf/task/mylab.yaml"})
    return sum(bool(line.split("#")[0].strip()) for line in text.splitlines())


def test_a_torch_with_complex_matrices(tmp_path: Path) -> None:
    lab = make(tmp_path, FILM, "--controls", "thickness=20:200:nm", "--outcomes", "transmission::0.05")
    task = lab.root / "conf" / "task" / "mylab.yaml"
    text = task.read_text().replace("[20.0, 200.0, nm]", "{range: [20, 200], unit: nm, size: 7}")
    task.write_text(re.sub(r"transmission: \{", "transmission: {size: 101, ", text))
    lab.aimback(*SMALL[1:], "budget.simulations=null", "starts.number=32").ok()
    assert read_simulator(lab)["derivatives"] in ("jvp", "autograd")
    metrics = read_metrics(lab)
    assert metrics["direct"]["solved_fraction"] > metrics["surrogate"]["solved_fraction"]
    assert metrics["direct"]["solved_fraction"] >= 0.5
    assert count_own_lines(lab, ()) <= 15


def test_b_numpy_without_derivatives(tmp_path: Path) -> None:
    lab = make(
        tmp_path,
        DRAG,
        *("--controls", "speed=1:10:m/s,angle=0.1:1.4:rad", "--conditions", "wind=-2:2:m/s"),
        *("--outcomes", "distance:m:0.01"),
    )
    lab.aimback(*SMALL).ok()
    assert read_simulator(lab)["derivatives"] == "finite_differences"
    metrics = read_metrics(lab)
    assert metrics["direct"]["solved_fraction"] == 1.0
    ledger = metrics["direct"]
    # Three controls and conditions, two of them solved for: a Jacobian takes two simulations more.
    assert ledger["simulations"] == 3 * ledger["gradients"] < 1000
    assert metrics["surrogate"]["simulations"] == 200


def test_c_a_program(tmp_path: Path) -> None:
    program = tmp_path / "drop"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    controls = ("--controls", "speed=1:10:m/s,angle=0.1:1.4:rad")
    lab = Lab(tmp_path, "--command", "./drop {speed} {angle}", *controls, "--outcomes", "distance:m:0.01")
    lab.aimback(*SMALL, "task.mylab.simulator.timeout=20").ok()
    assert read_metrics(lab)["direct"]["solved_fraction"] >= 0.75
    failures = (lab.root / "outputs" / "mylab" / "data" / "failures.csv").read_text().splitlines()
    assert failures[0] == "speed,angle,reason" and 1 <= len(failures) - 1 <= 20
    assert all(float(row.split(",")[0]) > 9.7 and "no convergence" in row for row in failures[1:])
    # Whoever types it has not trusted it.
    refused = lab.aimback("task.mylab.simulator.command='sh -c {speed}{angle}'")
    assert refused.code == 2 and "is not trusted; list it in conf/config.yaml" in refused.printed


@pytest.mark.parametrize(
    ("code", "call", "derivatives"), [(THROW, "simulate", "jax"), (NETWORK, "Network", "autograd")]
)
def test_e_jax_and_a_network(tmp_path: Path, code: str, call: str, derivatives: str) -> None:
    if derivatives == "jax":
        pytest.importorskip("jax", reason="jax is not installed (extra: jax)")
    axes = "--controls", "speed=1:10:m/s,angle=0.1:1.4:rad", "--conditions", "wind=-2:2:m/s"
    lab = make(tmp_path, code, *axes, "--outcomes", "distance:m:0.01", call=f"simulator.py:{call}")
    lab.aimback(*SMALL).ok()
    assert read_simulator(lab)["derivatives"] == derivatives
    metrics = read_metrics(lab)
    assert metrics["direct"]["solved_fraction"] >= 0.875
    assert metrics["direct"]["simulations"] == metrics["direct"]["gradients"] > 0
    assert count_own_lines(lab, ()) <= 15


def test_f_fifty_controls(tmp_path: Path) -> None:
    lab = make(tmp_path, CARTPOLE, "--controls", "force=-10:10:N", "--outcomes", "place:m:0.01,angle:rad:0.01")
    task = lab.root / "conf" / "task" / "mylab.yaml"
    task.write_text(task.read_text().replace("[-10.0, 10.0, N]", "{range: [-10, 10], unit: N, size: 50}"))
    lab.aimback(*SMALL, "routes=[direct]").ok()
    assert read_metrics(lab)["direct"]["solved_fraction"] == 1.0
    lab.run("pytest", "-q", "tests").ok()


def test_g_outcomes_in_units_of_their_own(tmp_path: Path) -> None:
    lab = make(
        tmp_path,
        PUMP,
        *("--controls", "speed=50:150:rad/s,opening=0.2:1,density=1000"),
        *("--outcomes", "efficiency::0.005,pressure:Pa:500"),
    )
    targets = lab.root / "targets.csv"
    # What a speed of 100 and an opening of 0.5 give; pascals alone would be hit with any efficiency.
    flow = 0.5
    wanted = 0.9 - 0.5 * (flow - 0.6) ** 2 - 0.1 * math.sin(100 / 30) ** 2, 1000 * (0.02 * 100**2 - 40 * flow**2)
    targets.write_text(f"efficiency,pressure\n{wanted[0]},{wanted[1]}\n")
    lab.aimback(*SMALL, "routes=[direct]", "targets=targets.csv").ok()
    header, row = (
        line.split(",") for line in (lab.root / "outputs/mylab/evaluate/answers.csv").read_text().splitlines()
    )
    answer = dict(zip(header, row, strict=True))
    efficiency, pressure = (
        float(answer[next(key for key in answer if key.startswith(name))]) for name in ("efficiency", "pressure")
    )
    assert answer["status"] == "solved"
    assert abs(efficiency - wanted[0]) <= 0.005 and abs(pressure - wanted[1]) <= 500


def test_i_an_edit_runs_again_what_depends_on_it(tmp_path: Path) -> None:
    lab = make(
        tmp_path, DRAG, "--controls", "speed=1:10:m/s,angle=0.1:1.4:rad,wind=0.5", "--outcomes", "distance:m:0.01"
    )
    small = (*SMALL, "routes=[direct]")
    lab.aimback(*small).ok()
    assert "Running stage 'optimise" not in lab.run("dvc", "repro").ok().printed
    simulator = lab.root / "src" / "mylab" / "simulator.py"
    simulator.write_text(simulator.read_text().replace("0.05 *", "0.06 *"))
    finished = lab.run("dvc", "repro").ok().printed
    assert "Running stage 'generate" in finished and "Running stage 'optimise" in finished


COUNTED = '''
"""Tells of each run in a file, so that it can be seen which were made twice."""

import math
import os
import time


def simulate(speed, angle):
    distance = speed * math.sin(angle)
    time.sleep(0.02)
    with open(os.environ["RUNS_OF_THE_TEST"], "a") as file:
        file.write(f"{speed!r} {angle!r}\\n")
    return distance
'''


def test_b_killed_it_runs_nothing_again_that_was_finished(tmp_path: Path) -> None:
    runs = tmp_path / "runs.txt"
    lab = make(tmp_path, COUNTED, "--controls", "speed=1:10:m/s,angle=0.1:1.4:rad", "--outcomes", "distance:m:0.01")
    lab.given["RUNS_OF_THE_TEST"] = str(runs)
    runs.touch()
    small = (*SMALL, "routes=[surrogate]", "data.examples=300")
    lab.run_and_kill("aimback.workflow.run", *small, when=lambda: len(runs.read_text().splitlines()) > 150)
    lab.run("aimback.runtime.doctor").ok()
    lab.run("dvc", "repro", "generate@mylab").ok()
    made = runs.read_text().splitlines()
    assert len(made) > 300
    # Finding out runs some cases twice, and two were at work when they were killed.
    assert len(made) - len(set(made)) <= 15


WRAPPER = '''
"""A simulator in a wrapper that counts the cases which go through it."""

import math
import os

import torch


def tell(count):
    with open(os.environ["RUNS_OF_THE_TEST"], "a") as file:
        file.write("." * count)


def of_one_case(speed, angle):
    tell(1)
    return speed**2 * math.sin(2 * angle) / 9.81


def in_dual_numbers(speed, angle):
    tell(speed.shape[0])
    return speed * speed * torch.sin(2 * angle) / 9.81


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            parts = [torch.nn.Linear(2, 16), torch.nn.ELU(), torch.nn.LayerNorm(16), torch.nn.Linear(16, 1)]
        self.layers = torch.nn.Sequential(*parts)

    def forward(self, inputs):
        tell(inputs.shape[0])
        return self.layers(inputs)
'''

COUNTING_PROGRAM = """#!{python}
import math, os, sys
with open(os.environ["RUNS_OF_THE_TEST"], "a") as file:
    file.write(".")
speed, angle = map(float, sys.argv[1:])
if speed > 9.7:
    sys.exit("no convergence")
print(speed**2 * math.sin(2 * angle) / 9.81)
"""


@pytest.mark.parametrize(
    ("simulator", "derivatives"),
    [
        ("of_one_case", "finite_differences"),
        ("in_dual_numbers", "dual"),
        ("Network", "autograd"),
        ("program", "finite_differences"),
    ],
)
def test_the_ledger_is_what_a_counting_wrapper_counts(tmp_path: Path, simulator: str, derivatives: str) -> None:
    axes = ("--controls", "speed=1:10:m/s,angle=0.1:1.4:rad", "--outcomes", "distance:m:0.01")
    runs = tmp_path / "runs.txt"
    if simulator == "program":
        program = tmp_path / "drop"
        program.write_text(COUNTING_PROGRAM.format(python=sys.executable))
        program.chmod(0o755)
        lab = Lab(tmp_path, "--command", "./drop {speed} {angle}", *axes)
    else:
        lab = make(tmp_path, WRAPPER, *axes, call=f"simulator.py:{simulator}")
    lab.given["RUNS_OF_THE_TEST"] = str(runs)
    routes = "[surrogate,direct,cma_es]" if derivatives == "finite_differences" else "[surrogate,direct,hybrid,cma_es]"
    hybrid = ("hybrid.targets=64", "hybrid.validation_targets=16", "hybrid.max_epochs=2")
    few = "data.targets=3", "data.examples=60", "training.max_epochs=2", "starts.number=2"
    lab.aimback(*few, *(hybrid if "hybrid" in routes else ()), f"routes={routes}", "diagnose=none", "tracking=off").ok()
    assert read_simulator(lab)["derivatives"] == derivatives

    def count(stage: str) -> int:
        runs.write_text("")
        lab.run("dvc", "repro", "--force", "--single-item", stage).ok()
        return len(runs.read_text())

    ledgers = read_metrics(lab)
    assert ledgers["surrogate"]["training_examples"] + 3 == count("generate@mylab")
    assert ledgers["surrogate"]["simulations"] == ledgers["surrogate"]["training_examples"]
    for route in {*ledgers} & {"direct", "cma_es"}:
        assert ledgers[route]["simulations"] == count(f"optimise@mylab-{route}") > 0
    if "hybrid" in ledgers:
        trained = json.loads((lab.root / "outputs/mylab/routes/proposers/hybrid/ledger.json").read_text())
        assert ledgers["hybrid"]["simulations"] - trained["simulations"] == count("refine@mylab-hybrid")
