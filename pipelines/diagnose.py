"""Measure every claim about the routes, and decide it."""

import json
from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import get_args

import torch

from aimback.core.files import write_text
from aimback.data.archive import write_arrays
from aimback.data.dataset import Dataset
from aimback.data.solution import load_solution
from aimback.data.targets import load_targets
from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim, Verdict
from aimback.diagnose.examination import examine_all, list_examinations
from aimback.learn.surrogate import Surrogate
from aimback.workflow.progress import progress_bar
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, settings, device = job.task, job.settings.diagnose, job.device
    compared = job.settings.compared
    folder = job.outputs / "evaluate" / "claims"
    claims: list[tuple[Claim, Pictures]] = []
    left_out: list[str] = []
    with job.meter("evaluate/claims/metrics.json"):
        if "surrogate" in compared and "direct" in compared:
            targets = load_targets(job.find("data/targets.npz"), task).only_valid()
            name = job.settings.invert[compared["surrogate"]].network
            network, replicas = f"routes/networks/{name}", range(1, job.settings.replicas_of(name, job.name) + 1)
            weights = [f"{network}/weights", *(f"{network}/replicas/{number}" for number in replicas)]
            case = Case(
                task=task,
                networks=[
                    Surrogate.load(job.find(f"{file}.safetensors"), task, device, torch.float64) for file in weights
                ],
                targets=targets,
                solutions={
                    kind: load_solution(job.find(f"routes/{route}/solution.npz"), task, len(targets))
                    for kind, route in compared.items()
                },
                solver=job.settings.solver,
                starts=job.settings.starts,
                generator=lambda purpose: job.generator(f"diagnose: {purpose}"),
                settings=settings,
                device=device,
                train=partial(_train, job, name),
                jacobians=job.settings.network_of(name, job.name)[1].learns_jacobians,
            )
            with progress_bar(f"{job.name}: deciding claims", len(list_examinations(settings))) as bar:
                claims, left_out = examine_all(case, bar.advance, job.settings.budget.simulations)
            if left_out:
                print(f"{job.name}: claims left out, since budget.simulations is spent: {', '.join(left_out)}")
        numbers = {claim.key: claim.metrics() for claim, _ in claims}
        write_text(folder / "metrics.json", json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    texts = {**{claim.key: claim.texts() for claim, _ in claims}, "left_out": left_out}
    write_text(folder / "claims.json", json.dumps(texts, indent=1) + "\n")
    # What DVC shows: the claims by their verdict, in a line.
    named = {verdict: [claim.key for claim, _ in claims if claim.verdict == verdict] for verdict in get_args(Verdict)}
    shown = {verdict: " ".join(keys) for verdict, keys in named.items()}
    write_text(job.outputs / "claims.json", json.dumps(shown, indent=1) + "\n")
    (folder / "pictures").mkdir(exist_ok=True)
    for claim, pictures in filter(itemgetter(1), claims):
        write_arrays(folder / "pictures" / f"{claim.key}.npz", pictures, task)


def _train(job: Job, route: str, dataset: Dataset, seeds: Sequence[int]) -> list[Surrogate]:
    # Lightning takes seconds to import, and only C9 asks for more networks.
    from aimback.learn.surrogate_training import train_surrogates

    network, training = job.settings.network_of(route, job.name)
    trained = train_surrogates(
        [dataset] * len(seeds), job.task, network, training, seeds, job.device.type, job.checkpoints
    )
    return [surrogate.to(job.device, torch.float64) for surrogate, _ in trained]


if __name__ == "__main__":
    main()
