"""A compiled step against the interpreted one, and what happens where there can be none."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aimback import compiled, ode
from aimback.box import Box, axis
from aimback.compiled import Compiler
from aimback.dual import linearise, value_of
from aimback.errors import UserError
from aimback.hardware import Hardware
from aimback.ledger import Counted, Ledger
from aimback.problem import InverseProblem, Solution, StartStatus
from aimback.solve.adam import Adam
from aimback.solve.advance import Advance, NotCompilable
from aimback.solve.cma_es import CmaEs
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.solver import Solver
from aimback.tasks.cannon_drag import time_to_ground
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.trebuchet import Trebuchet

NO_COMPILER = shutil.which("g++") is None and shutil.which("clang++") is None
needs_compiler = pytest.mark.skipif(NO_COMPILER, reason="there is no C++ compiler")


class Toss:
    """Thrown straight up in air with linear drag, by the integrator: how long until it is down?"""

    def __init__(self) -> None:
        self.box = Box([axis("speed", "m/s", [0.5, 10.0])])
        self.conditions, self.tolerance = Box([]), 1e-3
        self.outcomes = Box([axis("time", "s", [0.1, 1.8])])

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        (speed,) = controls.unbind(-1)
        start = torch.zeros_like(value_of(speed)), speed
        guess = value_of(speed) / 5.0
        rate = torch.full_like(guess, 0.3)
        _, time = ode.integrate_to_event(self.falling, start, self.down, guess, steps=8, rate=rate)
        return torch.stack([time], dim=-1)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return linearise(self, controls, conditions)

    @staticmethod
    def falling(state: ode.State) -> ode.State:
        return state[1], -0.3 * state[1] - 9.81

    @staticmethod
    def down(state: ode.State, rate: ode.State) -> Any:
        height, up = state
        return time_to_ground((None, height, None, up), (None, None, None, rate[1]))


def asked(task: Any, count: int) -> InverseProblem:
    """Targets of which some lie out of reach."""
    generator = torch.Generator().manual_seed(3)
    conditions = task.conditions.sample(count, generator)
    targets = 1.5 * task(task.box.sample(count, generator), conditions)
    span = float(torch.linalg.vector_norm(task.outcomes.upper - task.outcomes.lower))
    return InverseProblem(targets, conditions, task.box, task.tolerance, span)


def solved(task: Any, problem: InverseProblem, solver: Solver, compiler: Compiler | None) -> tuple[Solution, Ledger]:
    ledger = Ledger()
    forward = Counted(task, ledger, simulates=True)
    return solve(forward, problem, solver, torch.Generator().manual_seed(5), compiler=compiler), ledger


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("task", [CannonVacuum(), Toss()], ids=["closed form", "integrated"])
def test_a_compiled_step_gives_the_answers_of_the_interpreted_one(
    task: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver = LevenbergMarquardt(starts=3)
    problem, compiler = asked(task, 900), Compiler(folder, type(task).__name__)
    plain, plain_ledger = solved(task, problem, solver, None)
    fast, fast_ledger = solved(task, problem, solver, compiler)
    arrived = plain.start_status == StartStatus.ARRIVED
    assert 0.5 < float(arrived.double().mean()) < 0.99
    # Who is at rest at a closest approach notices sooner or later, by the last bits.
    same = fast.start_status == plain.start_status
    assert float(same.double().mean()) > 0.99
    assert torch.equal(fast.steps_to_tolerance[same], plain.steps_to_tolerance[same])
    apart = (task.box.to_unit(fast.controls) - task.box.to_unit(plain.controls)).abs().amax(-1)
    assert float((apart[same & arrived] < 1e-9).double().mean()) > 0.999
    assert fast_ledger.evaluations == pytest.approx(plain_ledger.evaluations, rel=0.05)
    assert fast_ledger.gradients == fast_ledger.evaluations == fast_ledger.simulations

    # A row alone, filled up to a register, has the bits of the row in company.
    step = compiler(Advance(task, problem, solver))
    begin = Advance(task, problem, solver).begin
    unit = torch.rand(900, len(task.box), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together, goes_on, why = step(1, step(0, begin(problem.targets, problem.conditions, unit))[0])
    row = step(1, step(0, begin(problem.targets[411:412], problem.conditions[411:412], unit[411:412]))[0])
    for whole, one in zip((*together.tensors(), goes_on, why), (*row[0].tensors(), *row[1:]), strict=True):
        torch.testing.assert_close(whole[411:412], one, rtol=0, atol=0)

    # So has the solution, however many rows a call takes.
    monkeypatch.setattr(compiled, "TILE", 64)
    tiled = solve(task, problem, solver, torch.Generator().manual_seed(5), compiler=lambda _: step)
    assert torch.equal(tiled.controls, fast.controls)
    assert torch.equal(tiled.believed_miss, fast.believed_miss)
    assert torch.equal(tiled.start_status, fast.start_status)
    assert torch.equal(tiled.steps, fast.steps)
    assert torch.equal(tiled.history.controls, fast.history.controls)


@needs_compiler
@pytest.mark.slow
def test_a_program_is_compiled_once_and_for_one_purpose(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, solver = CannonVacuum(), LevenbergMarquardt(starts=3)
    advance = Advance(task, asked(task, 40), solver)
    Compiler(folder, "CannonVacuum")(advance)

    def compiles(*_: object) -> None:
        raise AssertionError("compiled anew")

    monkeypatch.setattr(compiled, "_compile", compiles)
    Compiler(folder, "CannonVacuum")(advance)
    others = [
        ("CannonVacuum on the moon", advance),
        ("CannonVacuum", replace(advance, solver=LevenbergMarquardt(starts=3, damping=0.5))),
        ("CannonVacuum", replace(advance, problem=replace(advance.problem, tolerance=0.5))),
        ("CannonVacuum", replace(advance, problem=asked(CannonVacuum(speed=[0.0, 9.0]), 40))),
    ]
    for about, other in others:
        with pytest.raises(AssertionError, match="compiled anew"):
            Compiler(folder, about)(other)


@needs_compiler
def test_what_cannot_be_traced_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The trebuchet looks for its events as far as it must, which only the numbers tell."""
    task = Trebuchet()
    with pytest.raises(NotCompilable, match="it looks for an event"):
        Compiler(tmp_path, "")(Advance(task, asked(task, 20), LevenbergMarquardt()))
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_no_compiler_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    task = CannonVacuum()
    with pytest.raises(NotCompilable, match="install g"):
        Compiler(tmp_path, "")(Advance(task, asked(task, 20), Adam()))


def test_cma_es_is_not_compiled(tmp_path: Path) -> None:
    task = CannonVacuum()
    with pytest.raises(NotCompilable, match="cma_es"):
        solved(task, asked(task, 20), CmaEs(), Compiler(tmp_path, ""))


def test_auto_goes_by_the_number_of_starts_alone() -> None:
    auto = Hardware(accelerator="cpu")
    assert not auto.compiles(2_999_999)
    assert auto.compiles(3_000_000)
    assert Hardware(compile="on").compiles(1) and Hardware(compile=True).compiles(1)
    assert not Hardware(compile="off").compiles(10**9)
    assert issubclass(NotCompilable, UserError)
