"""A surrogate route: descend through a trained network, and in rounds, where they are set, train it anew."""

import functools

from aimback.core.errors import OverBudgetError, UserError
from aimback.core.files import sha256, write_table
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem
from aimback.data.archive import count_parts, write_arrays
from aimback.data.dataset import Dataset, load_dataset
from aimback.data.identity import identify
from aimback.data.targets import Targets, draw_targets, load_targets
from aimback.learn.calibration import Calibration
from aimback.learn.revision import Revision, Round
from aimback.learn.surrogate import Surrogate
from aimback.settings.posing import pose_for_route
from aimback.workflow.solving import solve_targets
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, route, folder = job.task, job.settings.invert[job.route], f"routes/{job.route}/revision"
    weights = job.find(f"routes/networks/{route.network}/weights.safetensors")
    surrogate = Surrogate.load(weights, task, job.device, route.torch_dtype)
    jacobians = job.settings.network_of(route.network, job.name)[1].learns_jacobians
    dataset = load_dataset(job.find("data/dataset.npz"), task, jacobians=jacobians)
    if task.has_simulator:
        ledger = Ledger()
        ledger.enter_examples(task, len(dataset) + dataset.n_left_out, jacobians=jacobians)
    else:
        ledger = Ledger(training_examples=len(dataset))
    for left in ("weights.safetensors", "bounds.npz"):  # by a run with other settings, into the same folder
        (job.outputs / folder / left).unlink(missing_ok=True)
    forward, rounds = Counted(surrogate, ledger, simulates=False), []
    if not (route.rounds or route.calibration):
        about = None if surrogate.wide else f"{identify(task)} {sha256(weights)}"
        solve_targets(job, route, forward, ledger, about)
    else:
        revision = _prepare(job, surrogate, dataset, ledger)
        calibration = _calibrate(job, revision)
        asked = calibration if route.calibration else revision
        solve_targets(job, route, forward, ledger, instead=asked.search)
        rounds = revision.rounds
        if revision.limit is not None and len(rounds) < route.rounds and ledger.simulations >= revision.limit:
            print(f"{job.name}: {len(rounds)} of {route.rounds} rounds are made: budget.simulations allows no more")
        if revision.network is not surrogate:
            revision.network.save(job.outputs / folder / "weights.safetensors", task)
        if route.calibration:
            _, again = load_targets(job.find("data/targets.npz"), task).only_valid().once()
            write_arrays(job.outputs / folder / "bounds.npz", {"miss_bound": calibration.bounds[again].numpy()}, task)
    write_table(job.outputs / folder / "rounds.csv", Round._fields, rounds)


def _prepare(job: Job, surrogate: Surrogate, dataset: Dataset, ledger: Ledger) -> Revision:
    from aimback.learn.surrogate_training import train_surrogate  # Lightning takes seconds to import

    settings, route = job.settings, job.settings.invert[job.route]
    if (parts := count_parts(job.find("data/targets.npz"))) > 1:
        raise UserError(
            f"invert.{job.route}: rounds and calibration are of all targets at once, and these are in {parts} parts; "
            "choose 0 for both, or ask for fewer targets"
        )
    network, training = settings.network_of(route.network, job.name)

    def train(examples: Dataset, begin: Surrogate, number: int) -> Surrogate:
        seed, device = job.seed(f"training of round {number}"), job.device.type
        trained = train_surrogate(examples, job.task, network, training, seed, device, job.checkpoints, begin=begin)
        return trained[0]

    limit, dtype = settings.budget.simulations, settings.hardware.torch_dtype
    if limit is not None:
        limit -= route.calibration  # whose answers are simulated in the end
    return Revision(job.task, route, surrogate, dataset, train, ledger, limit, job.device, dtype)


def _calibrate(job: Job, revision: Revision) -> Calibration:
    route, dtype = revision.route, revision.dtype

    def draw() -> tuple[Targets, InverseProblem]:
        stream = job.generator("targets of calibration")
        targets = draw_targets(job.task, route.calibration, stream, job.device, dtype, revision.ledger)
        if revision.limit is not None and revision.ledger.simulations > revision.limit:  # some were drawn in vain
            raise OverBudgetError(f"budget.simulations: allows fewer for invert.{job.route}.calibration; lower that")
        streams = functools.cache(lambda purpose: job.generator(f"{purpose} of calibration"))
        return targets, pose_for_route(job.task, route, targets, streams, job.device)[0]

    return Calibration(revision, draw)


if __name__ == "__main__":
    main()
