"""The hybrid's default training, which goes through the simulator and its derivatives at every proposal."""

import tempfile
import time
from pathlib import Path

import torch

from aimback.compile.compiler import Compiler
from aimback.core.ledger import Ledger
from aimback.data.targets import draw_targets
from aimback.learn.proposer_training import train_proposer
from aimback.tasks.cannon_drag import CannonDrag
from aimback.workflow.defaults import read_defaults
from benchmarks.tables import number, table


def measure(device: torch.device) -> str:
    task, settings = CannonDrag(), read_defaults().amortise["hybrid"]
    if device.type == "cpu":
        settings = settings.model_copy(update={"max_epochs": 4})
    count = settings.count_targets(task) + settings.validation_targets
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        compiler = Compiler(Path(folder), "cannon_drag")
        for where in dict.fromkeys((device.type, "cpu")):
            targets = draw_targets(task, count, torch.Generator().manual_seed(1), torch.device(where))
            for how, chosen in (("compiled", compiler), ("compiled before", compiler), ("interpreted", None)):
                place = Path(folder) / where / how  # its own, or the second one would go on from the first one's end
                began = time.perf_counter()
                _, history, _ = train_proposer(
                    task, targets, settings, Ledger(), 0, where, torch.float64, place, compiler=chosen
                )
                seconds = time.perf_counter() - began
                rows.append([where, how, number(seconds), f"{history[-1].validation_loss:.1e}"])
    return table(["", "the simulator", "seconds", "validation loss"], rows, words=2)
