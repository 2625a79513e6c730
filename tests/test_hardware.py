"""What is measured of a machine."""

import subprocess
import sys

import numpy as np

_CHILD = "import torch; from aimback.core.hardware import peak_memory; print(peak_memory(torch.device('cpu')))"


def test_the_peak_is_that_of_this_process_not_of_the_one_that_started_it() -> None:
    ballast = np.ones(100_000_000)  # 0.8 GB, resident
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True)
    assert ballast[-1] == 1
    assert 50e6 < int(done.stdout) < 0.7e9
