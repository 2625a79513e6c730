"""What simulations are worth that a surrogate route spends on its own answers, beside as many drawn at random."""

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from aimback.core.ledger import Ledger
from aimback.core.problem import Status
from aimback.core.randomness import derive_seed, make_generator
from aimback.data.dataset import Dataset, simulate_dataset
from aimback.data.targets import Targets, draw_targets
from aimback.evaluate.judge import judge, resimulate
from aimback.learn.revision import Revision
from aimback.learn.surrogate import Surrogate
from aimback.learn.surrogate_training import train_surrogate
from aimback.settings.posing import pose_for_route
from aimback.settings.tree import Settings
from aimback.workflow.compose import compose_settings
from benchmarks.extent import pick
from benchmarks.rounds import spread
from benchmarks.tables import table

TASKS = pick(("cannon_drag", "robotic_arm", "sine_wave", "ballistics"), ("cannon_drag",))
_EXAMPLES, _TARGETS = 500, 100
_ROUNDS = (1, 2, 4)
_MEMBERS, _EXPLORATION = 5, 1.0
_SEEDS = pick(range(3), range(1))


@dataclass(frozen=True)
class Reached:
    """What a route came to: the share solved, the median miss in tolerances, and the simulations that it spent."""

    solved: float
    miss: float
    simulations: int


@dataclass(frozen=True)
class Trial:
    """A task's surrogate route with all settings the pipeline's own, from one seed.

    Args:
        folder: where trainings keep their checkpoints.
    """

    settings: Settings
    name: str
    folder: Path

    def learn(self, examples: int, times: int = 1) -> tuple[Dataset, Surrogate]:
        """A data set drawn at random, and its network, trained further on the same data so many times in all."""
        dataset = self.draw(examples)
        network = self.train(dataset, None, 0)
        for number in range(1, times):
            network = self.train(dataset, network, number)
        return dataset, network

    def draw(self, examples: int) -> Dataset:
        stream, settings = make_generator(self.settings.seed, self.name, f"dataset of {examples}"), self.settings
        fraction, jacobians = settings.data.validation_fraction, settings.learns_jacobians(self.name)
        return simulate_dataset(settings.tasks[self.name], examples, fraction, stream, jacobians=jacobians)

    def train(self, dataset: Dataset, begin: Surrogate | None, number: int) -> Surrogate:
        task, seed = self.settings.tasks[self.name], derive_seed(self.settings.seed, self.name, f"training {number}")
        network, training = self.settings.network_of("surrogate", self.name)
        return train_surrogate(dataset, task, network, training, seed, "cpu", self.folder, begin=begin)[0]

    def reach(
        self, targets: Targets, dataset: Dataset, network: Surrogate, rounds: int = 0, exploration: float = 0.0
    ) -> Reached:
        """Every answer is judged in the end, by simulations that are not counted."""
        task, examples = self.settings.tasks[self.name], len(dataset) + dataset.n_left_out
        route = self.settings.invert["surrogate"].model_copy(update={"rounds": rounds, "exploration": exploration})
        stream, ledger = partial(make_generator, self.settings.seed, self.name), Ledger(simulations=examples)
        problem, generator = pose_for_route(task, route, targets, stream, "cpu")
        revision = Revision(task, route, network.to(problem.targets), dataset, self.train, ledger)
        solution = revision.search(targets, problem, generator)
        answers = judge(task, targets, solution, resimulate(task, targets, solution, candidates=1))
        solved = float((answers.status == Status.SOLVED).double().mean())
        return Reached(solved, float(answers.miss.nanmedian()) / task.tolerance, ledger.simulations)


def learned_in_rounds() -> str:
    """Markdown: two tables."""
    rows, beside, last = [], [], []
    for name in TASKS:
        reached: dict[int, list[list[Reached]]] = {rounds: [] for rounds in (0, *_ROUNDS)}
        ensembles: dict[int, list[list[Reached]]] = {rounds: [] for rounds in reached}
        for seed in _SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                trial = Trial(read_trial_settings(name, seed), name, Path(folder))
                targets = draw_targets(trial.settings.tasks[name], _TARGETS, make_generator(seed, name, "targets"))
                first = trial.learn(_EXAMPLES)
                reached[0].append([trial.reach(targets, *first)])
                for rounds in _ROUNDS:
                    own = trial.reach(targets, *first, rounds)
                    rivals = [trial.learn(own.simulations, times) for times in (1, 1 + rounds)]
                    reached[rounds].append([own, *(trial.reach(targets, *rival) for rival in rivals)])
                trial = replace(trial, settings=read_trial_settings(name, seed, f"surrogate.members={_MEMBERS}"))
                first = trial.learn(_EXAMPLES)
                for rounds, seeds in ensembles.items():
                    seeds.append([trial.reach(targets, *first, rounds, factor) for factor in (0.0, _EXPLORATION)])
        for rounds, seeds in reached.items():
            spent, *cells = _tell([own for own, *_ in seeds])
            cells += [text for found in list(zip(*seeds, strict=True))[1:] for text in _tell(found)[1:]]
            rows.append([name, str(rounds), spent, *cells, *[""] * (6 - len(cells))])
            found = [[own for own, *_ in seeds], *zip(*ensembles[rounds], strict=True)]
            beside.append([name, str(rounds), *(text for one in found for text in _tell(one))])
        last.append([100 * statistics.median(one.solved for one in seeds) for seeds in found])
    alone, several, exploring = (statistics.mean(shares) for shares in zip(*last, strict=True))
    head = ["task", "rounds", "simulations a target"]
    for what in ("", ", random", ", random, trained as often"):
        head += [f"solved{what}", f"miss{what}"]
    head_beside = ["task", "rounds"]
    for what in ("", f", {_MEMBERS} members", f", {_MEMBERS} members, exploring"):
        head_beside += [f"simulations a target{what}", f"solved{what}", f"miss{what}"]
    return "\n\n".join(
        [
            f"The route `surrogate` with {_EXAMPLES} examples and {_TARGETS} targets, all else as by default; median "
            f"and range over {len(_SEEDS)} seeds. In a round the answers to open targets are simulated and learned "
            "from, by the same training from the weights that are there. Beside it is the same route without rounds, "
            "with as many examples drawn at random as that one has simulated in all, and once more with its network "
            "trained as often. The simulations that judge the answers in the end are counted for none. "
            "A miss is the median over targets, in tolerances.",
            table(head, rows),
            f"The same with an ensemble, `surrogate.members={_MEMBERS}`, all of which are trained in a round. Those "
            f"of its answers are simulated that it ranks first or, exploring, those of `exploration={_EXPLORATION:g}`. "
            f"After {_ROUNDS[-1]} rounds one network solves {alone:.0f} % in the mean over the tasks, the ensemble "
            f"{several:.0f} % and, exploring, {exploring:.0f} %.",
            table(head_beside, beside),
        ]
    )


def _tell(found: Sequence[Reached]) -> list[str]:
    spent = statistics.median(one.simulations for one in found) / _TARGETS
    return [f"{spent:.3g}", spread([100 * one.solved for one in found], " %"), spread([one.miss for one in found])]


def read_trial_settings(name: str, seed: int, *changes: str) -> Settings:
    return compose_settings(f"task=[{name}]", "routes=[surrogate]", f"seed={seed}", *changes)
