"""Which device computes, at which precision, with how many threads."""

import math
import platform
import resource
import sys
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field

from aimback.core.errors import UserError
from aimback.core.section import Section

# On a CPU compiling takes one to two seconds and saves 10 to 40 us a start on cannon_drag (benchmarks/RESULTS.md).
_STARTS_WORTH_COMPILING = 100_000
# A process takes seconds to start CUDA, and on an H100 a step of interpreted operations milliseconds however few rows
# it has: a default run, of less work at a time than this, took 1.6 times as long there as on the CPU beside it.
_OPERATIONS_WORTH_A_GPU = 3e8


def _name_truth(value: object) -> object:
    """YAML reads a bare on or off as true or false."""
    return ("off", "on")[value] if isinstance(value, bool) else value


class Hardware(Section):
    """What to compute on.

    Attributes:
        accelerator: "gpu" (CUDA), "cpu", or "auto": CUDA where there is one, for work that is large enough for it.
        dtype: precision of simulations and of solving.
        threads: CPU threads of one operation.
        compile: whether solves are compiled: "on", "off", or "auto": on a GPU, and where so many starts are on
            the CPU that it pays even the first time.
    """

    accelerator: Literal["auto", "cpu", "gpu"]
    dtype: Literal["float32", "float64"]
    threads: Annotated[int, Field(ge=1, le=1_024)]
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_name_truth)]

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.float64 if self.dtype == "float64" else torch.float32

    def compiles(self, starts: int, device: torch.device) -> bool:
        """Whether to compile for so many starts. By their number and the device, not by what a cache happens to hold:
        the last bits of the answers depend on it."""
        if self.compile == "auto":
            # A kernel takes a second to compile.
            return device.type == "cuda" or starts >= _STARTS_WORTH_COMPILING
        return self.compile == "on"

    def device(self, operations: float = math.inf) -> torch.device:
        """The device for a piece of work.

        Args:
            operations: that one pass over all its rows takes, about: "auto" leaves little work to the CPU.

        Raises:
            UserError: a GPU was asked for and there is none.
        """
        too_little = self.accelerator == "auto" and operations < _OPERATIONS_WORTH_A_GPU
        if self.accelerator == "cpu" or too_little:
            return torch.device("cpu")
        if torch.cuda.is_available():
            return torch.device("cuda")
        if self.accelerator == "gpu":
            raise UserError(
                "hardware.accelerator: gpu was asked for, PyTorch finds none; available: cpu (hardware=cpu)"
            )
        return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """What a figure was measured on, as people call it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()}"


def peak_memory(device: torch.device) -> int:
    """The most memory that was in use so far, in bytes: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Where there is /proc: getrusage's figure is handed on from the process that started this one.
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="utf-8").splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    # In kilobytes, except on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
