"""`aimback check`: what it finds wrong is wrong, and what it foretells of a run is what the run then asks for."""

import inspect
import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
from conftest import Repository
from omegaconf import OmegaConf
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.errors import UserError
from aimback.diagnose.checkup import Checkup, check_up
from aimback.settings import foreign as settings_foreign
from aimback.settings.tree import Settings, read_settings
from aimback.tasks.base import Task
from aimback.workflow.compose import compose_conf
from aimback.workflow.forecast import forecast
from aimback.workflow.inspection import Examined, advise, check_task, read_arguments, tell
from aimback.workflow.stage import Job

T = torch.float64
TASK = {
    "simulator": {"call": "foreign:count"},
    "controls": {"speed": [1, 10, "m/s"], "angle": [0.1, 1.4, "rad"]},
    "outcomes": {"distance": {"unit": "m", "tolerance": 0.01}},
}
SMALL = ("data.examples=300", "data.targets=24", "training.max_epochs=3", "surrogate.hidden_width=8", "tracking=off")
SMALL += ("hybrid.targets=64", "hybrid.validation_targets=16", "hybrid.max_epochs=4", "hardware=cpu")
SMALL += ("diagnose.targets=6", "diagnose.starts=3", "diagnose.points=31", "diagnose.basin_points=7")
SMALL += ("diagnose.replicas=1", "diagnose.max_steps=40", "diagnose.examples=[20,60]")


class Made(Task):
    """A task of a function of rows."""

    def __init__(self, function: Callable[[Tensor], Tensor], tolerance: float = 0.01, outcomes: int = 1) -> None:
        self.box = Box([Axis("x", "m", 0.0, 1.0), Axis("y", "s", 0.0, 2.0)])
        self.outcomes = Box([Axis(f"z{number}", "N", 0.0, 1.0) for number in range(outcomes)])
        self.tolerance, self.function = tolerance, function

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self.function(controls)


def check(function: Callable[[Tensor], Tensor], **more: Any) -> Checkup:
    return check_up(Made(function, **more), 5.0, torch.Generator().manual_seed(0), {})


def make_settings(*overrides: str, task: Any = None, name: str = "drop") -> Settings:
    tree: Any = OmegaConf.to_container(compose_conf("task=cannon_vacuum", *overrides), resolve=True)
    tree |= {"task": {name: task or TASK}, "tasks": [name], "trust": ["foreign"]}
    return read_settings({**tree, "examined": [name] if tree["diagnose"]["enabled"] else []})


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_foreign, "read_trust", lambda: ["foreign"])


def test_a_smooth_simulator_has_nothing_wrong() -> None:
    found = check(lambda x: torch.stack([x[..., 0] * 3, x[..., 1]], dim=-1), outcomes=2)
    assert (found.cases, found.dtype, found.finite, found.company) == (4096, "float64", 1.0, 0.0)
    assert found.noise is not None and float(found.noise.max()) < 1e-14
    assert found.jacobian_error is not None and found.jacobian_error < 1e-10 and found.wrong == 0
    # In box lengths, 1 and 2, and tolerances the slopes are 3 / 0.01 and 2 / 0.01.
    assert found.condition == (pytest.approx(1.5), pytest.approx(1.5))
    torch.testing.assert_close(found.ranges, torch.tensor([[0.0, 0.0], [3.0, 2.0]], dtype=T), atol=0.02, rtol=0)


def test_where_runs_fail_is_told() -> None:
    found = check(lambda x: torch.where(x[..., 1:] > 1.5, math.nan, x[..., :1]))
    assert found.finite == pytest.approx(0.75, abs=0.05)
    assert found.where.startswith("y from 1.5") and found.where.endswith(" to 2 s")
    with pytest.raises(UserError, match="none of 4096 runs gave a finite outcome"):
        check(lambda x: x[..., :1] * math.inf * 0)


def test_noise_company_and_wrong_derivatives_are_seen() -> None:
    stream = torch.Generator().manual_seed(1)
    noisy = check(lambda x: x[..., :1] + 1e-3 * torch.randn(x[..., :1].shape, generator=stream, dtype=T))
    assert noisy.noise is not None and 2e-4 < float(noisy.noise[0]) < 5e-3
    assert check(lambda x: x[..., :1] - (x[..., :1].mean() if x.ndim else 0)).company > 0.1
    wrong = check(lambda x: x[..., :1] + (torch.sin(x[..., 1:]) if isinstance(x, Tensor) else 0 * x[..., 1:]))
    assert wrong.jacobian_error is not None and wrong.jacobian_error > 0.1 and wrong.wrong > 0.9


def test_the_time_of_the_simulator_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, each = [0.0], [0.1]

    def slow(x: Tensor) -> Tensor:
        clock[0] += each[0] * x.shape[:-1].numel()
        return x[..., :1] ** 2 if isinstance(x, Tensor) else x[..., :1] * x[..., :1]

    monkeypatch.setattr("aimback.diagnose.checkup.time.perf_counter", lambda: clock[0])
    found = check(slow)
    # The first call tells of no time: it starts what is needed.
    assert found.seconds < 6 and found.seconds == pytest.approx(0.1 * (found.simulations - 1))
    assert found.a_case == pytest.approx(0.1) and found.alone == pytest.approx((0.1, 0.1, 0.1))
    each[0] = 1000.0
    found = check(slow)
    assert found.simulations == 3 and found.a_case == pytest.approx(1000)
    assert (found.noise, found.jacobian_error, found.pilots) == (None, None, {})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[..., 0], r"a case gives outcomes of shape \(1,\), not \(1, 1\)"),
        (lambda x: x @ x, r"a call with one case fails \(RuntimeError: mat1 and mat2"),
    ],
)
def test_what_cannot_be_simulated_is_one_line(function: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(function)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], dict[str, int]]:
    """What was foretold of a small run, and what its stages then asked the simulator for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings_foreign, "read_trust", lambda: ["foreign"])
        root = tmp_path_factory.mktemp("run")
        settings = make_settings(*SMALL, f"inputs=[{root}]")
        foretold = check_task(settings, "drop").simulations
        asked: dict[str, int] = {}
        turns = ["generate", "train", "invert", "optimise", "amortise", "refine", "evaluate", "diagnose", "report"]
        for stage in turns:
            listed = getattr(settings.route_lists, stage, [""])
            for route in listed:
                job = Job("drop", route, settings, stage, root)
                job.outputs.mkdir(parents=True, exist_ok=True)
                foreign.CALLS.clear()
                inspect.unwrap(import_module(f"pipelines.{stage}").main)(job)
                job.write_meters()
                asked[stage + (f"-{route}" if route else "")] = sum(foreign.CALLS)
    return foretold, asked


def test_a_forecast_is_within_a_factor_of_two(counted: tuple[dict[str, int], dict[str, int]]) -> None:
    foretold, asked = counted
    assert set(foretold) == {stage for stage, count in asked.items() if count}
    ratios = {stage: count / asked[stage] for stage, count in foretold.items()}
    assert {stage: ratio for stage, ratio in ratios.items() if not 0.5 <= ratio <= 2} == {}
    for exact in ("generate", "train-surrogate", "amortise-hybrid"):
        assert foretold[exact] == asked[exact]


def test_what_a_surrogate_route_asks_for_itself_is_in_the_forecast() -> None:
    settings = make_settings(*SMALL, "invert.surrogate.rounds=2", "invert.surrogate.calibration=30")
    targets = settings.data.targets
    assert forecast(settings, "drop", {})["invert-surrogate"] == 2 * (targets + 30) + 2 * 30


def advice(settings: Settings, checkup: Checkup, seconds: float = 1.0) -> list[str]:
    long = Examined(checkup, {"amortise-hybrid": 4_200_000}, {"amortise-hybrid": seconds})
    return list(advise(settings, "drop", long))


def test_what_to_change_is_said() -> None:
    settings = make_settings(*SMALL)
    found = check_task(settings, "drop").checkup
    assert advice(settings, found) == []
    (line,) = advice(settings, found, 21600.0)
    cure = "leave out the hybrid: routes=[surrogate,direct]"
    assert line == f"amortise-hybrid would take 4,200,000 simulations, 6 h: {cure}"
    fine = {**TASK, "outcomes": {"distance": {"unit": "m", "tolerance": 1e-15}}}
    settings = make_settings(*SMALL, task=fine)
    (line,) = advice(settings, check_task(settings, "drop").checkup)
    assert line.startswith("the tolerance of distance, 1e-15, is not above 4 times its noise, ")
    coarse = {**TASK, "outcomes": {"distance": {"unit": "m", "tolerance": 9.0}}}
    settings = make_settings(*SMALL, task=coarse)
    (line,) = advice(settings, check_task(settings, "drop").checkup)
    assert line.startswith("the tolerance of distance is 0.") and line.endswith(" of its range: lower it")


def test_a_route_that_needs_derivatives_is_advised_against_where_there_are_none() -> None:
    settings = make_settings(*SMALL, task={**TASK, "simulator": {"call": "foreign:at_random"}})
    lines = advice(settings, check_task(settings, "drop").checkup)
    assert "it has no derivatives, which the routes direct, hybrid need: routes=[surrogate,cma_es]" in lines
    assert any(line.startswith("the tolerance of distance, 0.01, is not above") for line in lines)


def test_runs_that_fail_are_told_with_their_reason() -> None:
    settings = make_settings(*SMALL, task={**TASK, "simulator": {"call": "foreign:failing_above_eight"}})
    examined = check_task(settings, "drop")
    text = "\n".join(tell(settings.tasks["drop"], examined))
    assert "% of them, the others at speed from 8 to 10 m/s" in text and "failed: RuntimeError: no convergence" in text
    assert any("narrow the ranges of the controls" in line for line in advice(settings, examined.checkup))


def test_names_of_tasks_are_overrides() -> None:
    assert read_arguments(["drop", "solver=adam"]) == ["solver=adam", "task=[drop]"]
    assert read_arguments(["task=drop"]) == ["task=drop"] and read_arguments([]) == []


def test_the_command_reports_and_its_exit_code_tells(tmp_path: Path) -> None:
    project = Repository(tmp_path / "project", git=False)
    done = project.run("aimback.workflow.run", "check", "cannon_vacuum", "diagnose=none", "routes=[direct]").ok()
    assert done.printed.startswith("cannon_vacuum\n") and "nothing to change" in done.printed
    assert "optimise-direct" in done.printed and not (project.root / "outputs" / "by_hand").exists()
    wrong = project.run("aimback.workflow.run", "check", "cannon_vacuum", "task.cannon_vacuum.tolerance=1e-17")
    assert wrong.code == 1 and "to change:" in wrong.printed
    mistaken = project.run("aimback.workflow.run", "check", "canon")
    assert mistaken.code == 2 and "task=canon: there is no such choice; did you mean cannon_drag?" in mistaken.stderr
