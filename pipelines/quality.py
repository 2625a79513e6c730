"""How the answers follow the network: surrogates learn from ever more examples, and each is inverted."""

from aimback.core.ledger import Counted, Ledger
from aimback.data.dataset import load_dataset
from aimback.data.targets import draw_targets
from aimback.evaluate.judge import r_t, resimulate, save_table
from aimback.workflow.solving import solved
from aimback.workflow.stage import Job, stage

_TARGETS = 500


@stage
def main(job: Job) -> None:
    from aimback.learn.surrogate_training import train_surrogate, validation_mse  # seconds

    settings, task, device = job.settings, job.task, job.settings.hardware.device()
    method = settings.methods["second_order"]
    dataset = load_dataset(job.made("data/dataset.npz"), task)
    # More than the contest's own: a mean of squares hangs on its few greatest.
    targets = draw_targets(task, _TARGETS, job.generator("quality targets"), device)
    rows = []
    for examples in sorted({min(count, dataset.n_training) for count in settings.sweep}):
        surrogate, _ = train_surrogate(
            dataset.first(examples),
            task,
            settings.surrogate,
            settings.training,
            job.seed("training"),
            device.type,
            job.checkpoints,
        )
        error = validation_mse(surrogate, dataset)
        forward = Counted(surrogate.to(device, method.torch_dtype), Ledger(), simulates=False)
        solution = solved(job, targets, forward, method.solver, method.torch_dtype, method.margin)
        answers = r_t(resimulate(task, targets, solution, device))
        rows.append((examples, error, float(answers[0, 0])))
    save_table(job.outputs / "quality" / "quality.csv", ("examples", "validation_mse", "r_1"), rows)


if __name__ == "__main__":
    main()
