"""What is measured of a machine."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from aimback.settings.device import choose_device, find_devices
from aimback.workflow.defaults import read_defaults

_CHILD = "import torch; from aimback.core.hardware import peak_memory; print(peak_memory(torch.device('cpu')))"


def test_the_peak_is_that_of_this_process_not_of_the_one_that_started_it() -> None:
    ballast = np.ones(100_000_000)  # 0.8 GB, resident
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True)
    assert ballast[-1] == 1
    assert 50e6 < int(done.stdout) < 0.7e9


CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("asked", "stage", "device"),
    [
        ((), "train", CPU),
        (("training.batch_size=16000", "surrogate.hidden_width=500"), "train", GPU),
        (("training.batch_size=16000", "surrogate.hidden_width=500"), "optimise", CPU),
        (("training.batch_size=16000", "surrogate.hidden_width=500"), "invert", GPU),
        (("data.targets=1000000",), "optimise", GPU),
        (("data.targets=1000000",), "train", CPU),
        (("data.examples=1000000",), "generate", GPU),
        (("hardware.accelerator=cpu", "data.targets=1000000"), "optimise", CPU),
        (("hardware.accelerator=gpu",), "train", GPU),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else str(part),
)
def test_auto_takes_a_gpu_for_what_gains_from_it(
    asked: tuple[str, ...], stage: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = read_defaults("task=cannon_drag", "hardware=auto", *asked)
    routes = {"train": "surrogate", "invert": "surrogate", "optimise": "direct"}
    assert choose_device(settings, stage, "cannon_drag", routes.get(stage, "")) == device
    assert (GPU in find_devices(settings)) == (bool(asked) and "hardware.accelerator=cpu" not in asked)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if "hardware.accelerator=gpu" not in asked:
        assert find_devices(settings) == {CPU}


def test_a_file_of_targets_counts_by_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = read_defaults("task=cannon_drag", "hardware=auto")
    for lines, device in ((100, CPU), (300_000, GPU)):
        file = tmp_path / "targets.csv"
        file.write_text("100,0\n" * lines)
        asked = settings.model_copy(update={"targets": file})
        assert choose_device(asked, "optimise", "cannon_drag", "direct") == device
    file.unlink()
    assert choose_device(asked, "optimise", "cannon_drag", "direct") == CPU
