"""What the stages share: one task at a time, random streams, meters."""

import contextlib
import functools
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from aimback.core.errors import UserError
from aimback.core.files import check_writable, sha256, write_text
from aimback.core.hardware import device_name, peak_memory
from aimback.core.randomness import derive_seed, make_generator
from aimback.data.identity import identify
from aimback.runtime.locks import hold_lock
from aimback.runtime.project import ROOT, STAGES
from aimback.settings.device import choose_device
from aimback.settings.limits import check_limits
from aimback.settings.memory import check_memory
from aimback.settings.tree import Settings, read_settings
from aimback.tasks.base import Task
from aimback.workflow.entry import entry
from aimback.workflow.progress import WATCHED
from aimback.workflow.turns import announce, list_turns

_SECONDS_FOR_AN_ORPHAN = 10.0
# The stages with a turn for each of their routes.
_OF_ROUTES = ("train", "invert", "optimise", "amortise", "refine")


@dataclass(frozen=True)
class Job:
    """The turn of one task, and where a stage works for routes of one route, in a stage.

    Attributes:
        name: the task's name.
        route: the route's name; "" where the stage works for all of them at once.
        settings: the checked configuration.
        stage: the stage's name.
        root: where this run writes: `outputs` in the pipeline, a folder of its own by hand.
        measured: what `meter` has noted, by name of the meter.
        read: the hash that each file had when `find` named it.
    """

    name: str
    route: str
    settings: Settings
    stage: str
    root: Path
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    read: dict[Path, str] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        return self.settings.tasks[self.name]

    @functools.cached_property
    def device(self) -> torch.device:
        return choose_device(self.settings, self.stage, self.name, self.route)

    @property
    def outputs(self) -> Path:
        """The folder for what this run makes of the task."""
        return self.root / self.name

    @property
    def turn(self) -> str:
        """The job's name, which is that of DVC's stage."""
        return f"{self.stage}@{self.name}" + (f"-{self.route}" if self.route else "")

    @property
    def checkpoints(self) -> Path:
        """The folder for what a killed training goes on from; removed when all outputs are written, not before."""
        return self.root / "checkpoints" / self.turn

    def find(self, file: str) -> Path:
        """A file that an earlier stage made of the task: in the first of `inputs` that has it.

        Raises:
            UserError: it is nowhere, which only happens by hand: DVC runs the earlier stage first.
        """
        places = [folder / self.name / file for folder in self.settings.inputs]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            maker = self.settings.find_maker(file)
            raise UserError(
                f"{places[0]}: there is no such file; make it by `python -m {STAGES}.{maker} task={self.name}`, "
                f"give the folder that it writes to as inputs=[FOLDER], or run everything by `aimback task={self.name}`"
            )
        if found.is_file() and found not in self.read:
            self.read[found] = sha256(found)
        return found

    def generator(self, purpose: str) -> torch.Generator:
        """A stream of random numbers for each purpose: none is moved by what another one draws."""
        return make_generator(self.settings.seed, self.name, purpose)

    def seed(self, purpose: str) -> int:
        return derive_seed(self.settings.seed, self.name, purpose)

    @contextlib.contextmanager
    def meter(self, result: str) -> Iterator[None]:
        """Note what the block takes: the work itself, without what is loaded and logged around it.

        Args:
            result: the file, below `outputs`, that the work is about to make.
        """
        device = self.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.measured[self.stage + (f"-{self.route}" if self.route else "")] = {
            "seconds": time.perf_counter() - began,
            "peak_memory_bytes": peak_memory(device),
            "device": device_name(device) + self._explain_device(),
            "threads": torch.get_num_threads(),
            "result": result,
        }

    def _explain_device(self) -> str:
        """Say why it is not the GPU that is there."""
        left = self.settings.hardware.accelerator == "auto" and self.device.type == "cpu" and torch.cuda.is_available()
        return ", too little work for the GPU" if left else ""

    def write_meters(self) -> None:
        """Write what was measured, kept apart from the outputs: clocks differ from run to run, those must not.

        The hash of the result tells whether a meter still speaks of the file that is there: DVC may
        have restored another one from its cache.
        """
        for name, measured in self.measured.items():
            meter = {**measured, "result_sha256": sha256(self.outputs / measured["result"])}
            write_text(self.root / "meters" / self.name / f"{name}.json", json.dumps(meter, indent=1) + "\n")


def stage(work: Callable[[Job], None]) -> Callable[[], None]:
    """Turn `work` on one task into a command that does it for every task that is configured."""
    name = Path(work.__code__.co_filename).stem

    @entry
    @functools.wraps(work)
    def main(cfg: DictConfig) -> None:
        settings = read_settings(cfg)
        check_memory(settings)
        check_limits(settings, settings.tasks)
        root = Path(HydraConfig.get().runtime.output_dir)
        torch.set_num_threads(settings.hardware.threads)
        turns = settings.turns_of(name) if name in _OF_ROUTES else [""]
        # Under a plain `dvc repro`, which names the stage and no more; `aimback` tells it all.
        ordered = list_turns(ROOT, cfg) if "DVC_STAGE" in os.environ and WATCHED not in os.environ else []
        settings.executor.check()
        with contextlib.closing(settings.executor):
            for task, route in itertools.product(settings.tasks, turns):
                job = Job(task, route, settings, name, root)
                if told := announce(job.turn, ordered, root / "meters"):
                    print(told, flush=True)
                with hold_job(job):
                    job.task.spread_runs(settings.executor)
                    job.task.keep_runs(job.checkpoints / "simulations", identify(job.task))
                    work(job)
                    job.write_meters()
                    shutil.rmtree(job.checkpoints, ignore_errors=True)
        if "DVC_STAGE" not in os.environ:  # by hand, so somebody wants to know
            here = Path(HydraConfig.get().runtime.cwd)
            print(f"{name}: written to {root.relative_to(here) if root.is_relative_to(here) else root}")

    return main


@contextlib.contextmanager
def hold_job(job: Job) -> Iterator[None]:
    """No other process does the same job meanwhile; one whose dvc was killed is given time to end.

    Raises:
        UserError: another process does, or the job's folder cannot be written, or what the job has read is another
            file at its end (a `dvc checkout` waits for no stage), so that its result would be recorded as made of that.
    """
    lock = job.root / "locks" / job.turn
    for folder in (lock.parent, job.outputs):
        check_writable(folder)
    try:
        with hold_lock(lock, _SECONDS_FOR_AN_ORPHAN):
            yield
            for file, digest in job.read.items():
                if not file.is_file() or sha256(file) != digest:
                    raise UserError(f"{file}: was changed while {lock.name} was at work on it; run it again")
    except BlockingIOError:
        raise UserError(f"{job.outputs}: another process is running {lock.name}; let it end, then run again") from None
