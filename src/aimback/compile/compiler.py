"""A whole solve as one compiled program, kept between processes.

Run by the interpreter, a step of small tensors is thousands of operations of which each costs
microseconds to start and passes over memory of its own. Here torch traces the step of one row,
`cpp.py` writes it out, and `frame.cpp` takes as many rows through it at once as registers hold, each
from its start to its end. The arithmetic is the same, the last bits are not: a compiler contracts.
"""

import contextlib
import ctypes
import functools
import hashlib
import io
import logging
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aimback.compile.cpp import write_step
from aimback.core.errors import UserError
from aimback.core.files import sha256, write_whole
from aimback.core.ledger import Counted
from aimback.solve.point import compute_miss
from aimback.solve.step import Finish, Front, Iteration, NotCompilable, Program

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent
_PACKAGE = _FOLDER.parent
_SOLVE = _FOLDER / "frame.cpp"
_C_NAMES = {torch.float64: "double", torch.float32: "float"}
# What torch's own vectors are made of, by what torch finds this processor to be capable of.
_INSTRUCTIONS = {
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"],
    "AVX2": ["-mavx2", "-mfma", "-mf16c"],
}
# A product that is added is one operation, rounded once; nobody looks at errno or floating-point traps.
_ARITHMETIC = ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
# All that a compiler gets of the environment: CXX may choose it, and nothing chooses its flags or what it includes.
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
_LONG = 10_000  # lines: at -O3 GCC takes minutes over more of them, or gives up


@dataclass(frozen=True)
class Compiler:
    """Compiles solves, or loads what an earlier process has compiled.

    A program depends on the code, the forward map, the solver, the box and the distance of the problem,
    the dtype, torch, the processor and the compiler: on each of them hangs its file's name.

    Args:
        folder: where programs are kept. They are machine code, and are run: nobody else may write there.
        about: what the forward map computes, in words that differ where it does (see `identity`).
        optimise: whether the C++ compiler optimises. Without, it takes a tenth of the time and its program
            runs slower: for tests, which compile much and compute little.
    """

    folder: Path
    about: str
    optimise: bool = True

    def __call__(self, iteration: Iteration) -> Program:
        """Compile the steps, which takes some seconds the first time, or load them in milliseconds.

        Raises:
            NotCompilable: not on the CPU, no C++ compiler, operations that cannot be traced or translated, or a
                folder whose files may not be executed.
        """
        forward = iteration.forward
        count = None
        if isinstance(forward, Counted):
            iteration, count = replace(iteration, forward=forward.forward), forward.count
        if iteration.problem.targets.device.type != "cpu":
            raise NotCompilable("solves are compiled for the CPU only")
        key = self._name_solve(iteration)
        for kept in self.folder.glob(f"{key}-*.so"):
            with contextlib.suppress(OSError):  # unreadable, or on a disk whose files may not be executed
                if kept.stem == _name_program(key, kept):  # damaged machine code is not to be run
                    return _Program(_load(kept), count)
        try:
            with tempfile.TemporaryDirectory() as place:
                made = Path(place) / "program.so"
                _compile(iteration, made, self.optimise)
                return _Program(_load(self._keep(made, key)), count)
        except OSError as error:
            raise NotCompilable(f"its program cannot be made or loaded: {error}") from error

    def _keep(self, made: Path, key: str) -> Path:
        """Put a program where later processes find it; where that fails, it serves this process from where it is.

        Its checksum is part of its name, so a single file tells whether it is whole. Processes that compile the same
        program at once put the same bytes in the same place, or others beside them: none has to wait for another, and
        none removes what another may be about to load.
        """
        kept = self.folder / f"{_name_program(key, made)}.so"
        try:
            with write_whole(kept) as temporary:
                shutil.copyfile(made, temporary)
        except (OSError, UserError) as error:
            log.warning("a compiled program is not kept for the next time: %s", error)
            return made
        return kept

    def _name_solve(self, iteration: Iteration) -> str:
        problem = iteration.problem
        like = problem.targets
        bounds = tuple((axis.lower, axis.upper) for axis in problem.box.axes)
        kinds = (problem.conditions.shape[1], str(like.dtype))
        return _hash(self.about, self.optimise, repr(iteration.solver), bounds, repr(problem.distance), kinds)


@functools.cache
def _hash(*known: Any) -> str:
    """Hash what is known of a program, its surroundings included."""
    surroundings = [_hash_code(), torch.__version__, torch.backends.cpu.get_cpu_capability(), os.environ.get("CXX")]
    return hashlib.sha256(repr([*surroundings, *known]).encode()).hexdigest()[:24]


class _Program:
    """A compiled solve. Threads share the rows; no row's bits depend on which others it travels with, as long as
    none of them asks for the sine of an astronomical angle: that takes all its neighbours the long way round."""

    def __init__(self, solve: Callable[..., None], count: Any) -> None:
        self._solve = solve
        self._count = count

    def __call__(self, front: Front, max_steps: int, kept: int) -> Finish:
        unit = front.unit
        rows, controls = unit.shape
        columns = torch.cat([part.reshape(rows, -1).T.to(unit.dtype) for part in front.tensors()])
        steps, status = unit.new_empty(2, rows)
        path = unit.new_empty(max_steps + 1, kept, controls + front.residual.shape[1])

        def solve(first: int, last: int) -> None:
            self._solve(columns, rows, first, last, max_steps, steps, status, path, kept)

        threads = torch.get_num_threads()
        bounds = [rows * part // threads for part in range(threads + 1)]
        if threads == 1:
            solve(*bounds)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(solve, bounds[:-1], bounds[1:]))
        if self._count is not None:
            self._count(rows + int(steps.sum(dtype=torch.float64)), gradients=True)
        # A row that has stopped stays where it was.
        then = torch.arange(int(steps.max()) + 1)[:, None].minimum(steps[:kept].long())
        units, residuals = path[then, torch.arange(kept)].tensor_split([controls], dim=-1)
        before_best = sum(part[0].numel() for part in front.tensors()[:5])
        best, (_, miss, reached) = columns[before_best : before_best + controls + 3].tensor_split([controls])
        return Finish(
            best=best.T,
            miss=miss,
            reached=reached.to(front.reached.dtype),
            steps=steps.to(torch.int32),
            status=status.to(torch.int8),
            path=units,
            misses=compute_miss(residuals),
        )


class _Traced(nn.Module):
    """A step of one row with its tensors apart, as an exported program takes them."""

    def __init__(self, iteration: Iteration) -> None:
        super().__init__()
        self._iteration = iteration

    def forward(self, step: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        front, goes_on, status = self._iteration(step, Front.of(tensors))
        return (*front.tensors(), goes_on, status)


def _compile(iteration: Iteration, path: Path, optimise: bool) -> None:
    """Trace a step of one row, write it out and compile the solve to `path`."""
    row = _make_row(iteration)
    try:
        # What fails to be traced is printed to the error stream, all of it.
        with torch.no_grad(), _silence_torch(), contextlib.redirect_stderr(io.StringIO()):
            step = write_step(_Traced(iteration), [torch.tensor(1.0, dtype=torch.float64), *row.tensors()])
    except NotImplementedError as error:
        raise NotCompilable(str(error)) from error
    except UserError:
        raise
    except Exception as error:  # whatever torch's tracing raises, the eager step still works
        reason = str(error).strip().partition("\n")[0]
        raise NotCompilable(f"it cannot be traced: {type(error).__name__}: {reason}") from error
    columns = [part[0].numel() for part in row.tensors()]
    numbers = {
        "COLUMNS": sum(columns),
        "FIRST_PLACE": sum(columns[:2]),  # after targets and conditions: the controls and the residual
        "PLACE": sum(columns[2:4]),
    }
    constants = "".join(f"constexpr int {name} = {number};\n" for name, number in numbers.items())
    build_library(_SOLVE, constants + step, row.unit.dtype, path, optimise)


def build_library(frame: Path, step: str, dtype: torch.dtype, path: Path, optimise: bool = True) -> None:
    """Compile a C++ file that includes cpp.h, for this processor, into the library `path`.

    Args:
        step: what it finds as STEP, see `cpp.write_step`.
        optimise: see `Compiler`.

    Raises:
        NotCompilable: there is no compiler, or it fails.
    """
    named = os.environ.get("CXX"), "g++", "clang++"
    compiler = next(filter(None, map(shutil.which, filter(None, named))), None)
    if compiler is None:
        raise NotCompilable("there is no C++ compiler: install g++ or name one in CXX")
    found = torch.backends.cpu.get_cpu_capability()
    capability = found if found in _INSTRUCTIONS else "DEFAULT"
    level = "-O0" if not optimise else "-O2" if step.count("\n") > _LONG else "-O3"
    torch_folder = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "step.h"
        source.write_text(step, encoding="utf-8")
        done = subprocess.run(
            [
                *[compiler, "-std=c++20", "-shared", "-fPIC", level],
                *[*_ARITHMETIC, *_INSTRUCTIONS.get(capability, [])],
                *[f"-DCPU_CAPABILITY_{capability}", f"-DCPU_CAPABILITY={capability}"],
                *[f"-DSCALAR={_C_NAMES[dtype]}", f'-DSTEP="{source}"'],
                *[f"-I{_FOLDER}", f"-I{torch_folder / 'include'}", str(frame)],
                *[f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10", "-o", str(path)],
            ],
            capture_output=True,
            text=True,
            check=False,
            # In English, because errors are looked for below.
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {"LC_ALL": "C"},
        )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if "error" in line] or [f"exit status {done.returncode}"]
        raise NotCompilable(f"{Path(compiler).name} fails: {said[0].strip()}")


def _make_row(iteration: Iteration) -> Front:
    problem = iteration.problem
    unit = problem.targets.new_full((1, len(problem.box)), 0.5)
    front = iteration.begin(problem.targets[:1], problem.conditions[:1], unit)
    return Front.of([part.clone() for part in front.tensors()])


@functools.cache
def _hash_code() -> str:
    """Hash our own source."""
    digest = hashlib.sha256()
    for source in sorted(file for kind in ("*.py", "*.cpp", "*.h") for file in _PACKAGE.rglob(kind)):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _name_program(key: str, path: Path) -> str:
    """Return what the program at `path` must be called, if it was compiled for this key."""
    return f"{key}-{sha256(path)[:24]}"


@functools.cache
def _load(path: Path) -> Callable[..., None]:
    """Load a program; tensors go to it as the addresses of their first numbers.

    Raises:
        OSError: it cannot be loaded.
    """
    function = ctypes.CDLL(str(path)).solve
    function.restype = None

    def solve(*arguments: Tensor | int) -> None:
        function(
            *(ctypes.c_void_p(one.data_ptr()) if isinstance(one, Tensor) else ctypes.c_int64(one) for one in arguments)
        )

    return solve


@contextlib.contextmanager
def _silence_torch() -> Iterator[None]:
    """Hold back what torch's modules log of each other, and their advice to programmers."""
    loggers = [logging.getLogger(name) for name in ("torch._inductor", "torch.export", "torch._export", "torch.fx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Tracing calls what torch itself has deprecated; nobody here can mend it.
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
