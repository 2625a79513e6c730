"""A surrogate route: descend through a trained network, and in rounds, where they are set, train it anew."""

from aimback.core.errors import UserError
from aimback.core.files import sha256, write_table
from aimback.core.ledger import Counted, Ledger
from aimback.data.archive import count_parts
from aimback.data.dataset import Dataset, load_dataset
from aimback.data.identity import identify
from aimback.learn.revision import Revision, Round
from aimback.learn.surrogate import Surrogate
from aimback.workflow.solving import solve_targets
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, route, folder = job.task, job.settings.invert[job.route], f"routes/{job.route}/revision"
    weights = job.find(f"routes/networks/{route.network}/weights.safetensors")
    surrogate = Surrogate.load(weights, task, job.device, route.torch_dtype)
    dataset = load_dataset(job.find("data/dataset.npz"), task)
    examples = len(dataset) + dataset.n_left_out
    if task.has_simulator:
        ledger = Ledger(simulations=examples, training_examples=examples)
    else:
        ledger = Ledger(training_examples=len(dataset))
    forward, rounds = Counted(surrogate, ledger, simulates=False), []
    if not route.rounds:
        about = None if surrogate.wide else f"{identify(task)} {sha256(weights)}"
        solve_targets(job, route, forward, ledger, about)
    else:
        revision = _prepare(job, surrogate, dataset, ledger)
        solve_targets(job, route, forward, ledger, instead=revision.search)
        rounds = revision.rounds
        if revision.limit is not None and ledger.simulations >= revision.limit:
            print(f"{job.name}: {len(rounds)} of {route.rounds} rounds are made: budget.simulations allows no more")
        if revision.network is not surrogate:
            revision.network.save(job.outputs / folder / "weights.safetensors", task)
    write_table(job.outputs / folder / "rounds.csv", Round._fields, rounds)


def _prepare(job: Job, surrogate: Surrogate, dataset: Dataset, ledger: Ledger) -> Revision:
    from aimback.learn.surrogate_training import train_surrogate  # Lightning takes seconds to import

    settings, route = job.settings, job.settings.invert[job.route]
    if (parts := count_parts(job.find("data/targets.npz"))) > 1:
        raise UserError(
            f"invert.{job.route}.rounds: are made of all targets at once, and these are in {parts} parts; choose 0, or "
            "ask for fewer targets"
        )
    network, training = settings.network_of(route.network, job.name)

    def train(examples: Dataset, begin: Surrogate, number: int) -> Surrogate:
        seed, device = job.seed(f"training of round {number}"), job.device.type
        trained = train_surrogate(examples, job.task, network, training, seed, device, job.checkpoints, begin=begin)
        return trained[0]

    limit, dtype = settings.budget.simulations, settings.hardware.torch_dtype
    return Revision(job.task, route, surrogate, dataset, train, ledger, limit, job.device, dtype)


if __name__ == "__main__":
    main()
