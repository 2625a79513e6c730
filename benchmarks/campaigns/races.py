"""Four processes at once that want the same compiled program, where there is none, a damaged one, or no place for it.

The compiler is played by a slow copy of what the real one has made once; all else is the library's own.
"""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import torch

from aimback.compile import compiler
from aimback.compile.compiler import Compiler
from aimback.compile.cpu import Cpu
from aimback.core.problem import InverseProblem
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.program import Buffers
from aimback.solve.step import Iteration, NotCompilable
from aimback.tasks.cannon_vacuum import CannonVacuum

_AT_ONCE = 4
_ROWS = 8
_SECONDS = 0.03  # that the played compiler takes at most for each half of a program


def races(count: int, folder: Path) -> list[str]:
    """So many rounds. In every other one a process is killed at a random moment."""
    torch.set_num_threads(1)  # a process that forks must have no others
    iteration = _iteration()
    whole = _real(iteration, folder / "real")
    expected = _answer(iteration, folder / "real")
    chance = random.Random(count)
    became: Counter[str] = Counter()
    for number in range(count):
        place = folder / str(number)
        _prepare(place, number % 5, whole)
        processes = [_fork(iteration, place, whole, expected, chance.random()) for _ in range(_AT_ONCE)]
        if number % 2:
            time.sleep(chance.uniform(0, _SECONDS))
            with contextlib.suppress(ProcessLookupError):
                os.kill(processes[-1], signal.SIGKILL)
        for process in processes:
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            became[_ENDED.get(code, "died")] += 1
    ended = ", ".join(f"{number} {how}" for how, number in sorted(became.items()))
    return [f"{count} rounds of {_AT_ONCE} processes: {ended}"]


_ENDED = {0: "ended with the right answers", 3: "were refused in one line", -signal.SIGKILL: "were killed by us"}


def _iteration() -> Iteration:
    task = CannonVacuum()
    controls = task.box.sample(_ROWS, torch.Generator().manual_seed(0))
    targets = task(controls, controls[:, :0])
    starts = task.box.to_unit(controls)[:, None]
    problem = InverseProblem(targets, controls[:, :0], task.box, task.distance, starts)
    return Iteration(task, problem, LevenbergMarquardt())


def _real(iteration: Iteration, folder: Path) -> bytes:
    Compiler(folder, "", Cpu(optimise=False))(iteration)
    (made,) = folder.glob("*.so")
    return made.read_bytes()


def _answer(iteration: Iteration, folder: Path) -> torch.Tensor:
    problem = iteration.problem
    starts = torch.full((_ROWS, 1, len(problem.box)), 0.4, dtype=torch.float64)
    buffers = Buffers.allocate(problem.targets, problem.conditions, starts, 20, 0)
    Compiler(folder, "", Cpu(optimise=False))(iteration)(buffers)()
    return buffers.best


def _prepare(place: Path, kind: int, whole: bytes) -> None:
    """A folder with nothing, another key's program, half a program or one with a wrong byte; or a file in its place."""
    if kind == 4:
        place.write_text("")
        return
    place.mkdir()
    damaged = [b"", whole, whole[: len(whole) // 2], b"\0" + whole[1:]][kind]
    for name in (made.name for made in (place.parent / "real").iterdir()):
        if kind:
            (place / (name if kind > 1 else f"other-{name}")).write_bytes(damaged)


def _fork(iteration: Iteration, place: Path, whole: bytes, expected: torch.Tensor, seed: float) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        chance = random.Random(seed)

        def write(_machine: Cpu, _step: str, _dtype: torch.dtype, path: Path) -> None:
            with path.open("wb") as file:
                for half in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
                    time.sleep(chance.uniform(0, _SECONDS))
                    file.write(half)
                    file.flush()

        Cpu.build = write
        compiler.write_solve = lambda _: ""
        code = 0 if torch.equal(_answer(iteration, place), expected) else 2
    except NotCompilable:
        code = 3
    finally:
        os._exit(code)
