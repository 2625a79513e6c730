"""The surrogate route: descend through the trained network."""

from aimback.dataset import load_dataset
from aimback.ledger import Counted, Ledger
from aimback.surrogate.network import Surrogate
from pipelines.solving import solve_targets
from pipelines.stage import Job, stage


@stage
def main(job: Job) -> None:
    hardware = job.settings.hardware
    surrogate = Surrogate.load(
        job.made("surrogate/weights.safetensors"), job.task, hardware.device(), hardware.torch_dtype
    )
    dataset = load_dataset(job.made("data/dataset.npz"), job.task)
    examples = len(dataset) + dataset.n_left_out
    ledger = Ledger(simulations=examples, training_examples=examples)
    solve_targets(job, Counted(surrogate, ledger, simulates=False), ledger, "invert")


if __name__ == "__main__":
    main()
