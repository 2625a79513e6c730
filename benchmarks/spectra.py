"""Inverting spectra as the literature measures it: the mean squared error of answers, beside published ones."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem, Linearised
from aimback.data.dataset import Dataset, simulate_dataset
from aimback.learn.surrogate import Surrogate
from aimback.learn.surrogate_training import train_surrogate, validation_mse
from aimback.report.published import read_published
from aimback.solve.blurred import Blurred
from aimback.solve.continuation import solve_by_continuation
from aimback.solve.multistart import solve
from aimback.solve.solver import Solver
from aimback.tasks.base import Task
from benchmarks.break_even import settings_of
from benchmarks.extent import pick
from benchmarks.rounds import one_core
from benchmarks.tables import number, table

_EXAMPLES = pick(40_000, 4_000)  # as many as the published networks learned from
_DEFAULT = settings_of("mlp")
_NETWORK = _DEFAULT.surrogate.model_copy(update={"hidden_width": 256})
_TRAINING = _DEFAULT.training.model_copy(update={"learning_rate": 0.003, "batch_size": 256})


@dataclass(frozen=True)
class Contest:
    """What is measured of a task.

    Attributes:
        targets: how many spectra of controls drawn from the box are wanted.
        enough: the mean squared error below which a target is given no further start.
        turns: how many starts at once it is given, one number a turn.
        nearest: whether it begins at the training examples whose outcomes are nearest, and not anywhere in the box.
        blurs: of the spectra, which are descended first, see `Smoothing`; those of one turn after those of another,
            as what is a trap of one is none of the other.
        corrections: how often the answers of a network are simulated and aimed anew, see `_aim_off`.
        epochs: of the training.
    """

    name: str
    task: Task
    solver: Solver
    targets: int
    enough: float
    turns: Sequence[int]
    nearest: bool = False
    blurs: Sequence[Sequence[float]] = ((),)
    corrections: int = 0
    epochs: int = 200

    @property
    def examples(self) -> int:
        """Of the network: with what it simulates of its answers, as many as the published ones learned from."""
        return _EXAMPLES - self.corrections * self.targets


def set_beside_published(contest: Contest) -> str:
    """Markdown: a table, and what it was made of."""
    task, ledger = contest.task, Ledger()
    controls = task.box.sample(contest.targets, torch.Generator().manual_seed(0))
    none = controls[:, :0]
    targets = task(controls, none)
    with one_core(), tempfile.TemporaryDirectory() as folder:
        one, many = (_time_call(task, controls[:count]) for count in (1, contest.targets))
        began = time.perf_counter()
        dataset = simulate_dataset(task, contest.examples, 0.1, torch.Generator().manual_seed(2))
        simulated = time.perf_counter() - began
        began = time.perf_counter()
        network = _learn(contest, dataset, Path(folder))
        learnt, held_out = simulated + time.perf_counter() - began, validation_mse(network, dataset)
        examples = dataset if contest.nearest else None
        began = time.perf_counter()
        forward = Counted(task, ledger, simulates=True)
        answers, taken, first = _answer(contest, targets, forward, contest.enough, examples)
        seconds = time.perf_counter() - began + (simulated if contest.nearest else 0)
        began = time.perf_counter()
        believed, tried, _ = _answer(contest, targets, network, held_out, examples)
        searched = time.perf_counter() - began
        began = time.perf_counter()
        corrected = _aim_off(contest, targets, network, believed)
        aimed = time.perf_counter() - began
    errors, missed, left = ((task(found, none) - targets).square().mean(-1) for found in (answers, believed, corrected))
    count, asked = contest.examples, contest.corrections * contest.targets
    published = [row for row in read_published() if row.task == contest.name]
    best = min(row.r_1 for row in published)
    corrections = f"aimback, surrogate, {contest.corrections} of its answers simulated", f"{float(left.mean()):.2e}"
    wide = ", or ".join(", ".join(f"{width:g}" for width in blurs) for blurs in contest.blurs)
    blurred = f", first through spectra blurred over {wide} wavelengths, turn by turn" if wide else ""
    rows = [
        [
            "aimback, direct",
            f"{float(errors.mean()):.2e}",
            number(seconds),
            f"{count:,}, to begin at" if examples else "none",
        ],
        ["aimback, surrogate", f"{float(missed.mean()):.2e}", number(learnt + searched), f"{count:,}"],
        *([[*corrections, number(learnt + searched + aimed), f"{count:,} + {asked:,}"]] if asked else []),
        *([f"{row.method}, as published", f"{row.r_1:.2e}", "", "40,000"] for row in published),
    ]
    return "\n\n".join(
        [
            f"{contest.targets} spectra of controls drawn evenly from the box. r_1 is the mean over the targets of the "
            "squared error of the answer that a route believes best, simulated again, averaged over the spectrum. The "
            "published rows are what their authors report of their own targets; nothing of theirs was run here.",
            table(["", "r_1", "seconds", "training examples"], rows),
            f"Direct: `{type(contest.solver).__name__}`{blurred}; {1e6 * seconds / contest.targets:,.0f} us and "
            f"{ledger.evaluations / contest.targets:.0f} simulations with Jacobians a target, in the median "
            f"{statistics.median(taken.tolist()):g} starts, at most {int(taken.max())}. Of single starts, "
            f"{float((first < 1e-12).double().mean()):.0%} end below 1e-12 and "
            f"{float((first < 1e-25).double().mean()):.0%} below 1e-25; of the targets "
            f"{float((errors < 1e-12).double().mean()):.0%} end below 1e-12, and the greatest error of one is "
            f"{float(errors.max()):.1e}. A simulation takes {1e6 * one:,.0f} us alone and {1e6 * many:,.0f} us among "
            f"{contest.targets}.",
            f"Surrogate: {_NETWORK.hidden_layers} layers of {_NETWORK.hidden_width}, "
            f"{contest.epochs} epochs, {learnt:.0f} s of simulating and training; its mean squared error "
            f"is {held_out:.1e} on examples that it has not seen, and a target is given further starts until it is "
            f"believed to be met that well: in the median {statistics.median(tried.tolist()):g}, at most "
            f"{int(tried.max())}. Its r_1 is {float(missed.mean()) / best:.2g} times the best published one, and in "
            f"the median of the targets {float(missed.median()):.1e}.",
        ]
    )


def _time_call(task: Task, controls: Tensor) -> float:
    """Seconds of a core that a simulation takes, the median of some calls."""
    spent = []
    for _ in range(5):
        began = time.process_time()
        task(controls, controls[:, :0])
        spent.append((time.process_time() - began) / len(controls))
    return statistics.median(spent)


def _answer(
    contest: Contest, targets: Tensor, forward: Linearised, enough: float, examples: Dataset | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The best answer to every target by the forward map's own word, `(targets, n_controls)`; how many starts it took;
    and the squared errors that the first turn's starts end with.

    Args:
        enough: the squared error below which a target is given no further start.
        examples: where to begin; None: anywhere in the box.
    """
    task, none, generator = contest.task, targets[:, :0], torch.Generator().manual_seed(1)
    answers = torch.full((len(targets), len(task.box)), torch.nan, dtype=torch.float64)
    errors, taken = torch.full((len(targets),), torch.inf, dtype=torch.float64), torch.zeros(len(targets))
    left, first = torch.arange(len(targets)), None
    if examples is not None:
        nearest = torch.cdist(targets, examples.outcomes).topk(sum(contest.turns), largest=False).indices
        ranked = task.box.to_unit(examples.controls[nearest])
    for turn, together in enumerate(contest.turns):
        if examples is None:
            starts = torch.rand(len(left), together, len(task.box), generator=generator, dtype=torch.float64)
        else:
            starts, ranked = ranked[left, :together], ranked[:, together:]
        problem = InverseProblem(targets[left], none[left], task.box, task.distance, starts)
        maps = [*(Blurred(forward, width) for width in contest.blurs[turn % len(contest.blurs)]), forward]
        controls = solve_by_continuation(maps, problem, contest.solver, generator).controls
        # By the squared error, which is what is measured, and not by the greatest difference.
        found = (forward(controls, none[left, None]) - targets[left, None]).square().mean(-1)
        first = found if first is None else first
        least, best = found.min(-1)
        better = least < errors[left]
        errors[left[better]] = least[better]
        answers[left[better]] = controls[torch.arange(len(left)), best][better]
        taken[left] += together
        left = left[errors[left] > enough]
        if len(left) == 0:
            break
    assert first is not None
    return answers, taken, first


def _aim_off(contest: Contest, targets: Tensor, network: Linearised, answers: Tensor) -> Tensor:
    """Simulate answers and aim anew, from the best one at what the network says of it, less what it misses by.

    So the network is right there, and wrong nearby by no more than its derivatives are: the response correction of
    space mapping (Bandler et al., IEEE Transactions on Microwave Theory and Techniques 52, 337, 2004). Of a step that
    was none for the better half is taken.
    """
    task, none, generator = contest.task, targets[:, :0], torch.Generator().manual_seed(4)
    best, reached, share = answers, targets, torch.ones(len(targets), 1, dtype=torch.float64)
    least = torch.full_like(share, torch.inf)
    for _ in range(contest.corrections):
        outcomes = task(answers, none)
        errors = (outcomes - targets).square().mean(-1, keepdim=True)
        better = errors < least
        best, reached = torch.where(better, answers, best), torch.where(better, outcomes, reached)
        least, share = torch.minimum(errors, least), torch.where(better, (2 * share).clamp(max=1), share / 2)
        aims = network(best, none) + share * (targets - reached)
        problem = InverseProblem(aims, none, task.box, task.distance, task.box.to_unit(best)[:, None])
        answers = solve(network, problem, contest.solver, generator).controls[:, 0]
    return best


def _learn(contest: Contest, dataset: Dataset, folder: Path) -> Surrogate:
    """A network of the simulator, in float64."""
    training = _TRAINING.model_copy(update={"max_epochs": pick(contest.epochs, contest.epochs // 10)})
    network, _ = train_surrogate(dataset, contest.task, _NETWORK, training, 3, "cpu", folder)
    return network.double()
