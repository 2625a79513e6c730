"""What a GPU runs, without one: machine code from NVRTC, and the kernel itself in threads of the processor."""

import contextlib
import ctypes
import re
import subprocess
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from problems import pose
from test_compiled import (
    SOLVERS,
    Torn,
    Toss,
    asked,
    assert_looks_alike,
    finish,
    needs_compiler,
    network,
    solved,
)
from test_tasks import TASKS

from aimback.compile import cuda
from aimback.compile.compiler import Compiler, write_solve
from aimback.compile.cpu import Cpu, build_library
from aimback.compile.cuda import Cuda, compile_kernel
from aimback.core.box import Box, make_axis
from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem, StartStatus
from aimback.runtime.project import ROOT
from aimback.settings.build import build
from aimback.solve.gauss_newton import GaussNewton
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.quadratic import Quadratic
from aimback.solve.solver import Solver
from aimback.solve.step import Iteration, NotCompilable
from aimback.tasks.ballistics import Ballistics
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.robotic_arm import RoboticArm

PROCESSOR = torch.device("cpu")
WIDE = ("heat", "shell", "thin_film")
CARDS = ("sm_80", "sm_90")  # A100; H100, H200


def is_installed(package: str) -> bool:
    with contextlib.suppress(PackageNotFoundError):
        return bool(version(package))
    return False


needs_nvrtc = pytest.mark.skipif(
    not any(map(is_installed, cuda.PACKAGES)), reason="nvidia-cuda-nvrtc is not installed (extra: dev)"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("driver") / "libcuda.so"
    source = Path(__file__).with_name("cuda_driver.cpp")
    subprocess.run(["g++", "-std=c++20", "-shared", "-fPIC", "-pthread", source, "-o", library], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture
def gpu(driver: ctypes.CDLL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """A GPU played by the processor: machine code is the name of a library made of the kernel."""

    def compile_for_processor(step: str, dtype: torch.dtype, _: str) -> tuple[bytes, str]:
        library = tmp_path / f"{len(list(tmp_path.iterdir()))}.so"
        build_library(cuda.FRAME, step, dtype, library, optimise=False)
        return str(library).encode() + b"\0", ""

    monkeypatch.setattr(cuda, "compile_kernel", compile_for_processor)
    monkeypatch.setattr(cuda, "read_version", lambda: (0, 0))
    monkeypatch.setattr(cuda, "_load_driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=0))
    return Cuda(PROCESSOR, "sm_00", processors=2)


def assert_alike(task: Task, problem: InverseProblem, solver: Solver, gpu: Cuda, folder: Path) -> None:
    """The kernel ends as the program of the processor does, and where it does."""
    lanes, spent = solved(task, problem, solver, Compiler(folder / "lanes", "", Cpu(optimise=False)))
    threads, spent_by_threads = solved(task, problem, solver, Compiler(folder / "threads", "", gpu))
    same = lanes.start_status == threads.start_status
    assert float(same.double().mean()) > 0.95
    hit = same & (lanes.start_status == StartStatus.ARRIVED)
    assert bool(hit.any()) or isinstance(solver, GradientDescent)
    assert float((lanes.steps == threads.steps)[hit].double().mean()) > 0.95 or not bool(hit.any())
    apart = (lanes.controls - threads.controls).abs().amax(-1)[hit]
    assert float((apart < 1e-7).double().mean()) > 0.95 or not bool(hit.any())
    assert spent_by_threads.simulations == pytest.approx(spent.simulations, rel=0.02)


@needs_compiler
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("task", [CannonVacuum(), pytest.param(RoboticArm(), marks=pytest.mark.slow)], ids=["", "arm"])
def test_a_kernel_gives_the_answers_of_the_lanes(task: Task, solver: Solver, gpu: Cuda, tmp_path: Path) -> None:
    chosen = Ballistics() if isinstance(solver, Quadratic) else task
    assert_alike(chosen, asked(chosen, 200), solver, gpu, tmp_path)


@needs_compiler
def test_a_flight_is_a_loop_within_a_thread(gpu: Cuda, tmp_path: Path) -> None:
    assert_alike(CannonDrag(), asked(CannonDrag(), 60), LevenbergMarquardt(), gpu, tmp_path)


@needs_compiler
def test_a_look_is_one_launch(gpu: Cuda, tmp_path: Path) -> None:
    assert_looks_alike(Toss(), asked(Toss(), 300, starts=1), Compiler(tmp_path / "kept", "", gpu))


@needs_compiler
def test_starts_end_alike_however_they_end(gpu: Cuda, tmp_path: Path) -> None:
    """As many as are far more than threads; those whose arithmetic fails too."""
    iteration = Iteration(Torn(), asked(Toss(), 300), GradientDescent(max_steps=3))
    unit = torch.rand(300, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    programs = [Compiler(tmp_path / "kept", "", backend)(iteration) for backend in (Cpu(False), gpu)]
    ends = [finish(program, iteration.problem, unit, 3) for program in programs]
    assert len(ends[0].status.unique()) > 2 and len(ends[0].steps.unique()) > 2
    for name in ("steps", "status", "reached"):
        assert torch.equal(*(getattr(end, name) for end in ends)), name
    for name in ("best", "path", "misses"):
        torch.testing.assert_close(*(getattr(end, name) for end in ends), rtol=1e-9, atol=1e-9, equal_nan=True)


@needs_compiler
def test_a_network_in_a_kernel(gpu: Cuda, tmp_path: Path) -> None:
    surrogate = network("silu")
    box = Box([make_axis("a", "", [0.0, 1.0]), make_axis("b", "", [0.0, 1.0])])
    points = box.sample(100, torch.Generator().manual_seed(3))
    problem = pose(surrogate(points, points[:, :0]), points[:, :0], box, 1e-3, 1.0, 2, 5)
    assert_alike(surrogate, problem, LevenbergMarquardt(), gpu, tmp_path)


@needs_compiler
def test_a_kernel_is_kept_for_the_next_time(gpu: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iteration = Iteration(CannonVacuum(), asked(CannonVacuum(), 10), LevenbergMarquardt())
    Compiler(tmp_path / "kept", "", gpu)(iteration)

    def refuse(*_: object) -> None:
        raise AssertionError("compiled anew")

    monkeypatch.setattr(cuda, "compile_kernel", refuse)
    Compiler(tmp_path / "kept", "", gpu)(iteration)
    for other in (Cuda(PROCESSOR, "sm_01", 2), Cpu()):
        with pytest.raises(AssertionError, match="compiled anew"):
            monkeypatch.setattr(Cpu, "build", refuse)
            Compiler(tmp_path / "kept", "", other)(iteration)


@needs_compiler
def test_a_driver_that_fails_is_said_in_words(gpu: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "compile_kernel", lambda *_: (b"no machine code\0", ""))
    iteration = Iteration(CannonVacuum(), asked(CannonVacuum(), 10), LevenbergMarquardt())
    with pytest.raises(NotCompilable, match="cannot be made or loaded: cuModuleLoadData .* fails with status 200"):
        Compiler(tmp_path, "", gpu)(iteration)


@pytest.mark.gpu
@pytest.mark.parametrize("task", [CannonDrag(), RoboticArm()], ids=["a flight", "an arm"])
def test_a_card_gives_the_answers_of_the_interpreter(task: Task, tmp_path: Path) -> None:
    problem, solver = asked(task, 2000), LevenbergMarquardt()
    parts = {name: getattr(problem, name).to("cuda") for name in ("targets", "conditions", "starts")}
    plain, spent = solved(task, problem, solver, None)
    fast, spent_there = solved(task, replace(problem, **parts), solver, Compiler(tmp_path, ""))
    (kept,) = tmp_path.glob("*.cubin")
    assert kept.read_bytes().startswith(b"\x7fELF")
    same = fast.start_status.cpu() == plain.start_status
    assert float(same.double().mean()) > 0.99
    hit = same & (plain.start_status == StartStatus.ARRIVED)
    apart = (fast.controls.cpu() - plain.controls).abs().amax(-1)[hit]
    assert float((apart < 1e-7).double().mean()) > 0.99
    assert spent_there.simulations == pytest.approx(spent.simulations, rel=0.02)


def read_task(name: str) -> Task:
    file = ROOT / "conf" / "task" / f"{name}.yaml"
    return build(yaml.safe_load(file.read_text())[name], Task, name)


def assert_compiles(task: Task, solver: Solver, cards: tuple[str, ...] = CARDS) -> None:
    step = write_solve(Iteration(task, asked(task, 10), solver))
    for card in cards:
        machine_code, told = compile_kernel(step, torch.float64, card)
        assert machine_code.startswith(b"\x7fELF")
        (registers,) = re.findall(r"Used (\d+) registers", told)
        assert 16 < int(registers) <= 255


@needs_nvrtc
@pytest.mark.parametrize(
    ("name", "solver"),
    [
        pytest.param(name, solver, marks=[] if (name, index) == ("cannon_drag", 4) else [pytest.mark.slow])
        for name in TASKS
        if name not in WIDE
        for index, solver in enumerate(SOLVERS)
        # A minute each; one of them shows that its text, the longest, is not too long.
        if name != "trebuchet" or isinstance(solver, LevenbergMarquardt)
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_every_solver_compiles_on_every_task(name: str, solver: Solver) -> None:
    task = read_task(name)
    if isinstance(solver, Quadratic) and len(task.outcomes) > 1:
        with pytest.raises(UserError, match="for one outcome"):
            assert_compiles(task, solver)
        return
    if isinstance(solver, GaussNewton) and len(task.outcomes) > 2:
        with pytest.raises(NotCompilable, match="svd"):
            assert_compiles(task, solver)
        return
    assert_compiles(task, solver, CARDS if name != "trebuchet" else CARDS[1:])


@pytest.mark.parametrize("name", WIDE)
def test_a_field_and_a_spectrum_are_too_much_to_write_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotCompilable, match="a Jacobian of .* numbers is too much to write out"):
        solved(task := read_task(name), asked(task, 2), LevenbergMarquardt(), Compiler(tmp_path, ""))


@needs_nvrtc
@pytest.mark.parametrize(("width", "place"), [(18, "constant"), pytest.param(80, "device", marks=pytest.mark.slow)])
def test_networks_compile(width: int, place: str) -> None:
    """Their weights lie in constant memory as long as there is room."""
    surrogate = network("tanh", width)
    points = torch.rand(4, 2, dtype=torch.float64)
    box = Box([make_axis("a", "", [0.0, 1.0]), make_axis("b", "", [0.0, 1.0])])
    problem = pose(surrogate(points, points[:, :0]), points[:, :0], box, 1e-3, 1.0)
    step = write_solve(Iteration(surrogate, problem, LevenbergMarquardt()))
    assert cuda._place_tables(step, torch.float64) == f"__{place}__"
    assert cuda._place_tables(step, torch.float32) == "__constant__"
    for dtype in (torch.float64, torch.float32):
        assert compile_kernel(step, dtype, "sm_90")[0].startswith(b"\x7fELF")


@needs_nvrtc
def test_what_nvrtc_refuses_is_said_in_one_line() -> None:
    with pytest.raises(NotCompilable, match=r"^NVRTC fails: step\.h\(1\): error: .*$"):
        compile_kernel("inline void apply(const V* in, V* out) { nothing; }", torch.float64, "sm_90")
    with pytest.raises(NotCompilable, match=r"^NVRTC fails: .*gpu-architecture.*$"):
        compile_kernel("", torch.float64, "sm_1")


def test_no_nvrtc_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "PACKAGES", ())
    cuda._load_nvrtc.cache_clear()
    try:
        with pytest.raises(NotCompilable, match="pip install nvidia-cuda-nvrtc"):
            cuda.find_gpu(torch.device("cuda"))
    finally:
        cuda._load_nvrtc.cache_clear()
