"""Train the network of a surrogate route on the data set, and further ones for what the claims say of one training."""

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
    dataset = load_dataset(examples, task)
    folder = job.outputs / "routes" / "networks" / job.route
    losses = []
    with live_training(job, examples) as live:
        # Lightning takes seconds to import; the live logger gets ready meanwhile.
        from aimback.learn.callbacks import Epoch
        from aimback.learn.surrogate_training import train_surrogate, validation_mse

        device = hardware.device()
        with job.metered(f"routes/networks/{job.route}/weights.safetensors"):
            surrogate, history = train_surrogate(
                dataset, task, network, training, job.seed("training"), device.type, job.checkpoints, live
            )
    surrogate.save(folder / "weights.safetensors", task)
    write_table(folder / "history.csv", Epoch._fields, history)
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
    for number in range(1, settings.replicas_of(job.route, job.name) + 1):
        dataset = simulate_dataset(
            task,
            settings.data.examples,
            settings.data.validation_fraction,
            job.generator(f"dataset of replica {number}"),
            device,
            hardware.torch_dtype,
        )
        seed = job.seed(f"training of replica {number}")
        replica, history = train_surrogate(dataset, task, network, training, seed, device.type, job.checkpoints)
        replica.save(folder / "replicas" / f"{number}.safetensors", task)
        losses.append(min(epoch.validation_loss for epoch in history))
    write_text(folder / "replicas" / "metrics.json", json.dumps({"best_validation_loss": losses}, indent=1) + "\n")


if __name__ == "__main__":
    main()
