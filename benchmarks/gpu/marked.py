"""The tests marked gpu, and how they ended."""

import subprocess
import sys

import torch


def measure(device: torch.device) -> str:
    """The last line that pytest prints, and the failures."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    told = "\n".join([*lines, *done.stdout.strip().splitlines()[-1:]])
    if done.returncode not in (0, 5):
        raise AssertionError(told)
    return told
