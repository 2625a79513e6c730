"""Train the network of a surrogate route on the data set, and beside it replicas of other data sets and seeds.

The replicas tell how much of a claim hangs on one training.
"""

import json

from aimback.core.files import write_text
from aimback.data.dataset import load_dataset, simulate_dataset
from aimback.evaluate.tables import write_table
from aimback.workflow.live import live_training
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    settings, task, hardware = job.settings, job.task, job.settings.hardware
    network, training = settings.network_of(job.route, job.name)
    examples = job.made("data/dataset.npz")
    datasets, seeds = [load_dataset(examples, task)], [job.seed("training")]
    for number in range(1, settings.replicas_of(job.route, job.name) + 1):
        dataset = simulate_dataset(
            task,
            settings.data.examples,
            settings.data.validation_fraction,
            job.generator(f"dataset of replica {number}"),
            hardware.device(),
            hardware.torch_dtype,
        )
        datasets.append(dataset)
        seeds.append(job.seed(f"training of replica {number}"))
    with live_training(job, examples) as live:
        # Lightning takes seconds to import; the live logger gets ready meanwhile.
        from aimback.learn.callbacks import Epoch
        from aimback.learn.surrogate_training import train_surrogates, validation_mse

        with job.metered(f"routes/networks/{job.route}/weights.safetensors", among=len(datasets)):
            (surrogate, history), *replicas = train_surrogates(
                datasets,
                task,
                network,
                training,
                seeds,
                hardware.device().type,
                job.checkpoints,
                live,
            )
    folder = job.outputs / "routes" / "networks" / job.route
    surrogate.save(folder / "weights.safetensors", task)
    write_table(folder / "history.csv", Epoch._fields, history)
    best = min(history, key=lambda row: row.validation_loss)
    metrics = {
        "best_train_loss": best.train_loss,
        "best_validation_loss": best.validation_loss,
        "validation_mse": validation_mse(surrogate, datasets[0]),
        "best_epoch": best.epoch,
        "epochs": history[-1].epoch,
        "steps": history[-1].step,
    }
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    folder = folder / "replicas"
    for number, (replica, _) in enumerate(replicas, 1):
        replica.save(folder / f"{number}.safetensors", task)
    losses = [min(row.validation_loss for row in history) for _, history in replicas]
    write_text(folder / "metrics.json", json.dumps({"best_validation_loss": losses}, indent=1) + "\n")


if __name__ == "__main__":
    main()
