"""The published benchmark as its paper plays it, all starts and epochs, for one seed."""

import torch

from benchmarks.gpu.pipeline import run_anew
from benchmarks.tables import number, table


def measure(device: torch.device) -> str:
    profile = [] if device.type == "cuda" else ["profile=benchmark", "task=[published/ballistics]", "routes=[direct]"]
    (seconds,) = run_anew(["preset=neural_adjoint", *profile, f"hardware={'gpu' if not profile else 'cpu'}"])
    return table(["", "seconds"], [["aimback preset=neural_adjoint, seed 0", number(seconds)]])
