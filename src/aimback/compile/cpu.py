"""A written step as a program of this processor, 16 or more rows side by side in each thread."""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from aimback.solve.program import Buffers, Program
from aimback.solve.step import NotCompilable

FOLDER = Path(__file__).parent
C_NAMES = {torch.float64: "double", torch.float32: "float"}
# What torch's own vectors are made of, by what torch finds this processor to be capable of.
_INSTRUCTIONS = {
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"],
    "AVX2": ["-mavx2", "-mfma", "-mf16c"],
}
# A product that is added is one operation, rounded once; nobody looks at errno or floating-point traps.
_ARITHMETIC = ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
# All that a compiler gets of the environment: CXX may choose it, and nothing chooses its flags or what it includes.
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
_SHARE = 64  # rows that are worth a thread
_ARGUMENTS = [ctypes.c_void_p] * len(fields(Buffers)) + [ctypes.c_int64] * 5
_LONG = 10_000  # lines: at -O3 GCC takes minutes over more of them, or gives up


@dataclass(frozen=True)
class Cpu:
    """This machine's processor.

    Args:
        optimise: whether the C++ compiler optimises. Without, it takes a tenth of the time and its program
            runs slower: for tests, which compile much and compute little.
    """

    optimise: bool = True
    suffix = ".so"

    def describe(self) -> tuple[Any, ...]:
        """Return all that a program depends on beside its text."""
        return "cpu", self.optimise, torch.backends.cpu.get_cpu_capability(), os.environ.get("CXX")

    def build(self, step: str, dtype: torch.dtype, path: Path) -> None:
        """Compile a solve whose step is written down.

        Raises:
            NotCompilable: there is no compiler, or it fails.
        """
        build_library(FOLDER / "lanes.cpp", step, dtype, path, self.optimise)

    def load(self, path: Path) -> Program:
        """Load a program.

        Raises:
            OSError: it cannot be loaded.
        """
        return functools.partial(_bind, _load(path))


def _bind(solve: Callable[..., None], buffers: Buffers) -> Callable[[], None]:
    """Have threads share the rows; no row's bits depend on which others it travels with, as long as none of them
    asks for the sine of an astronomical angle: that takes all its neighbours the long way round."""
    threads = max(1, min(torch.get_num_threads(), len(buffers.steps) // _SHARE))
    # In C's types already: a small solve would notice their conversion.
    arguments = [kind(value) for kind, value in zip(_ARGUMENTS, buffers.list_arguments(), strict=True)]
    share_rows = functools.partial(solve, *arguments)

    def run() -> None:
        buffers.tally.zero_()
        if threads == 1:
            share_rows()
            return
        with ThreadPoolExecutor(threads) as pool:
            for share in [pool.submit(share_rows) for _ in range(threads)]:
                share.result()

    return run


def build_library(frame: Path, step: str, dtype: torch.dtype, path: Path, optimise: bool = True) -> None:
    """Compile a C++ file that includes lanes.h or number.h, for this processor, into the library `path`.

    Args:
        step: what it finds as STEP, see `writer.write_step`.
        optimise: see `Cpu`.

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
                *[f"-DSCALAR={C_NAMES[dtype]}", f'-DSTEP="{source}"'],
                *[f"-I{FOLDER}", f"-I{torch_folder / 'include'}", "-x", "c++", str(frame)],
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


def _load(path: Path) -> Callable[..., None]:
    """Load a program, which takes what `Buffers.list_arguments` lists.

    Raises:
        OSError: it cannot be loaded.
    """
    function = ctypes.CDLL(str(path)).solve
    function.restype = None
    function.argtypes = _ARGUMENTS
    return function
