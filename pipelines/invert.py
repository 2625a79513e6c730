"""A surrogate route: descend through a trained network."""

from aimback.core.files import sha256
from aimback.core.ledger import Counted, Ledger
from aimback.data.dataset import load_dataset
from aimback.data.identity import identify
from aimback.learn.surrogate import Surrogate
from aimback.workflow.solving import solve_targets
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    route = job.settings.invert[job.route]
    weights = job.find(f"routes/networks/{route.network}/weights.safetensors")
    surrogate = Surrogate.load(weights, job.task, job.device, route.torch_dtype)
    dataset = load_dataset(job.find("data/dataset.npz"), job.task)
    examples = len(dataset) + dataset.n_left_out
    if job.task.has_simulator:
        ledger = Ledger(simulations=examples, training_examples=examples)
    else:
        ledger = Ledger(training_examples=len(dataset))
    about = None if surrogate.wide else f"{identify(job.task)} {sha256(weights)}"
    solve_targets(job, route, Counted(surrogate, ledger, simulates=False), ledger, about)


if __name__ == "__main__":
    main()
