"""The drag cannon at full speed, `benchmarks aim`'s work: arrays on the device, and NumPy in, NumPy out."""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from aimback.compile.compiler import Compiler
from aimback.core.distance import Distance
from aimback.core.problem import InverseProblem
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.quadratic import Quadratic
from aimback.solve.solver import Solver
from aimback.tasks.cannon_drag import CannonDrag
from benchmarks.cannon import FINE_STEPS, Cannon
from benchmarks.peers.aimback_direct import PRECISION, OneSpeed
from benchmarks.tables import number, table
from benchmarks.work import default_cannon, draw_work, hits

_SIZES = (100, 10_000, 1_000_000, 10_000_000)
_ROUNDS = 5
_SPAN = float(CannonDrag().outcomes.upper - CannonDrag().outcomes.lower)
_DISTANCE = Distance((2 * PRECISION * _SPAN,), 2 * PRECISION * _SPAN, _SPAN)


def measure(device: torch.device) -> str:
    sizes = _SIZES if device.type == "cuda" else _SIZES[:2]
    cannon = default_cannon()
    task = CannonDrag(steps=FINE_STEPS)
    angle = OneSpeed(task, cannon.speed)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        compiler = Compiler(Path(folder), "cannon_drag")
        quadratic, second = Quadratic(precision=PRECISION), LevenbergMarquardt(precision=PRECISION)
        for name, dtype, solver, forward in (
            ("quadratic, the angle", torch.float64, quadratic, angle),
            ("quadratic, the angle, float32", torch.float32, quadratic, angle),
            ("levenberg_marquardt, speed and angle", torch.float64, second, task),
        ):
            rows.append([name, "compiled", *_speeds(cannon, forward, solver, sizes, dtype, device, compiler)])
            few = _speeds(cannon, forward, solver, sizes[:2], dtype, device, None)
            rows.append([name, "interpreted", *few, *[""] * (len(sizes) - 2)])
        in_numpy = [_through_numpy(cannon, angle, quadratic, count, device, compiler) for count in sizes]
        rows.append(["quadratic, the angle", "compiled, NumPy in and out", *in_numpy])
    if (peer := _find_jax()) is not None:
        rows.append(["joint Newton by hand", "JAX, NumPy in and out", *(_clock_peer(peer, cannon, n) for n in sizes)])
    return table(["targets a second, start to finish", "", *(f"{count:,}" for count in sizes)], rows, words=2)


def _speeds(
    cannon: Cannon,
    forward: OneSpeed | CannonDrag,
    solver: Solver,
    sizes: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    compiler: Compiler | None,
) -> list[str]:
    told = []
    for count in sizes:
        given = [torch.from_numpy(column).to(device, dtype) for column in draw_work(cannon, count)]
        first = torch.from_numpy(cannon.first_angle(given[0].cpu().double().numpy())).to(device, dtype)
        answers: list[Tensor] = []

        def work(given: list[Tensor] = given, first: Tensor = first, answers: list[Tensor] = answers) -> None:
            answers[:] = [_solve(cannon, forward, solver, *given, first, compiler)]

        seconds = clock(work, device)
        found = answers[0].squeeze(-1).cpu().double().numpy()
        hit, checked, _ = hits(cannon, found, *(column.cpu().double().numpy() for column in given))
        told.append(f"{number(count / seconds)} ({hit} of {checked} hit)")
    return told


def _solve(
    cannon: Cannon,
    forward: OneSpeed | CannonDrag,
    solver: Solver,
    targets: Tensor,
    wind: Tensor,
    first_angle: Tensor,
    compiler: Compiler | None,
) -> Tensor:
    controls = first_angle[:, None]
    if len(forward.box) == 2:
        controls = torch.stack([torch.full_like(first_angle, 0.9 * cannon.speed), first_angle], dim=-1)
    starts = forward.box.to_unit(controls)[:, None]
    problem = InverseProblem(targets[:, None], wind[:, None], forward.box, _DISTANCE, starts)
    return solve(forward, problem, solver, torch.Generator(), compiler=compiler, paths=0).controls[:, 0]


def _through_numpy(
    cannon: Cannon, forward: OneSpeed, solver: Solver, count: int, device: torch.device, compiler: Compiler
) -> str:
    targets, wind = draw_work(cannon, count)

    def work() -> None:
        given = [torch.from_numpy(column).to(device) for column in (targets, wind, cannon.first_angle(targets))]
        _solve(cannon, forward, solver, *given, compiler).cpu().numpy()

    return number(count / clock(work, device))


def _clock_peer(prepare: Callable[[Cannon], Callable[..., object]], cannon: Cannon, count: int) -> str:
    aim = prepare(cannon)
    return number(count / clock(partial(aim, *draw_work(cannon, count)), torch.device("cpu")))


def _find_jax() -> Callable[[Cannon], Callable[..., object]] | None:
    try:
        from benchmarks.peers.jax_newton import prepare
    except ImportError:
        return None
    return prepare


def clock(work: Callable[[], object], device: torch.device, rounds: int = _ROUNDS) -> float:
    """The median of some rounds after a first one, which compiles."""
    seconds = []
    for turn in range(-1, rounds):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn >= 0:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
