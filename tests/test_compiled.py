"""Compiled solves against interpreted ones, and what happens where there can be none."""

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import pose
from torch import Tensor

from aimback.autodiff import ode
from aimback.autodiff.dual import value_of
from aimback.compile import compiler as compiled
from aimback.compile import cpu
from aimback.compile.compiler import Compiler
from aimback.compile.cpu import Cpu
from aimback.core import files
from aimback.core.box import Box, make_axis
from aimback.core.distance import Distance
from aimback.core.errors import UserError
from aimback.core.files import sha256
from aimback.core.hardware import Hardware
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem, Solution, StartStatus
from aimback.learn.surrogate import Surrogate
from aimback.runtime.project import ROOT
from aimback.settings.learning import ACTIVATIONS, Architecture
from aimback.solve.adam import Adam
from aimback.solve.cma_es import CmaEs
from aimback.solve.gauss_newton import GaussNewton
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.lbfgs import Lbfgs
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.look import compile_look, make_look
from aimback.solve.multistart import solve
from aimback.solve.program import Buffers, Program
from aimback.solve.quadratic import Quadratic
from aimback.solve.solver import Solver
from aimback.solve.step import Finish, Iteration, NotCompilable
from aimback.tasks.ballistics import Ballistics
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import time_to_ground
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.robotic_arm import RoboticArm
from aimback.tasks.trebuchet import Trebuchet

NO_COMPILER = shutil.which("g++") is None and shutil.which("clang++") is None
SOLVERS = [
    Adam(max_steps=50),
    GaussNewton(),
    GradientDescent(max_steps=30),
    Lbfgs(),
    LevenbergMarquardt(),
    Quadratic(),
]
needs_compiler = pytest.mark.skipif(NO_COMPILER, reason="there is no C++ compiler")
# What is translated is the same, and the C++ compiler takes a tenth of the time.
Unoptimised = partial(Compiler, backend=Cpu(optimise=False))


class Toss(Task):
    """Thrown straight up in air with linear drag, by the integrator: how long until it is down?"""

    def __init__(self) -> None:
        self.box = Box([make_axis("speed", "m/s", [0.5, 10.0])])
        self.conditions, self.tolerance = Box([]), 1e-3
        self.outcomes = Box([make_axis("time", "s", [0.1, 1.8])])

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        (speed,) = controls.unbind(-1)
        start = torch.zeros_like(value_of(speed)), speed
        guess = value_of(speed) / 5.0
        rate = torch.full_like(guess, 0.3)
        _, time = ode.integrate_to_event(self.falling, start, self.down, guess, steps=8, rate=rate)
        return torch.stack([time], dim=-1)

    @staticmethod
    def falling(state: ode.State) -> ode.State:
        return state[1], -0.3 * state[1] - 9.81

    @staticmethod
    def down(state: ode.State, rate: ode.State) -> Any:
        height, up = state
        return time_to_ground((None, height, None, up), (None, None, None, rate[1]))


class Drop(Toss):
    """The same flight, its end looked for; the speed is a parameter of the motion too."""

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        (speed,) = controls.unbind(-1)
        start = torch.full_like(value_of(speed), 1e-3), speed
        _, time, missing = ode.integrate_to_crossing(self.slowed, (speed,), start, steps=8, pace=0.1, horizon=2.0)
        return torch.stack([torch.where(missing == 0, time, missing)], dim=-1)

    @staticmethod
    def slowed(speed: Any) -> tuple[ode.Derivative, ode.Measure]:
        return lambda state: (state[1], -0.03 * speed * state[1] - 9.81), lambda state: state[0]


def asked(task: Any, count: int, starts: int = 3) -> InverseProblem:
    """Targets of which some lie out of reach."""
    generator = torch.Generator().manual_seed(3)
    conditions = task.conditions.sample(count, generator)
    targets = 1.5 * task(task.box.sample(count, generator), conditions)
    return pose(targets, conditions, task.box, task.tolerance, task.distance.span, starts, 5)


def solved(task: Any, problem: InverseProblem, solver: Solver, compiler: Compiler | None) -> tuple[Solution, Ledger]:
    ledger = Ledger()
    forward = Counted(task, ledger, simulates=True)
    return solve(forward, problem, solver, torch.Generator().manual_seed(5), compiler=compiler), ledger


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


def assert_looks_alike(task: Any, problem: InverseProblem, compiler: Compiler) -> None:
    """A compiled look tells what the interpreted one does, and the ledger hears of it as often."""
    counted, ledger = [], []
    unit = problem.starts[:, 0]
    for make in (
        lambda forward: make_look(forward, task.box, task.distance),
        partial(compile_look, problem=problem, compiler=compiler),
    ):
        ledger.append(Ledger())
        look = make(Counted(task, ledger[-1], simulates=True))
        counted.append(look(unit, problem.conditions, problem.targets))
    plain, fast = counted
    assert torch.equal(fast.unit, plain.unit)
    torch.testing.assert_close(fast.residual, plain.residual, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(fast.jacobian, plain.jacobian, rtol=1e-10, atol=1e-12)
    assert ledger[0] == ledger[1] == Ledger(len(unit), len(unit), len(unit))


@needs_compiler
@pytest.mark.parametrize("task", [Toss(), RoboticArm()], ids=["one outcome", "several"])
def test_a_compiled_look_tells_outcomes_and_derivatives(task: Any, folder: Path) -> None:
    assert_looks_alike(task, asked(task, 700, starts=1), Unoptimised(folder, type(task).__name__))


@needs_compiler
@pytest.mark.parametrize(
    ("task", "optimise"),
    [(CannonVacuum(), False), (Toss(), True), (Drop(), False)],
    ids=["closed form", "integrated, optimised", "searched"],
)
def test_a_compiled_solve_gives_the_answers_of_the_interpreted_one(task: Any, optimise: bool, folder: Path) -> None:
    solver = LevenbergMarquardt()
    problem, compiler = asked(task, 900), Compiler(folder, type(task).__name__, Cpu(optimise))
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
    # Paths too, from the start on and as long as anyone moves.
    assert len(fast.history.controls) == int(fast.steps.max()) + 1
    assert torch.equal(fast.history.controls[0], plain.history.controls[0])
    shared = slice(0, min(len(fast.history.controls), len(plain.history.controls), 4))
    kept = fast.history.controls.shape[1]
    gaps = (fast.history.controls[shared] - plain.history.controls[shared]).abs().amax((0, 3))
    assert float((gaps[(same & arrived)[:kept]] < 1e-9).double().mean()) > 0.99
    for mine, others in ((fast, plain), (plain, fast)):
        assert {mine.controls.dtype, mine.believed_miss.dtype} == {torch.float64}
        assert mine.steps.dtype == others.steps.dtype
        assert mine.start_status.dtype == others.start_status.dtype
        assert mine.steps_to_tolerance.dtype == others.steps_to_tolerance.dtype


@needs_compiler
def test_no_bit_of_a_row_depends_on_its_company(folder: Path) -> None:
    """Alone or among others, in one thread or in three, in one block or in many; as optimised as users have it."""
    task, solver = Toss(), LevenbergMarquardt()
    problem, compiler = asked(task, 333), Compiler(folder, "Toss")
    iteration = Iteration(task, problem, solver)
    unit = torch.rand(333, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    program = compiler(iteration)
    whole = finish(program, problem, unit, solver.max_steps)
    torch.set_num_threads(3)
    try:
        threaded = finish(program, problem, unit, solver.max_steps)
    finally:
        torch.set_num_threads(1)
    assert_same(whole, threaded)
    for rows in (slice(0, 1), slice(41, 42), slice(100, 117)):
        some = finish(program, problem, unit, solver.max_steps, rows)
        for name in ("best", "miss", "reached", "steps", "status"):
            assert torch.equal(getattr(whole, name)[rows], getattr(some, name)), name
        assert torch.equal(whole.path[: len(some.path), rows], some.path)


def finish(
    program: Program, problem: InverseProblem, unit: Tensor, max_steps: int, rows: slice = slice(None)
) -> Finish:
    """Where a program takes rows, one start a target; the paths of all are kept."""
    starts = unit[rows, None]
    buffers = Buffers.allocate(problem.targets[rows], problem.conditions[rows], starts, max_steps, len(starts))
    program(buffers)()
    assert int(buffers.tally[1]) == len(starts) + int(buffers.steps.sum())
    return buffers.read()


def assert_same(one: Finish, other: Finish) -> None:
    for field in fields(Finish):
        torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name), rtol=0, atol=0)


class Torn(Toss):
    """Where it is thrown slowly it is lost, fast and it never comes down, and once the arithmetic fails."""

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        speed = value_of(controls)
        time = super().__call__(controls, conditions)
        time = torch.where(speed > 9.0, torch.inf, time)
        return torch.where(speed < 1.0, torch.nan, time)


@needs_compiler
@pytest.mark.parametrize("max_steps", [1, 2, 60])
def test_starts_end_alike_however_they_end(folder: Path, max_steps: int) -> None:
    task, solver = Torn(), GradientDescent(max_steps=max_steps)
    problem = asked(Toss(), 3000, 2)  # of which a few arrive in one step
    plain, _ = solved(task, problem, solver, None)
    fast, _ = solved(task, problem, solver, Unoptimised(folder, "Torn"))
    found = plain.start_status.unique().tolist()
    assert {StartStatus.NO_EVENT, StartStatus.NOT_FINITE, StartStatus.ARRIVED} <= set(found)
    assert (StartStatus.STEP_LIMIT in found) == (max_steps < 60)
    assert torch.equal(fast.start_status, plain.start_status)
    assert torch.equal(fast.steps, plain.steps)
    assert int(fast.steps.max()) <= max_steps
    torch.testing.assert_close(fast.controls, plain.controls, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fast.believed_miss, plain.believed_miss, rtol=1e-9, atol=1e-9)


@needs_compiler
def test_in_single_precision(folder: Path) -> None:
    task = CannonVacuum()
    precise = asked(task, 200)
    problem = replace(precise, targets=precise.targets.float(), conditions=precise.conditions.float())
    solver = LevenbergMarquardt(precision=1e-5)
    plain, _ = solved(task, problem, solver, None)
    fast, _ = solved(task, problem, solver, Unoptimised(folder, "CannonVacuum"))
    assert fast.controls.dtype == fast.believed_miss.dtype == torch.float32
    same = plain.start_status == fast.start_status
    assert float(same.double().mean()) > 0.97


def network(activation: str, width: int = 18, seed: int = 2) -> Surrogate:
    architecture = Architecture(hidden_width=width, hidden_layers=2, activation=activation)
    nought, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    surrogate = Surrogate(nought, one, torch.zeros(2, dtype=torch.float64), one, architecture)
    surrogate.draw_weights(torch.Generator().manual_seed(seed))
    return surrogate.double().eval().requires_grad_(False)


@needs_compiler
@pytest.mark.parametrize(("activation", "members"), [*((activation, 1) for activation in ACTIVATIONS), ("tanh", 3)])
def test_networks(activation: str, members: int, folder: Path) -> None:
    surrogate = Surrogate.join([network(activation, seed=2 + number) for number in range(members)])
    box = Box([make_axis("a", "", [0.0, 1.0]), make_axis("b", "", [0.0, 1.0])])
    points = box.sample(200, torch.Generator().manual_seed(3))
    problem = pose(surrogate(points, points[:, :0]), points[:, :0], box, 1e-3, 1.0, 2, 5)
    solver = LevenbergMarquardt()
    plain, _ = solved(surrogate, problem, solver, None)
    fast, _ = solved(surrogate, problem, solver, Unoptimised(folder, f"{members} {activation}"))
    arrived = (plain.start_status == StartStatus.ARRIVED) & (fast.start_status == StartStatus.ARRIVED)
    assert float(arrived.double().mean()) > 0.3
    apart = (plain.controls - fast.controls).abs().amax(-1)[arrived]
    assert float((apart < 1e-7).double().mean()) > 0.97


@needs_compiler
def test_wide_layers_are_left_to_products_of_matrices(tmp_path: Path) -> None:
    wide = network("tanh", width=300)
    box = Box([make_axis("a", "", [0.0, 1.0]), make_axis("b", "", [0.0, 1.0])])
    problem = pose(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, 0, dtype=torch.float64), box, 1.0, 1.0)
    assert wide.wide
    with pytest.raises(NotCompilable, match="90000 weights"):
        solved(wide, problem, GradientDescent(), Compiler(tmp_path, ""))


@needs_compiler
@pytest.mark.parametrize(
    ("task", "solver", "optimise"),
    [
        # For one outcome alone, as it says itself, see test_solvers.
        *((Ballistics() if isinstance(solver, Quadratic) else RoboticArm(), solver, False) for solver in SOLVERS),
        *(
            pytest.param(Ballistics(), solver, isinstance(solver, Lbfgs), marks=pytest.mark.slow)
            for solver in SOLVERS
            if not isinstance(solver, Quadratic)
        ),
    ],
    ids=lambda part: "" if isinstance(part, bool) else type(part).__name__,
)
def test_every_solver(task: Any, solver: Solver, optimise: bool, folder: Path) -> None:
    problem = asked(task, 100, 2)
    plain, _ = solved(task, problem, solver, None)
    fast, _ = solved(task, problem, solver, Compiler(folder, type(task).__name__, Cpu(optimise)))
    same = plain.start_status == fast.start_status
    assert float(same.double().mean()) > 0.95
    apart = (plain.controls - fast.controls).abs().amax(-1)[same & (plain.start_status == StartStatus.ARRIVED)]
    assert len(apart) > 0 or isinstance(solver, GradientDescent)
    assert float((apart < 1e-6).double().mean()) > 0.95


@pytest.fixture(scope="module")
def toss(folder: Path) -> tuple[Iteration, Path, Finish]:
    """A solve, its program, and what that computes."""
    iteration = Iteration(Toss(), asked(Toss(), 20), GradientDescent(max_steps=5))
    ended = run(iteration, folder / "toss")
    (program,) = (folder / "toss").iterdir()
    return iteration, program, ended


def run(iteration: Iteration, folder: Path) -> Finish:
    unit = torch.full((len(iteration.problem.targets), 1), 0.3, dtype=torch.float64)
    return finish(Unoptimised(folder, "")(iteration), iteration.problem, unit, iteration.solver.max_steps)


@pytest.fixture
def compiling(toss: tuple[Iteration, Path, Finish], monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What others do, in their order, while this process compiles: its compiler is a copy of what it made before."""
    meanwhile: list[Callable[[], object]] = []

    def copy(_: Cpu, __: str, ___: torch.dtype, path: Path) -> None:
        meanwhile.pop(0)()
        shutil.copyfile(toss[1], path)

    monkeypatch.setattr(compiled, "write_solve", lambda _: "")
    monkeypatch.setattr(Cpu, "build", copy)
    return meanwhile


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda whole: b"",
    "half of it": lambda whole: whole[: len(whole) // 2],
    "one bit": lambda whole: whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
    "one byte too many": lambda whole: whole + b"0",
    "another program": lambda whole: Path(torch.__file__).with_name("lib").joinpath("libc10.so").read_bytes(),
}


@needs_compiler
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_program_is_never_run(
    damage: str, toss: tuple[Iteration, Path, Finish], compiling: list[Callable[[], object]], tmp_path: Path
) -> None:
    iteration, program, ended = toss
    kept = tmp_path / program.name
    kept.write_bytes(DAMAGES[damage](program.read_bytes()))
    compiling.append(lambda: None)
    assert_same(run(iteration, tmp_path), ended)
    assert compiling == [] and kept.read_bytes() == program.read_bytes()
    assert_same(run(iteration, tmp_path), ended)


OTHERS: dict[str, Callable[[Path, Path], object]] = {
    "keeps the same program": lambda folder, program: shutil.copy(program, folder),
    "keeps other bytes of the same program": lambda folder, program: renamed(folder, program, b"0"),
    "is killed while it writes it": lambda folder, program: (folder / f".{program.stem}-abc.so").write_bytes(b"half"),
    "removes the folder": lambda folder, program: folder.rmdir(),
    "puts a file in the folder's place": lambda folder, program: (folder.rmdir(), folder.write_bytes(b"")),
}


def renamed(folder: Path, program: Path, more: bytes) -> None:
    """A compiler may write other bytes each time."""
    other = folder / "other"
    other.write_bytes(program.read_bytes() + more)
    other.rename(folder / f"{program.stem.partition('-')[0]}-{sha256(other)[:24]}.so")


@needs_compiler
@pytest.mark.parametrize("other", OTHERS)
def test_another_process_may_do_anything_meanwhile(
    other: str, toss: tuple[Iteration, Path, Finish], compiling: list[Callable[[], object]], tmp_path: Path
) -> None:
    iteration, program, ended = toss
    cache = tmp_path / "cache"
    cache.mkdir()
    compiling.append(lambda: OTHERS[other](cache, program))
    assert_same(run(iteration, cache), ended)
    if cache.is_dir():
        assert_same(run(iteration, cache), ended)  # which compiles nothing
        assert (cache / program.name).read_bytes() == program.read_bytes()


@needs_compiler
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_folder_that_takes_no_program_costs_nothing_but_time(
    number: int,
    toss: tuple[Iteration, Path, Finish],
    compiling: list[Callable[[], object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    iteration, _, ended = toss

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    compiling.append(lambda: monkeypatch.setattr(files.tempfile, "mkstemp", refuse))
    assert_same(run(iteration, tmp_path), ended)
    assert list(tmp_path.iterdir()) == []
    (said,) = caplog.messages
    assert said.startswith("a compiled program is not kept for the next time: ") and "\n" not in said


@needs_compiler
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_no_place_to_compile_in_says_so(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(compiled.tempfile, "mkdtemp", refuse)
    iteration = Iteration(CannonVacuum(), asked(CannonVacuum(), 20), Adam())
    with pytest.raises(NotCompilable, match=os.strerror(number)):
        Compiler(tmp_path, "")(iteration)


@needs_compiler
@pytest.mark.slow
def test_processes_that_compile_the_same_at_once_all_end_well() -> None:
    """Here some rounds of what `python -m benchmarks.campaigns races` does by the hundred."""
    code = "import tempfile, pathlib; from benchmarks.campaigns.races import races; print(*races(5, pathlib.Path(%r)))"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", code % folder], cwd=ROOT, capture_output=True, text=True, check=True
        )
    counted = re.fullmatch(
        r"5 rounds of 4 processes: (\d+) ended with the right answers(, \d were killed by us)?\n", done.stdout
    )
    assert counted and int(counted[1]) >= 17, done.stdout


@needs_compiler
def test_a_program_is_compiled_once_and_for_one_purpose(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, solver = CannonVacuum(), LevenbergMarquardt()
    iteration = Iteration(task, asked(task, 40), solver)
    compiler = Unoptimised(folder, "CannonVacuum")
    compiler(iteration)

    def compiles(*_: object) -> None:
        raise AssertionError("compiled anew")

    monkeypatch.setattr(compiled, "write_solve", compiles)
    compiler(iteration)
    replace(compiler)(iteration)  # as in another process
    others = [
        (replace(compiler, about="CannonVacuum on the moon"), iteration),
        (replace(compiler, backend=Cpu(optimise=True)), iteration),
        (compiler, replace(iteration, solver=LevenbergMarquardt(damping=0.5))),
        (compiler, replace(iteration, problem=replace(iteration.problem, distance=Distance((0.5,), 0.5, 9.0)))),
        (compiler, replace(iteration, problem=asked(CannonVacuum(speed=[0.0, 9.0]), 40))),
    ]
    for another, other in others:
        with pytest.raises(AssertionError, match="compiled anew"):
            another(other)


@needs_compiler
def test_what_cannot_be_traced_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The published program of the trebuchet asks in Python how far it must go, which only the numbers tell."""
    task = Trebuchet(integrator="euler60")
    with pytest.raises(NotCompilable, match="data-dependent"):
        Compiler(tmp_path, "")(Iteration(task, asked(task, 20), LevenbergMarquardt()))
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@needs_compiler
def test_what_cannot_be_loaded_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a disk that is mounted so that nothing on it can be executed."""

    def refused(path: Path) -> None:
        raise OSError(f"{path.name}: failed to map segment from shared object")

    monkeypatch.setattr(cpu, "_load", refused)
    task = CannonVacuum()
    with pytest.raises(NotCompilable, match="cannot be made or loaded: .*failed to map"):
        solved(task, asked(task, 20), GradientDescent(), Unoptimised(tmp_path, ""))


def test_no_compiler_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    task = CannonVacuum()
    with pytest.raises(NotCompilable, match="install g"):
        Compiler(tmp_path, "")(Iteration(task, asked(task, 20), Adam()))


@pytest.mark.parametrize(
    "variable",
    [
        *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_RUN_PATH", "GCC_EXEC_PREFIX"),
        *("COMPILER_PATH", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES"),
        *("CCC_OVERRIDE_OPTIONS", "CLANG_CONFIG_FILE_USER_DIR", "SOURCE_DATE_EPOCH", "CCACHE_PREFIX", "SDKROOT"),
    ],
)
def test_the_environment_changes_nothing_about_how_is_compiled(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_by = tmp_path / "compiler"
    asked_by.write_text(f"#!/bin/sh\nenv > '{tmp_path}/seen'\necho 'error: not today' >&2\nexit 1\n")
    asked_by.chmod(0o755)
    monkeypatch.setenv("CXX", str(asked_by))
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    with pytest.raises(NotCompilable, match="compiler fails: error: not today"):
        cpu.build_library(Path("lanes.cpp"), "", torch.float64, tmp_path / "program")
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert seen["LC_ALL"] == "C" and variable not in seen and "LANG" not in seen


def test_cma_es_is_not_compiled(tmp_path: Path) -> None:
    task = CannonVacuum()
    with pytest.raises(NotCompilable, match="cma_es"):
        solved(task, asked(task, 20), CmaEs(), Compiler(tmp_path, ""))


def test_auto_goes_by_the_number_of_starts_and_the_device() -> None:
    auto, on, true, off = (
        Hardware.model_validate({"accelerator": "cpu", "dtype": "float64", "threads": 1, "compile": value})
        for value in ("auto", "on", True, "off")
    )
    processor, gpu = torch.device("cpu"), torch.device("cuda")
    assert not auto.compiles(99_999, processor)
    assert auto.compiles(100_000, processor) and auto.compiles(1, gpu)
    assert on.compiles(1, processor) and true.compiles(1, processor)
    assert not off.compiles(10**9, processor) and not off.compiles(10**9, gpu)
    assert issubclass(NotCompilable, UserError)
