"""A surrogate route: descend through a trained network, and in rounds, where they are set, train it anew."""

import functools
from functools import partial

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
    task, settings, route = job.task, job.settings, job.settings.invert[job.route]
    weights = job.find(f"routes/networks/{route.network}/weights.safetensors")
    surrogate = Surrogate.load(weights, task, job.device, route.torch_dtype)
    jacobians = settings.network_of(route.network, job.name)[1].learns_jacobians
    dataset = load_dataset(job.find("data/dataset.npz"), task, jacobians=jacobians)
    if task.has_simulator:
        ledger = Ledger()
        ledger.enter_examples(task, len(dataset) + dataset.n_left_out, jacobians=jacobians)
    else:
        ledger = Ledger(training_examples=len(dataset))
    limit, dtype = settings.budget.simulations, settings.hardware.torch_dtype
    if limit is not None:
        limit -= route.calibration  # whose answers are simulated in the end
    revision = Revision(task, route, surrogate, dataset, partial(_train, job), ledger, limit, job.device, dtype)
    calibration = Calibration(revision, partial(_draw, job, revision))
    about = instead = None
    if route.rounds or route.calibration:
        _check_parts(job)
        instead = calibration.search if route.calibration else revision.search
    elif not surrogate.wide:
        about = f"{identify(task)} {sha256(weights)}"
    solve_targets(job, route, Counted(surrogate, ledger, simulates=False), ledger, about, instead=instead)
    _save(job, surrogate, revision, calibration)
    if revision.cut_short:
        made = f"{len(revision.rounds)} of {route.rounds} rounds"
        print(f"{job.name}: {made} are made: budget.simulations allows no more")


def _check_parts(job: Job) -> None:
    if (parts := count_parts(job.find("data/targets.npz"))) > 1:
        raise UserError(
            f"invert.{job.route}: rounds and calibration are of all targets at once, and these are in {parts} parts; "
            "choose 0 for both, or ask for fewer targets"
        )


def _train(job: Job, examples: Dataset, begin: Surrogate, number: int) -> Surrogate:
    from aimback.learn.surrogate_training import train_surrogate  # Lightning takes seconds to import

    network, training = job.settings.network_of(job.settings.invert[job.route].network, job.name)
    seed, device = job.seed(f"training of round {number}"), job.device.type
    return train_surrogate(examples, job.task, network, training, seed, device, job.checkpoints, begin=begin)[0]


def _draw(job: Job, revision: Revision) -> tuple[Targets, InverseProblem]:
    """The further targets of a calibration, and what they ask."""
    route, stream = revision.route, job.generator("targets of calibration")
    targets = draw_targets(job.task, route.calibration, stream, job.device, revision.dtype, revision.ledger)
    if revision.limit is not None and revision.ledger.simulations > revision.limit:  # some were drawn in vain
        raise OverBudgetError(f"budget.simulations: allows fewer for invert.{job.route}.calibration; lower that")
    streams = functools.cache(lambda purpose: job.generator(f"{purpose} of calibration"))
    return targets, pose_for_route(job.task, route, targets, streams, job.device)[0]


def _save(job: Job, surrogate: Surrogate, revision: Revision, calibration: Calibration) -> None:
    """What came of rounds and calibration; what a run with other settings left in the same folder is removed."""
    folder = job.outputs / "routes" / job.route / "revision"
    for name in ("weights.safetensors", "bounds.npz"):
        (folder / name).unlink(missing_ok=True)
    write_table(folder / "rounds.csv", Round._fields, revision.rounds)
    if revision.network is not surrogate:
        revision.network.save(folder / "weights.safetensors", job.task)
    if revision.route.calibration:
        _, again = load_targets(job.find("data/targets.npz"), job.task).only_valid().once()
        write_arrays(folder / "bounds.npz", {"miss_bound": calibration.bounds[again].numpy()}, job.task)


if __name__ == "__main__":
    main()
