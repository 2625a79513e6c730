"""SIGKILL at a random moment of a training: does the resumed one end at the same bits?"""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from benchmarks.campaigns.scratch import Scratch

_TRAIN = ("pipelines.train", "task=cannon_drag", "inputs=[outputs]", "hydra.run.dir=outputs/by_hand/killed")
# Checkpoints are two seconds apart: epochs enough for some of them.
_TRAIN += ("training.max_epochs=1500", "surrogate.hidden_width=32")


def training_kills(count: int, folder: Path) -> list[str]:
    """Once each, from the first checkpoint to just before the end."""
    chance = random.Random(count)
    scratch = Scratch(folder)
    scratch.run("dvc", "repro", "generate@cannon_drag")
    made = folder / "outputs" / "by_hand" / "killed"
    seconds = _until_checkpoint_and_end(scratch, made)
    weights = (made / "cannon_drag/routes/networks/surrogate/weights.safetensors").read_bytes()
    resumed = same = struck = 0
    oldest = 0.0
    while struck < count:
        shutil.rmtree(made)
        training = scratch.start(*_TRAIN)
        _wait_for_checkpoint(training, made)
        time.sleep(chance.uniform(0, seconds))
        if training.poll() is not None:
            training.communicate()
            continue  # it was faster than the one before
        os.killpg(training.pid, signal.SIGKILL)
        training.communicate()
        struck += 1
        saved = [file.stat().st_mtime for file in (made / "checkpoints").rglob("*.ckpt")]
        if saved:  # else it had written all of its outputs
            resumed += 1
            oldest = max(oldest, time.time() - max(saved))
        scratch.run(*_TRAIN)
        same += (made / "cannon_drag/routes/networks/surrogate/weights.safetensors").read_bytes() == weights
    return [
        f"{struck} trainings killed, {resumed} of them before their end: {same} ended at the same bits",
        f"at most {oldest:.1f} s of training were repeated",
    ]


def _until_checkpoint_and_end(scratch: Scratch, made: Path) -> float:
    training = scratch.start(*_TRAIN)
    _wait_for_checkpoint(training, made)
    began = time.monotonic()
    printed, _ = training.communicate()
    if training.returncode != 0:
        raise RuntimeError(printed)
    return time.monotonic() - began


def _wait_for_checkpoint(training: subprocess.Popen[str], made: Path) -> None:
    while not any((made / "checkpoints").rglob("*.ckpt")):
        if training.poll() is not None:
            raise RuntimeError(f"it ended before its first checkpoint: {training.communicate()[0]}")
        time.sleep(0.02)
