"""A whole solve as one compiled program, kept between processes.

Run by the interpreter, a step of small tensors is thousands of operations of which each costs
microseconds to start and passes over memory of its own. Here torch traces the step of one row,
`writer.py` writes it out, and a backend, `cpu.py` or `cuda.py`, takes rows through it, each from its
start to its end. The arithmetic is the same, the last bits are not: a compiler contracts.
"""

import contextlib
import functools
import hashlib
import logging
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from aimback.compile.cpu import Cpu
from aimback.compile.cuda import find_gpu
from aimback.compile.writer import write_number, write_step
from aimback.core.errors import UserError
from aimback.core.files import sha256, write_whole
from aimback.core.ledger import Counted
from aimback.solve.program import Program
from aimback.solve.step import Front, Iteration, NotCompilable

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parent.parent


class Backend(Protocol):
    """What programs are compiled for: `Cpu`, `Cuda`."""

    @property
    def suffix(self) -> str: ...

    def describe(self) -> tuple[Any, ...]: ...

    def build(self, step: str, dtype: torch.dtype, path: Path) -> None: ...

    def load(self, path: Path) -> Program: ...


@dataclass(frozen=True)
class Compiler:
    """Compiles solves, or loads what an earlier process has compiled.

    A program depends on the code, the forward map, the solver, the box and the distance of the problem,
    the dtype, torch, the backend and its compiler: on each of them hangs its file's name.

    Args:
        folder: where programs are kept. They are machine code, and are run: nobody else may write there.
        about: what the forward map computes, in words that differ where it does (see `identity`).
        backend: None: the processor, or the GPU where the problem lies on one.
    """

    folder: Path
    about: str
    backend: Backend | None = None
    _programs: dict[tuple[str, torch.device], Program] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __call__(self, iteration: Iteration) -> Program:
        """Compile the steps, which takes some seconds the first time, or load them in milliseconds.

        Raises:
            NotCompilable: no compiler for the device, operations that cannot be traced or translated, or a
                folder whose files may not be executed.
        """
        if isinstance(iteration.forward, Counted):
            iteration = replace(iteration, forward=iteration.forward.forward)
        device = iteration.problem.targets.device
        backend = self.backend or find_backend(device)
        key = self._name_solve(iteration, backend)
        if (key, device) not in self._programs:
            self._programs[key, device] = self._load_or_make(iteration, backend, key)
        return self._programs[key, device]

    def _load_or_make(self, iteration: Iteration, backend: Backend, key: str) -> Program:
        """Load what an earlier process has kept, or compile and keep it."""
        for kept in self.folder.glob(f"{key}-*{backend.suffix}"):
            with contextlib.suppress(OSError):  # unreadable, or on a disk whose files may not be executed
                if kept.stem == _name_program(key, kept):  # damaged machine code is not to be run
                    return backend.load(kept)
        try:
            with tempfile.TemporaryDirectory() as place:
                made = Path(place) / f"program{backend.suffix}"
                backend.build(write_solve(iteration), iteration.problem.targets.dtype, made)
                return backend.load(self._keep(made, key))
        except OSError as error:
            raise NotCompilable(f"its program cannot be made or loaded: {error}") from error

    def _keep(self, made: Path, key: str) -> Path:
        """Put a program where later processes find it; where that fails, it serves this process from where it is.

        Its checksum is part of its name, so a single file tells whether it is whole. Processes that compile the same
        program at once put the same bytes in the same place, or others beside them: none has to wait for another, and
        none removes what another may be about to load.
        """
        kept = self.folder / f"{_name_program(key, made)}{made.suffix}"
        try:
            with write_whole(kept) as temporary:
                shutil.copyfile(made, temporary)
        except (OSError, UserError) as error:
            log.warning("a compiled program is not kept for the next time: %s", error)
            return made
        return kept

    def _name_solve(self, iteration: Iteration, backend: Backend) -> str:
        problem = iteration.problem
        like = problem.targets
        bounds = tuple((axis.lower, axis.upper) for axis in problem.box.axes)
        kinds = (problem.conditions.shape[1], str(like.dtype))
        return _hash(self.about, backend.describe(), repr(iteration.solver), bounds, repr(problem.distance), kinds)


@functools.cache
def _hash(*known: Any) -> str:
    """Hash what is known of a program, our code and torch included."""
    return hashlib.sha256(repr([_hash_code(), torch.__version__, *known]).encode()).hexdigest()[:24]


def find_backend(device: torch.device) -> Backend:
    """The machine on which such tensors lie.

    Raises:
        NotCompilable: nothing is compiled for it.
    """
    if device.type == "cuda":
        return find_gpu(device)
    if device.type == "cpu":
        return Cpu()
    raise NotCompilable(f"nothing is compiled for {device.type}")


def write_solve(iteration: Iteration) -> str:
    """Trace a step of one row and write it out, with how many columns it takes and where in them things are.

    Raises:
        NotCompilable: an operation that cannot be traced or translated.
    """
    row = _make_row(iteration)
    # What code of others finds out or keeps when it is first called has to be of numbers; no ledger counts this look.
    iteration(0, row)

    def take_step(step: Tensor, *tensors: Tensor) -> list[Tensor]:
        front, goes_on, status = iteration(step, Front.of(tensors))
        return [*front.tensors(), goes_on, status]

    example = [torch.tensor(1.0, dtype=torch.float64, device=row.unit.device), *row.tensors()]
    try:
        step = write_step(take_step, example)
    except NotImplementedError as error:
        raise NotCompilable(str(error)) from error
    except Exception as error:  # whatever the tracing of code of others raises, it has just worked without
        reason = str(error).strip().partition("\n")[0]
        raise NotCompilable(f"it cannot be traced: {type(error).__name__}: {reason}") from error
    columns = [part[0].numel() for part in row.tensors()]
    outcomes, conditions, controls = columns[:3]
    best = sum(columns[:5])  # after where the row is
    numbers = {
        "OUTCOMES": outcomes,
        "CONDITIONS": conditions,
        "CONTROLS": controls,
        "FIRST_PLACE": outcomes + conditions,
        "BEST": best,
        "MISS": best + controls + 1,  # the merit is between them
        "REACHED": best + controls + 2,
        "COLUMNS": sum(columns),
    }
    constants = "".join(f"constexpr int {name} = {number};\n" for name, number in numbers.items())
    before = ", ".join(write_number(number) for part in row.tensors() for number in part.flatten().tolist())
    return f"{constants}TABLE T BEFORE[COLUMNS] = {{{before}}};\n{step}"


def _make_row(iteration: Iteration) -> Front:
    """A row before its first look, but for what is asked of it and where it starts."""
    problem = iteration.problem
    unit = problem.targets.new_full((1, len(problem.box)), 0.5)
    targets, conditions = (part.new_zeros(1, part.shape[1]) for part in (problem.targets, problem.conditions))
    front = iteration.begin(targets, conditions, unit)
    return Front.of([part.clone() for part in front.tensors()])


@functools.cache
def _hash_code() -> str:
    """Hash our own source."""
    digest = hashlib.sha256()
    for source in sorted(file for kind in ("*.py", "*.cpp", "*.cu", "*.h") for file in _PACKAGE.rglob(kind)):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _name_program(key: str, path: Path) -> str:
    """Return what the program at `path` must be called, if it was compiled for this key."""
    return f"{key}-{sha256(path)[:24]}"
