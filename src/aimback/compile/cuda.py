"""A written step as a kernel of an NVIDIA GPU, a row in each thread.

NVRTC, the compiler that PyTorch's CUDA build brings along, makes machine code of the text; the driver runs it. Both
are C libraries whose functions are documented (docs.nvidia.com/cuda: NVRTC, CUDA Driver API): no toolkit is needed.
"""

import contextlib
import ctypes
import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import torch

from aimback.compile.cpu import C_NAMES, FOLDER
from aimback.solve.program import Buffers, Program
from aimback.solve.step import NotCompilable

FRAME = FOLDER / "threads.cu"
# PyTorch brings the NVRTC of its own CUDA, and a driver may be too old for the machine code of a later one.
PACKAGES = sorted(("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"), reverse=(torch.version.cuda or "").startswith("12."))
_THREADS = 64  # of a block: a small one leaves more registers to choose from
_CONSTANT_BYTES = 48_000  # of the 65 536 that a kernel may declare constant, its arguments among them


@dataclass(frozen=True)
class Cuda:
    """A GPU.

    Args:
        device: it, as torch calls it.
        architecture: what its machine code is called, "sm_90".
        processors: its multiprocessors.
    """

    device: torch.device
    architecture: str
    processors: int
    suffix = ".cubin"

    def describe(self) -> tuple[Any, ...]:
        """Return all that a program depends on beside its text."""
        return "cuda", self.architecture, *read_version()

    def build(self, step: str, dtype: torch.dtype, path: Path) -> None:
        """Compile a solve whose step is written down.

        Raises:
            NotCompilable: there is no NVRTC, or it fails.
        """
        path.write_bytes(compile_kernel(step, dtype, self.architecture)[0])

    def load(self, path: Path) -> Program:
        """Load a program.

        Raises:
            OSError: it cannot be loaded.
        """
        driver, kernel, blocks = _load_driver(), ctypes.c_void_p(), ctypes.c_int()
        with torch.cuda.device(self.device):
            torch.empty(1, device=self.device)  # from here on this thread has torch's context
            module = ctypes.c_void_p()
            _call(driver.cuModuleLoadData, ctypes.byref(module), path.read_bytes())
            _call(driver.cuModuleGetFunction, ctypes.byref(kernel), module, b"solve")
            at_once = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor
            _call(at_once, ctypes.byref(blocks), kernel, ctypes.c_int(_THREADS), ctypes.c_size_t(0))
        return functools.partial(self._bind, kernel, max(1, blocks.value) * self.processors)

    def _bind(self, kernel: ctypes.c_void_p, most_blocks: int, buffers: Buffers) -> Callable[[], None]:
        # No more threads than run at once: they share the rows among themselves.
        blocks = min(most_blocks, math.ceil(len(buffers.steps) / _THREADS))
        values = [ctypes.c_int64(value) for value in buffers.list_arguments()]
        sizes = [ctypes.c_uint(size) for size in (blocks, 1, 1, _THREADS, 1, 1, 0)]

        def run() -> None:
            buffers.tally.zero_()
            arguments = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
            with torch.cuda.device(self.device):
                stream = ctypes.c_void_p(torch.cuda.current_stream(self.device).cuda_stream)
                _call(_load_driver().cuLaunchKernel, kernel, *sizes, stream, arguments, None)

        return run


def find_gpu(device: torch.device) -> Cuda:
    """The GPU that torch calls so.

    Raises:
        NotCompilable: it is none of NVIDIA's, or there is no NVRTC.
    """
    read_version()
    major, minor = torch.cuda.get_device_capability(device)
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return Cuda(device, f"sm_{major}{minor}", processors)


def compile_kernel(step: str, dtype: torch.dtype, architecture: str) -> tuple[bytes, str]:
    """Compile a solve whose step is written down, with or without a GPU.

    Args:
        architecture: for which GPUs, "sm_90".

    Returns:
        Its machine code; and what the assembler says of it: registers, and bytes that do not fit into them.

    Raises:
        NotCompilable: there is no NVRTC, or it fails.
    """
    nvrtc = _load_nvrtc()
    options = [
        *[f"--gpu-architecture={architecture}", "--std=c++17", "--device-as-default-execution-space"],
        *[f"-DSCALAR={C_NAMES[dtype]}", f"-DTABLE={_place_tables(step, dtype)} const"],
        *['-DSTEP="step.h"', f"-I{FOLDER}", "--ptxas-options=-v"],
    ]
    program = ctypes.c_void_p()
    source, name = FRAME.read_bytes(), FRAME.name.encode()
    _ask(nvrtc.nvrtcCreateProgram, ctypes.byref(program), source, name, 1, _strings([step]), _strings(["step.h"]))
    try:
        failed = nvrtc.nvrtcCompileProgram(program, len(options), _strings(options))
        told = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).rstrip(b"\0").decode()
        if failed:
            said = [line for line in told.splitlines() if "error" in line] or [f"status {failed}"]
            raise NotCompilable(f"NVRTC fails: {said[0].strip()}")
        return _read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program), told
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def read_version() -> tuple[int, int]:
    """The version of NVRTC.

    Raises:
        NotCompilable: there is none.
    """
    major, minor = ctypes.c_int(), ctypes.c_int()
    _ask(_load_nvrtc().nvrtcVersion, ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def _place_tables(step: str, dtype: torch.dtype) -> str:
    """Where weights lie: in constant memory, of which all threads read the same number at once, if there is room."""
    shapes = re.findall(r"^TABLE T \w+\[(\d+)\]\[(\d+)\]", step, re.MULTILINE)
    numbers = sum(int(rows) * int(columns) for rows, columns in shapes)
    return "__constant__" if numbers * dtype.itemsize <= _CONSTANT_BYTES else "__device__"


@functools.cache
def _load_nvrtc() -> ctypes.CDLL:
    """NVRTC from where pip has put it, or from where the system looks."""
    found = []
    for package in PACKAGES:
        try:
            # Its builtins first: some releases do not look for them beside themselves.
            of_package = [file for file in files(package) or [] if re.match(r"libnvrtc(-builtins)?\.so", file.name)]
            found.append(sorted(str(file.locate()) for file in of_package))
        except PackageNotFoundError:
            continue
    for libraries in [*found, ["libnvrtc.so"]]:
        with contextlib.suppress(OSError, IndexError):
            return [ctypes.CDLL(library) for library in libraries][-1]
    raise NotCompilable("there is no NVRTC, which PyTorch's CUDA build brings along: pip install nvidia-cuda-nvrtc")


@functools.cache
def _load_driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _ask(function: Callable[..., int], *arguments: Any) -> None:
    """Call a function of NVRTC."""
    if status := function(*arguments):
        raise NotCompilable(f"NVRTC fails with status {status}")


def _call(function: Any, *arguments: Any) -> None:
    """Call a function of the driver.

    Raises:
        OSError: it fails.
    """
    if status := function(*arguments):
        raise OSError(f"{function.__name__} of the CUDA driver fails with status {status}")


def _read(measure: Callable[..., int], read: Callable[..., int], program: ctypes.c_void_p) -> bytes:
    """What NVRTC hands out: its size first."""
    size = ctypes.c_size_t()
    _ask(measure, program, ctypes.byref(size))
    told = ctypes.create_string_buffer(size.value)
    _ask(read, program, told)
    return told.raw


def _strings(texts: list[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(texts))(*(text.encode() for text in texts))
