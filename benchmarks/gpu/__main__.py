"""`python -m benchmarks.gpu [PART ...] [--out FOLDER] [--device cpu]`: measure on a GPU, a part after the other.

Each part writes its table to FOLDER/PART.md as soon as it is measured, so that whatever ends a run takes one part along
at most; RESULTS.md there is made of those that lie in the folder. `--device cpu` tries the script where there is no
GPU, with less work, and its figures are of no use.
"""

import argparse
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

from aimback.core.errors import UserError
from aimback.core.hardware import device_name

# By module, what it measures: a function of a device that returns Markdown.
PARTS = {
    "marked": "The tests marked gpu",
    "cannon": "The drag cannon: targets a second",
    "routes": "Routes end to end: compiled and interpreted",
    "training": "Training through the simulator: compiled and interpreted",
    "franka": "Franka's inverse kinematics",
    "lorenz": "An ensemble of Lorenz systems",
    "pipeline": "The default run, hardware=cpu, auto and gpu",
    "paper": "The Neural-Adjoint benchmark as published, one seed",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("outputs/by_hand/gpu"))
    parser.add_argument("--device", default="cuda")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    device = torch.device(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU; --device cpu tries the script without one")
    asked.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    failed = [name for name in asked.parts or PARTS if not _run(name, device, asked.out)]
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


def _run(name: str, device: torch.device, folder: Path) -> bool:
    """Measure a part; what it fails with is its result, and the next one has its turn."""
    measure: Callable[[torch.device], str] = import_module(f"benchmarks.gpu.{name}").measure
    try:
        told, succeeded = measure(device), True
    except (AssertionError, ImportError, OSError, RuntimeError, UserError, ValueError):
        told, succeeded = f"```\n{traceback.format_exc()}```", False
    (folder / f"{name}.md").write_text(f"## {PARTS[name]}\n\n{told}\n", encoding="utf-8")
    parts = [folder / f"{part}.md" for part in PARTS]
    texts = [part.read_text(encoding="utf-8") for part in parts if part.exists()]
    (folder / "RESULTS.md").write_text("\n".join([_describe(device), *texts]), encoding="utf-8")
    print(f"{PARTS[name]}\n\n{told}\n", flush=True)
    return succeeded


def _describe(device: torch.device) -> str:
    driver = "none"
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    versions = f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"
    return f"# Measured on {device_name(device)}\n\nDriver {driver}, {versions}; medians, float64 unless said.\n"


if __name__ == "__main__":
    main()
