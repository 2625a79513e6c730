"""Train the surrogate on the data set."""

import json

from aimback.core.files import write_text
from aimback.data.dataset import load_dataset
from aimback.evaluate.judge import save_table
from aimback.workflow.live import live_training
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    settings, task = job.settings, job.task
    examples = job.made("data/dataset.npz")
    dataset = load_dataset(examples, task)
    with live_training(job, examples) as live:
        # Lightning takes seconds to import; the live logger gets ready meanwhile.
        from aimback.learn.fit import Epoch
        from aimback.learn.surrogate_training import train_surrogate, validation_mse

        with job.metered("surrogate/weights.safetensors"):
            surrogate, history = train_surrogate(
                dataset,
                task,
                settings.surrogate,
                settings.training,
                job.seed("training"),
                settings.hardware.device().type,
                job.checkpoints,
                live,
            )
    folder = job.outputs / "surrogate"
    surrogate.save(folder / "weights.safetensors", task)
    save_table(folder / "history.csv", Epoch._fields, history)
    best = min(history, key=lambda row: row.validation_loss)
    metrics = {
        "best_train_loss": best.train_loss,
        "best_validation_loss": best.validation_loss,
        "validation_mse": validation_mse(surrogate, dataset),
        "best_epoch": best.epoch,
        "epochs": history[-1].epoch,
        "steps": history[-1].step,
    }
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")


if __name__ == "__main__":
    main()
