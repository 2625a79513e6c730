"""What Jacobians of the simulator are worth to a surrogate route, beside as many simulations without them."""

import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from aimback.core.randomness import make_generator
from aimback.data.dataset import Dataset, simulate_dataset
from aimback.data.targets import Targets, draw_targets
from aimback.learn.surrogate import Surrogate
from aimback.settings.tree import Settings
from aimback.tasks.base import Task
from benchmarks.extent import pick
from benchmarks.refitting import Reached, Trial, read_trial_settings
from benchmarks.rounds import clock, spread
from benchmarks.tables import number, table

_ALL = ("cannon_drag", "ballistics", "robotic_arm", "sine_wave", "ball_with_wall", "bouncing_ball")
TASKS, _SEEDS = pick(_ALL, ("cannon_drag", "bouncing_ball")), pick(range(3), range(1))
_EXAMPLES, _TARGETS, _HELD_OUT = (200, 2000), 100, 1000
_STEPS, _BATCH = 600, 256
_PRICED = 1000


@dataclass(frozen=True)
class Learned:
    """A network's forward error over the spread of the outcomes, what its route came to, and the seconds it took."""

    error: float
    reached: Reached
    seconds: float


def learned_with_and_without() -> str:
    """Markdown: a table."""
    rows, slower = [], []
    for name in TASKS:
        trials = [read_trial_settings(name, seed, f"training.batch_size={_BATCH}") for seed in _SEEDS]
        task = trials[0].tasks[name]
        given = []
        for settings in trials:
            stream = make_generator(settings.seed, name, "targets")
            given.append((draw_targets(task, _TARGETS, stream), simulate_dataset(task, _HELD_OUT, 0.5, stream)))
        for examples in _EXAMPLES:
            asked = (examples, 0.0), (examples, 1.0), ((1 + len(task.box)) * examples, 0.0)
            found = [
                [_learn(settings, name, *one, *beside) for settings, beside in zip(trials, given, strict=True)]
                for one in asked
            ]
            slower += [own.seconds / plain.seconds for plain, own in zip(found[0], found[1], strict=True)]
            cells = [
                text
                for one in found
                for text in (
                    spread([100 * learned.error for learned in one], " %"),
                    spread([100 * learned.reached.solved for learned in one], " %"),
                    spread([learned.reached.miss for learned in one]),
                )
            ]
            rows.append([name, str(len(task.box)), number(_price(task)), str(examples), *cells])
    head = ["task", "controls", "price", "N"]
    for what in ("N", "N with Jacobians", "(1 + controls) N"):
        head += [f"error, {what}", "solved", "miss"]
    return "\n\n".join(
        [
            f"The route `surrogate`, its network and search as by default, trained for about {_STEPS} steps of at most "
            f"{_BATCH} examples; {_TARGETS} targets; median and range over {len(_SEEDS)} seeds. With N examples, with "
            "N and `training.jacobian_weight=1`, and with as many plain examples as simulations that N with one-sided "
            "differences take. Price: the time of a simulation with its exact Jacobian over that of one without, one "
            f"thread. Error: root mean square over {_HELD_OUT} further examples, over the spread of their outcomes. A "
            "miss is the median over targets, in tolerances, by new simulations. A training with Jacobians took "
            f"{spread(slower, ' x')} as long as one of as many steps without.",
            table(head, rows),
            "The last two tasks are there to lose: the distance of `ball_with_wall` jumps, and the naive contact of "
            "`bouncing_ball` gives its Jacobian the wrong sign. Where a Jacobian does not tell how the outcome "
            "changes, a network that has to fit both fits neither; claim C7 says of a simulator whether it tells.",
        ]
    )


def _learn(settings: Settings, name: str, examples: int, weight: float, targets: Targets, held_out: Dataset) -> Learned:
    section = settings.train["surrogate"]
    steps_an_epoch = math.ceil(examples * (1 - settings.data.validation_fraction) / _BATCH)
    changes = {"jacobian_weight": weight, "max_epochs": max(1, round(_STEPS / steps_an_epoch))}
    section = section.model_copy(update={"training": section.training.model_copy(update=changes)})
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(settings.model_copy(update={"train": {"surrogate": section}}), name, Path(folder))
        dataset = trial.draw(examples)
        began = time.process_time()
        network = trial.train(dataset, None, 0)
        seconds = time.process_time() - began
        return Learned(_measure_error(network, held_out), trial.reach(targets, dataset, network), seconds)


def _measure_error(network: Surrogate, held_out: Dataset) -> float:
    outcomes = held_out.outcomes
    error = network.double()(held_out.controls, held_out.conditions) - outcomes
    return float((error.square().sum() / (outcomes - outcomes.mean(0)).square().sum()).sqrt())


def _price(task: Task) -> float:
    controls = task.box.sample(_PRICED, torch.Generator().manual_seed(0))
    given = task.conditions.sample(_PRICED, torch.Generator().manual_seed(1))
    turns = [(clock(lambda: task.linearise(controls, given)), clock(lambda: task(controls, given))) for _ in range(7)]
    return statistics.median(both / alone for both, alone in turns)
