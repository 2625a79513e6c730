"""Train the network of a surrogate route on the data set, and beside it replicas of other data sets and seeds.

The replicas tell how much of a claim hangs on one training.
"""

import json

from aimback.core.files import write_table, write_text
from aimback.data.dataset import load_dataset, simulate_dataset
from aimback.workflow.live import live_training
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    settings, task, hardware = job.settings, job.task, job.settings.hardware
    network, training = settings.network_of(job.route, job.name)
    examples = job.find("data/dataset.npz")
    jacobians = training.learns_jacobians
    dataset = load_dataset(examples, task, jacobians=jacobians)
    device = job.device
    with live_training(job, examples) as live:
        # Lightning takes seconds to import; the live logger gets ready meanwhile.
        from aimback.learn.callbacks import Epoch
        from aimback.learn.cross_validation import cross_validate, summarise_errors
        from aimback.learn.surrogate_training import train_surrogates, validation_mse

        # Alone, so that its seconds are what a route with one network pays.
        with job.meter(f"routes/networks/{job.route}/weights.safetensors"):
            ((surrogate, history),) = train_surrogates(
                [dataset], task, network, training, [job.seed("training")], device.type, job.checkpoints, live
            )
    folder = job.outputs / "routes" / "networks" / job.route
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
    if not task.has_simulator:  # nothing but data that a network has not seen can tell what it is worth
        errors = cross_validate(dataset, task, network, training, job.generator("folds"), device.type, job.checkpoints)
        metrics |= summarise_errors(task, errors)
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    numbers = range(1, settings.replicas_of(job.route, job.name) + 1) if task.has_simulator else ()
    datasets = [
        simulate_dataset(
            task,
            settings.count_examples(job.name),
            settings.data.validation_fraction,
            job.generator(f"dataset of replica {number}"),
            device,
            hardware.torch_dtype,
            jacobians=jacobians,
        )
        for number in numbers
    ]
    seeds = [job.seed(f"training of replica {number}") for number in numbers]
    replicas = train_surrogates(datasets, task, network, training, seeds, device.type, job.checkpoints) if seeds else []
    for number, (replica, _) in zip(numbers, replicas, strict=True):
        replica.save(folder / "replicas" / f"{number}.safetensors", task)
    losses = [min(row.validation_loss for row in history) for _, history in replicas]
    write_text(folder / "replicas" / "metrics.json", json.dumps({"best_validation_loss": losses}, indent=1) + "\n")


if __name__ == "__main__":
    main()
