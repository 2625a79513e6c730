"""What the stages share: one task at a time, random streams, meters."""

import contextlib
import functools
import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from aimback.files import write_text
from aimback.hardware import device_name
from aimback.tasks.base import Task
from pipelines.entry import entry
from pipelines.settings import Settings


@dataclass(frozen=True)
class Job:
    """One task's turn in a stage.

    Attributes:
        name: the task's name.
        settings: the checked configuration.
        stage: the stage's name.
        root: where this run writes: `outputs` in the pipeline, a folder of its own by hand.
    """

    name: str
    settings: Settings
    stage: str
    root: Path

    @property
    def task(self) -> Task:
        return self.settings.tasks[self.name]

    @property
    def outputs(self) -> Path:
        """The folder for what this run makes of the task."""
        return self.root / self.name

    def made(self, file: str) -> Path:
        """A file that an earlier stage made of the task: in the first of `inputs` that has it."""
        places = [folder / self.name / file for folder in self.settings.inputs]
        return next((place for place in places if place.exists()), places[0])

    def generator(self, purpose: str) -> torch.Generator:
        """A stream of random numbers for each purpose: none is moved by what another one draws."""
        return torch.Generator().manual_seed(self.seed(purpose))

    def seed(self, purpose: str) -> int:
        text = f"{self.settings.seed} {self.name} {purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    @contextlib.contextmanager
    def metered(self) -> Iterator[None]:
        """Note what the block takes: the work itself, without what is loaded and logged around it.

        Kept apart from the stage's outputs: clocks differ from run to run, those must not.
        """
        device = self.settings.hardware.device()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        meters = {
            "seconds": time.perf_counter() - began,
            "peak_memory_bytes": _peak_memory(device),
            "device": device_name(device),
            "threads": torch.get_num_threads(),
        }
        write_text(self.root / "meters" / self.name / f"{self.stage}.json", json.dumps(meters, indent=1) + "\n")


def stage(work: Callable[[Job], None]) -> Callable[[], None]:
    """Turn `work` on one task into a command that does it for every task that is configured."""
    name = Path(work.__code__.co_filename).stem

    @entry
    @functools.wraps(work)
    def main(cfg: DictConfig) -> None:
        settings = Settings(cfg).check()
        root = Path(HydraConfig.get().runtime.output_dir)
        torch.set_num_threads(settings.hardware.threads)
        for task in settings.tasks:
            work(Job(task, settings, name, root))

    return main


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Of the process so far; in kilobytes, except on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
