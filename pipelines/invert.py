"""The surrogate route: descend through the trained network."""

from aimback.core.files import sha256
from aimback.core.ledger import Counted, Ledger
from aimback.data.dataset import load_dataset
from aimback.data.identity import identity
from aimback.learn.surrogate import Surrogate
from aimback.workflow.solving import solve_targets
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    hardware = job.settings.hardware
    weights = job.made("surrogate/weights.safetensors")
    surrogate = Surrogate.load(weights, job.task, hardware.device(), hardware.torch_dtype)
    dataset = load_dataset(job.made("data/dataset.npz"), job.task)
    examples = len(dataset) + dataset.n_left_out
    ledger = Ledger(simulations=examples, training_examples=examples)
    about = None if surrogate.wide else f"{identity(job.task)} {sha256(weights)}"
    solve_targets(job, Counted(surrogate, ledger, simulates=False), ledger, "invert", about)


if __name__ == "__main__":
    main()
