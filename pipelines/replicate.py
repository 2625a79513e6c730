"""Train further networks, each of a data set and a seed of its own: how much of a claim hangs on one training?"""

import json

from aimback.core.files import write_text
from aimback.data.dataset import simulate_dataset
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    settings, task, hardware = job.settings, job.task, job.settings.hardware
    folder = job.outputs / "replicas"
    losses = []
    with job.metered("replicas/metrics.json"):
        for number in range(1, settings.diagnose.replicas + 1):
            from aimback.learn.surrogate_training import train_surrogate  # seconds, where there is nothing to train

            dataset = simulate_dataset(
                task,
                settings.data.examples,
                settings.data.validation_fraction,
                job.generator(f"dataset of replica {number}"),
                hardware.device(),
                hardware.torch_dtype,
            )
            surrogate, history = train_surrogate(
                dataset,
                task,
                settings.surrogate,
                settings.training,
                job.seed(f"training of replica {number}"),
                hardware.device().type,
                job.checkpoints,
            )
            surrogate.save(folder / f"{number}.safetensors", task)
            losses.append(min(epoch.validation_loss for epoch in history))
        write_text(folder / "metrics.json", json.dumps({"best_validation_loss": losses}, indent=1) + "\n")


if __name__ == "__main__":
    main()
