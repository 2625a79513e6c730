"""Simulate the data set that networks learn from, or read what was measured; draw the targets, or read a user's."""

import sys
from collections import Counter

from aimback.core.errors import UserError
from aimback.core.files import check_writable, sha256, write_table
from aimback.data.dataset import dataset_size, save_dataset, simulate_dataset
from aimback.data.exactness import TRIED, error_note, simulation_error
from aimback.data.measurements import Measurements, read_measurements
from aimback.data.targets import Targets, draw_parts, read_targets, save_targets, split
from aimback.tasks.measured import MeasuredTask
from aimback.workflow.progress import progress_bar
from aimback.workflow.stage import Job, stage

_NAMED = 3  # invalid rows, on the console; all of them stand in evaluate/answers.csv


@stage
def main(job: Job) -> None:
    settings, task = job.settings, job.task
    hardware, data = settings.hardware, settings.data
    device, dtype = job.device, hardware.torch_dtype
    folder = job.outputs / "data"
    measured = _read_measured(job)
    _check_error(job)
    if measured is not None:
        with job.meter("data/dataset.npz"):
            dataset = measured.make_dataset(data.validation_fraction, job.generator("dataset"))
            save_dataset(folder / "dataset.npz", dataset, task)
    elif settings.train:
        examples, jacobians = settings.count_examples(job.name), settings.learns_jacobians(job.name)
        check_writable(job.outputs, dataset_size(task, examples, jacobians=jacobians))
        if examples < data.examples:
            print(f"{job.name}: {examples:,} of the {data.examples:,} data.examples are simulated: budget.simulations")
        with progress_bar(f"{job.name}: simulating", examples) as bar, job.meter("data/dataset.npz"):
            dataset = simulate_dataset(
                task,
                examples,
                data.validation_fraction,
                job.generator("dataset"),
                device,
                dtype,
                progress=bar.advance,
                jacobians=jacobians,
            )
        save_dataset(folder / "dataset.npz", dataset, task)
        _name_failures(job)
    else:  # nothing learns from examples
        folder.joinpath("dataset.npz").unlink(missing_ok=True)
    if settings.targets is None and measured is not None:
        targets = measured.draw_targets(data.count_targets(task), job.generator("targets"))
        parts = split(targets)
        print(f"{job.name}: {len(targets):,} of the outcomes that were measured are the targets")
    elif settings.targets is None:
        parts = draw_parts(task, data.count_targets(task), job.generator("targets"), device, dtype)
    else:
        targets = read_targets(settings.targets, task)
        parts = split(targets)
        _name_invalid(job, targets)
        if settings.targets_sha256 not in (None, sha256(settings.targets)):
            raise UserError(f"targets: {settings.targets} was edited after params.yaml was composed; run it again")
    save_targets(folder / "targets.npz", parts, task)


def _read_measured(job: Job) -> Measurements | None:
    """The measurements of a task that has no simulator; what is wrong with them is said, row by row in a file."""
    task, file = job.task, job.outputs / "data" / "left_out.csv"
    file.unlink(missing_ok=True)
    if not isinstance(task, MeasuredTask):
        return None
    measured = read_measurements(task)
    told = [f"{len(measured):,} measurements are learned from", *measured.notes]
    if problems := measured.problems:
        write_table(file, ["problem"], [[problem] for problem in problems])
        more = [f"and {len(problems) - _NAMED} more, see {file}"] if len(problems) > _NAMED else []
        rows = "1 row is" if len(problems) == 1 else f"{len(problems):,} rows are"
        told.append(f"{rows} left out: {', '.join([*problems[:_NAMED], *more])}")
    print(f"{job.name}: {task.data}: {'; '.join(told)}")
    return measured


def _name_invalid(job: Job, targets: Targets) -> None:
    problems = [problem for problem in targets.problems if problem]
    if problems:
        more = [f"and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
        print(
            f"{job.name}: {job.settings.targets}: {len(problems)} of {len(targets)} rows are invalid and left out: "
            + "; ".join(problems[:_NAMED] + more)
        )


def _name_failures(job: Job) -> None:
    """Say how many runs have failed and why; all of them stand in data/failures.csv."""
    failures, file = job.task.failures, job.outputs / "data" / "failures.csv"
    file.unlink(missing_ok=True)
    if failures:
        reasons = Counter(failure.reason for failure in failures).most_common(_NAMED)
        write_table(file, [*failures[0].case, "reason"], [[*one.case.values(), one.reason] for one in failures])
        told = "; ".join(f"{count} {reason}" for reason, count in reasons)
        print(f"{job.name}: {len(failures)} runs failed and are left out, see {file}: {told}")


def _check_error(job: Job) -> None:
    """Say it before the long work begins where the simulator's own error is not small against the tolerance."""
    task, generator = job.task, job.generator("simulation error")
    controls, conditions = task.draw_controls(TRIED, generator), task.conditions.sample(TRIED, generator)
    errors = simulation_error(task, controls, conditions, job.device)
    if errors is None:
        return
    if note := error_note(job.name, task, float(errors.median()), float(errors.max())):
        print(f"{job.name}: {note}", file=sys.stderr)


if __name__ == "__main__":
    main()
