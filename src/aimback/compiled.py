"""The step of a solver as one compiled program, kept between processes.

Run by the interpreter, a step of small tensors is thousands of operations of which each costs
microseconds to start and passes over memory of its own. Compiled ahead of time by AOTInductor it is
a few loops. The arithmetic is the same, the last bits are not: a compiler contracts and reorders.
"""

import contextlib
import functools
import hashlib
import io
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import aimback
from aimback.errors import UserError
from aimback.files import written_whole
from aimback.ledger import Counted
from aimback.problem import InverseProblem
from aimback.solve.advance import Advance, Front, NotCompilable, Step

# A vector register holds 8 or 16 numbers. With whole registers only, all rows take the same path,
# so a row's bits do not depend on its place in the batch.
_LANES = 16
TILE = 4096  # rows a call: they share its price, and what a step remembers of them stays in the cache
# Columns that are stacked stay in the loop that computes them, and a product that is added is one operation.
CONFIGS = {"force_pointwise_cat": True, "cpp.enable_floating_point_contract_flag": "fast"}


@dataclass(frozen=True)
class Compiler:
    """Compiles steps, or loads what an earlier process has compiled.

    A program depends on the code, the forward map, the solver, the box and the scales of the problem,
    the dtype, torch, the processor and the number of threads: on each of them hangs its file's name.

    Args:
        folder: where programs are kept. They are machine code, and are run: nobody else may write there.
        about: what the forward map computes, in words that differ where it does (see `identity`).
    """

    folder: Path
    about: str

    def __call__(self, advance: Advance) -> Step:
        """The same step, compiled: about a minute the first time, milliseconds after.

        Raises:
            NotCompilable: not on the CPU, no C++ compiler, or operations that cannot be traced.
        """
        forward = advance.forward
        count = None
        if isinstance(forward, Counted):
            advance, count = replace(advance, forward=forward.forward), forward.count
        path = self.folder / f"{self._key(advance)}.pt2"
        if not path.is_file():
            _compile(advance, path)
        return _Program(path, count)

    def _key(self, advance: Advance) -> str:
        problem = advance.problem
        like = problem.targets
        known = [
            self.about,
            repr(advance.solver),
            repr([(axis.lower, axis.upper) for axis in problem.box.axes]),
            [problem.tolerance, problem.scale, like.shape[1], problem.conditions.shape[1], str(like.dtype)],
            [torch.__version__, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), TILE],
        ]
        return hashlib.sha256(json.dumps([_code(), *known]).encode()).hexdigest()[:24]


class _Program:
    """A compiled step; applied to tiles of rows, the last one filled up with copies of its last row."""

    def __init__(self, path: Path, count: Any) -> None:
        self._run = _loaded(path)
        self._count = count

    def __call__(self, step: int, front: Front) -> tuple[Front, Tensor, Tensor]:
        tensors = [_rows_last(part) for part in front.tensors()]
        rows = len(front.unit)
        number = torch.tensor(step, dtype=torch.float64)
        tiles = [self._run([number, *tile]) for tile in _tiles(tensors, rows)]
        if self._count is not None:
            self._count(rows, gradients=True)
        whole = tiles[0] if len(tiles) == 1 else [torch.cat(parts, dim=-1) for parts in zip(*tiles, strict=True)]
        *after, goes_on, why = [_rows_first(part[..., :rows]) for part in whole]
        return Front.of(after), goes_on, why


def _tiles(tensors: list[Tensor], rows: int) -> Iterator[list[Tensor]]:
    """Rows in whole registers; tensors that lie in memory as the program left them are not copied."""
    for first in range(0, rows, TILE):
        last = min(first + TILE, rows)
        short = -last % _LANES
        if short:
            filled = torch.arange(first, last + short).clamp(max=last - 1)
            yield [part.index_select(-1, filled) for part in tensors]
        else:
            yield [part[..., first:last].contiguous() for part in tensors]


class _Traced(nn.Module):
    """A step with its rows as plain tensors, as an exported program takes them.

    Rows come last there: the loops run along them, through memory in order.
    """

    def __init__(self, advance: Advance) -> None:
        super().__init__()
        self._advance = advance

    def forward(self, step: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        front, goes_on, why = self._advance(step, Front.of([_rows_first(part) for part in tensors]))
        return tuple(_rows_last(part).contiguous() for part in (*front.tensors(), goes_on, why))


def _rows_last(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 1 else tensor.movedim(0, -1)


def _rows_first(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 1 else tensor.movedim(-1, 0)


def _compile(advance: Advance, path: Path) -> None:
    """Trace a step of a symbolic number of rows, compile it, and write the program to `path`."""
    problem = advance.problem
    if problem.targets.device.type != "cpu":
        raise NotCompilable("steps are compiled for the CPU only")
    if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("clang++") is None:
        raise NotCompilable("there is no C++ compiler: install g++ or name one in CXX")
    front = _example(advance, problem)
    rows = _LANES * torch.export.Dim("groups", min=1, max=TILE // _LANES)
    tensors = [_rows_last(part).contiguous() for part in front.tensors()]
    try:
        # What fails to be traced is printed to the error stream, all of it.
        with torch.no_grad(), _quiet(), contextlib.redirect_stderr(io.StringIO()):
            program = torch.export.export(
                _Traced(advance),
                (torch.tensor(1.0, dtype=torch.float64), *tensors),
                dynamic_shapes=(None, tuple({part.ndim - 1: rows} for part in tensors)),
                strict=False,
            )
            with written_whole(path) as temporary:
                torch._inductor.aoti_compile_and_package(program, package_path=str(temporary), inductor_configs=CONFIGS)
    except NotImplementedError as error:
        raise NotCompilable(str(error)) from error
    except UserError:
        raise
    except Exception as error:  # whatever torch's tracing and compiling raise, the eager step still works
        reason = str(error).strip().partition("\n")[0]
        raise NotCompilable(f"{type(error).__name__}: {reason}") from error


def _example(advance: Advance, problem: InverseProblem) -> Front:
    some = torch.arange(2 * _LANES) % len(problem.targets)
    unit = problem.targets.new_full((len(some), len(problem.box)), 0.5)
    front = advance.begin(problem.targets[some], problem.conditions[some], unit)
    return Front.of([part.clone() for part in front.tensors()])


@functools.cache
def _code() -> str:
    """A hash of our own source."""
    digest = hashlib.sha256()
    for source in sorted(Path(aimback.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


@functools.cache
def _loaded(path: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    with _quiet():
        # Its loader is called directly: the model around it parses the names of what it is given anew each time.
        return torch._inductor.aoti_load_package(str(path)).loader.boxed_run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What torch's modules say of each other, and their advice to programmers, held back."""
    loggers = [logging.getLogger(name) for name in ("torch._inductor", "torch.export", "torch._export", "torch.fx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Tracing and compiling call what torch itself has deprecated; nobody here can mend it.
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
