"""A group of methods of the contest on the same targets from the same guesses, scored by r_T."""

import json

from aimback.core.errors import UserError
from aimback.core.files import write_text
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import Linearised
from aimback.data.dataset import load_dataset
from aimback.data.targets import load_targets
from aimback.evaluate.judge import R_T_COLUMNS, judge, measures, r_t_rows, resimulate, save_answers, save_table
from aimback.learn.surrogate import Surrogate
from aimback.workflow.settings import Method
from aimback.workflow.solving import solved
from aimback.workflow.stage import Job, stage


@stage
def main(job: Job) -> None:
    task, device = job.task, job.settings.hardware.device()
    targets = load_targets(job.made("data/targets.npz"), task)
    metrics, answers, curves = {}, {}, []
    group = job.settings.group
    if group is None:
        raise UserError(f"group: which methods? One of {', '.join(job.settings.groups)}")
    names = job.settings.groups[group]
    for name in names:
        method = job.settings.methods[name]
        ledger, forward = _forward(job, method)
        counted = Counted(forward, ledger, simulates=forward is task)
        with job.metered(f"{group}/metrics.json", name):
            solution = solved(job, targets, counted, method.solver, method.torch_dtype, method.margin)
        truth = resimulate(task, targets, solution, device)
        answers[name] = judge(task, targets, solution, truth)
        # A method with fewer candidates has no r_50.
        metrics[name] = {"r_50": None, **measures(task, targets, solution, truth, answers[name], ledger)}
        curves += r_t_rows(name, truth)
    folder = job.outputs / group
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    tree = job.settings.tree
    settings = {"seed": tree["seed"], "data": tree["data"], "methods": {name: tree["methods"][name] for name in names}}
    write_text(folder / "settings.json", json.dumps(settings, indent=1) + "\n")
    save_answers(folder / "answers.csv", task, targets, answers)
    save_table(folder / "r_t.csv", ("method", *R_T_COLUMNS[1:]), curves)


def _forward(job: Job, method: Method) -> tuple[Ledger, Linearised]:
    """What a method inverts, and what having it has cost."""
    if method.forward == "simulator":
        return Ledger(), job.task
    device = job.settings.hardware.device()
    weights = job.made("surrogate/weights.safetensors", method.forward)
    dataset = load_dataset(job.made("data/dataset.npz"), job.task)
    examples = len(dataset) + dataset.n_left_out
    ledger = Ledger(simulations=examples, training_examples=examples)
    return ledger, Surrogate.load(weights, job.task, device, method.torch_dtype)


if __name__ == "__main__":
    main()
