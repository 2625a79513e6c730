"""Train the hybrid route's network through the simulator: from a target straight to controls."""

import dataclasses
import functools
import json

import torch

from aimback.core.files import write_table, write_text
from aimback.core.ledger import Ledger
from aimback.data.dataset import simulate
from aimback.data.identity import identify
from aimback.data.targets import Targets, draw_targets
from aimback.learn.proposer import Proposer
from aimback.solve.step import NotCompilable
from aimback.tasks.base import Task
from aimback.workflow.solving import leave_to_interpreter, make_compiler
from aimback.workflow.stage import Job, stage

_LOOKS_A_START = 8  # that a descent takes, about


@stage
def main(job: Job) -> None:
    # Lightning takes seconds to import.
    from aimback.learn.callbacks import Epoch
    from aimback.learn.proposer_training import train_proposer

    hybrid, task, hardware = job.settings.amortise[job.route], job.task, job.settings.hardware
    device, dtype = job.device, hardware.torch_dtype
    ledger = Ledger()
    with job.meter(f"routes/proposers/{job.route}/weights.safetensors"):
        count = hybrid.count_targets(task) + hybrid.validation_targets
        targets = draw_targets(task, count, job.generator("targets of the proposer"), device, dtype, ledger)
        ledger.training_examples = ledger.simulations
        train = functools.partial(
            train_proposer,
            task,
            targets,
            hybrid,
            ledger,
            job.seed("training of the proposer"),
            device.type,
            dtype,
            job.checkpoints,
        )
        # What a compiled solve is for the other stages, a compiled look at all proposals of an epoch is here.
        about = identify(task) if task.compiles and hybrid.devices == 1 else None  # a program is one process's
        starts = hybrid.count_targets(task) * hybrid.max_epochs // _LOOKS_A_START
        try:
            proposer, history, lost = train(compiler=make_compiler(job, about, starts))
        except NotCompilable as error:
            leave_to_interpreter(job, error)
            proposer, history, lost = train()
    folder = job.outputs / "routes" / "proposers" / job.route
    proposer.save(folder / "weights.safetensors", task)
    write_table(folder / "history.csv", Epoch._fields, history)
    write_text(folder / "ledger.json", json.dumps(dataclasses.asdict(ledger), indent=1) + "\n")
    best = min(history, key=lambda row: row.validation_loss)
    metrics = {
        "best_train_loss": best.train_loss,
        "best_validation_loss": best.validation_loss,
        "best_epoch": best.epoch,
        "epochs": history[-1].epoch,
        "steps": history[-1].step,
        "lost_proposals": lost,
        **_quality(task, proposer, targets, hybrid.validation_targets),
    }
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")


def _quality(task: Task, proposer: Proposer, targets: Targets, last: int) -> dict[str, float]:
    """What the proposals alone are worth at the validation targets; no part of the training, nor of its ledger."""
    wanted, given = targets.targets[-last:], targets.conditions[-last:]
    with torch.no_grad():
        controls = proposer.double()(wanted, given)
    miss = task.distance.measure(simulate(task, controls, given)[0] - wanted)
    return {
        "proposals_solved_fraction": float((miss <= task.tolerance).double().mean()),
        "proposals_miss_median": float(miss.nan_to_num(nan=torch.inf).sort().values[len(miss) // 2]),
    }


if __name__ == "__main__":
    main()
