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
from collections.abc import Iterator
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
_TILE = 2048  # rows a call: what a step remembers of them stays in the cache


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
            [torch.__version__, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), _TILE],
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
        tiles = []
        for first in range(0, rows, _TILE):
            tile = [part[..., first : first + _TILE] for part in tensors]
            short = -tile[0].shape[-1] % _LANES
            if short:
                tile = [torch.cat([part, part[..., -1:].expand(*part.shape[:-1], short)], dim=-1) for part in tile]
            tiles.append(self._run(number, *[part.contiguous() for part in tile]))
        if self._count is not None:
            self._count(rows, gradients=True)
        *after, goes_on, why = [_rows_first(torch.cat(parts, dim=-1)[..., :rows]) for parts in zip(*tiles, strict=True)]
        return Front.of(after), goes_on, why


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
    return tensor.movedim(0, -1)


def _rows_first(tensor: Tensor) -> Tensor:
    return tensor.movedim(-1, 0)


def _compile(advance: Advance, path: Path) -> None:
    """Trace a step of a symbolic number of rows, compile it, and write the program to `path`."""
    problem = advance.problem
    if problem.targets.device.type != "cpu":
        raise NotCompilable("steps are compiled for the CPU only")
    if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("clang++") is None:
        raise NotCompilable("there is no C++ compiler: install g++ or name one in CXX")
    front = _example(advance, problem)
    rows = _LANES * torch.export.Dim("groups", min=1, max=_TILE // _LANES)
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
                torch._inductor.aoti_compile_and_package(program, package_path=str(temporary))
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
def _loaded(path: Path) -> Any:
    with _quiet():
        return torch._inductor.aoti_load_package(str(path))


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
