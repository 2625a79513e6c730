"""Several routes on the same targets, from the same starts: which one to choose for a function."""

import html
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aimback.core.errors import UserError
from aimback.core.hardware import device_name, peak_memory
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import Linearised, Solution
from aimback.core.randomness import derive_seed, make_generator
from aimback.data.dataset import simulate_dataset
from aimback.data.targets import Targets, draw_targets
from aimback.evaluate.judge import find_reachable, judge, resimulate
from aimback.evaluate.metrics import measure
from aimback.library.answer import Answer, make_table
from aimback.library.wish import Wish, read_wish
from aimback.report.costs import list_metrics
from aimback.report.result import TaskResult, list_routes
from aimback.report.rows import table
from aimback.report.verdict import verdict, winner
from aimback.settings.limits import check_limits
from aimback.settings.posing import Proposals, pose_for_route, search
from aimback.settings.tree import Inversion, Optimisation, Refinement, Settings
from aimback.solve.smoothed import smooth
from aimback.tasks.base import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class Comparison:
    """What each route made of the same targets.

    Attributes:
        answers: by route.
        result: as the report of a pipeline has it.
        simulations: all cases that the function was asked for: to find out about it, to draw targets, to train, to
            solve, and to simulate the answers again.
    """

    answers: Mapping[str, Answer]
    result: TaskResult
    simulations: int

    @property
    def verdict(self) -> str:
        """Who wins, by how much, at what cost; a sentence a line."""
        return verdict(self.result)

    @property
    def winner(self) -> str | None:
        """The route to choose; None for a tie, and where none solves anything."""
        return winner(self.result)

    def __getitem__(self, route: str) -> Answer:
        return self.answers[route]

    def to_frame(self) -> "DataFrame":
        """A row a route, a column a measure, by the names that the pipeline's metrics have."""
        from pandas import DataFrame

        frame = DataFrame([list_metrics(self.result, route) for route in self.answers], index=list(self.answers))
        return frame.rename_axis("route")

    def plot(self) -> "Figure":
        """How many targets each route misses by at most so much, as a figure of matplotlib."""
        from aimback.report.sketch import sketch_misses

        misses = {route: answer.judged.miss for route, answer in self.answers.items()}
        return sketch_misses(misses, self.result.unit, self.result.tolerance)

    def __repr__(self) -> str:
        return self.verdict

    def _repr_html_(self) -> str:
        lines = [[row.label, *row.cells] for row in table(self.result)]
        said = html.escape(self.verdict).replace("\n", "<br>")
        return f"<p>{said}</p>{make_table(['', *self.answers], lines)}"


def compare(
    f: Task | Callable[..., Any],
    controls: Mapping[str, Any] | None = None,
    targets: Any = None,
    tolerance: float | None = None,
    *,
    routes: Sequence[str] = ("surrogate", "direct"),
    conditions: Mapping[str, Any] | None = None,
    outcomes: Mapping[str, Any] | Sequence[str] | str | None = None,
    derivatives: str = "auto",
    settings: Sequence[str] = (),
    seed: int = 0,
) -> Comparison:
    """Solve the same targets by several routes, and say which one to choose.

    What `invert` does with its arguments holds here too. All settings are those that the pipeline begins with: the
    surrogate route simulates 10,000 examples and trains a network on them.

    Args:
        targets: None: outcomes of random controls, `data.targets` of them; conditions are then ranges.
        routes: names in conf/routes, each with those that it needs beside it.
        settings: what is to be different, as typed after the command: "data.examples=2000", "solver=adam".
        seed: of everything that is drawn.

    Raises:
        UserError: in one line, what is wrong or missing, or that f cannot be called so.
    """
    from aimback.workflow.defaults import check_choices, read_defaults  # Hydra, which `invert` does without

    if isinstance(routes, str) or not routes:
        raise UserError('routes: give a list of names, e.g. ("surrogate", "direct")')
    check_choices("routes", list(routes))
    chosen = read_defaults(*settings, f"routes=[{','.join(routes)}]", f"seed={seed}")
    if asking := [name for name, route in chosen.invert.items() if route.rounds or route.calibration]:
        raise UserError(f"invert.{asking[0]}: rounds and calibration are for projects, see `aimback init`; choose 0")
    wish = read_wish(f, controls, targets, tolerance, conditions, outcomes, derivatives)
    chosen = chosen.model_copy(update={"tasks": {wish.name: wish.task}})
    with tempfile.TemporaryDirectory() as folder:  # a training keeps its checkpoints somewhere
        return _Contest(wish, chosen, Path(folder)).decide()


@dataclass
class _Contest:
    """What the stages of the pipeline do, one after the other, in memory; their meters too.

    Attributes:
        drawn: simulations that belong to no route.
    """

    wish: Wish
    settings: Settings
    folder: Path
    meters: dict[str, dict[str, Any]] = field(default_factory=dict)
    drawn: Ledger = field(default_factory=Ledger)

    def decide(self) -> Comparison:
        wish, settings, task = self.wish, self.settings, self.wish.task
        check_limits(settings, settings.tasks)
        device, hardware = settings.hardware.device(), settings.hardware
        targets = wish.targets
        if targets is None:
            stream = self.make_stream("targets")
            targets = draw_targets(
                task, settings.data.count_targets(task), stream, device, hardware.torch_dtype, self.drawn
            )
        asked, again = targets.only_valid().once()
        networks = self.train()
        found: dict[str, tuple[Solution, Ledger]] = {}
        for name, inversion in settings.invert.items():
            ledger, training = Ledger(), settings.network_of(inversion.network, wish.name)[1]
            examples = settings.count_examples(wish.name)
            ledger.enter_examples(task, examples, jacobians=training.learns_jacobians)
            network = networks[inversion.network].to(device, inversion.torch_dtype)
            forward = Counted(network, ledger, simulates=False)
            found[name] = self.solve(f"invert-{name}", inversion, asked, forward), ledger
        for name, optimisation in settings.optimise.items():
            ledger = Ledger()
            forward = Counted(task, ledger, simulates=True, limit=settings.budget.simulations)
            before = smooth(forward, task.box, optimisation.smoothing, self.make_stream("smoothing"))
            found[name] = self.solve(f"optimise-{name}", optimisation, asked, forward, before), ledger
        proposers = self.amortise()
        for name, refinement in settings.refine.items():
            proposer, spent = proposers[refinement.network]
            ledger = Ledger(**vars(spent))
            route = refinement.stop_where(settings.amortise[refinement.network].refine, task)
            forward = Counted(task, ledger, simulates=True, limit=settings.budget.simulations)
            proposer = proposer.to(device, route.torch_dtype)
            found[name] = self.solve(f"refine-{name}", route, asked, forward, propose=proposer), ledger
        return self.judge(targets, {name: (solution.of(again), ledger) for name, (solution, ledger) in found.items()})

    def train(self) -> dict[str, Any]:
        """The networks of surrogate routes, by route."""
        if not self.settings.train:
            return {}
        from aimback.learn.surrogate_training import train_surrogate  # Lightning takes seconds to import

        settings, task, hardware = self.settings, self.wish.task, self.settings.hardware
        data, device, trained = settings.data, hardware.device(), {}
        examples, jacobians = settings.count_examples(self.wish.name), settings.learns_jacobians(self.wish.name)
        with self.meter("generate"):
            stream, dtype = self.make_stream("dataset"), hardware.torch_dtype
            dataset = simulate_dataset(
                task, examples, data.validation_fraction, stream, device, dtype, jacobians=jacobians
            )
        self.drawn.enter_examples(task, examples, jacobians=jacobians)
        for route in settings.train:
            network, training = settings.network_of(route, self.wish.name)
            with self.meter(f"train-{route}"):
                trained[route], _ = train_surrogate(
                    dataset, task, network, training, self.derive("training"), device.type, self.folder / route
                )
        return trained

    def amortise(self) -> dict[str, tuple[Any, Ledger]]:
        """The networks of hybrid routes and what their training has spent, by route."""
        if not self.settings.amortise:
            return {}
        from aimback.learn.proposer_training import train_proposer

        task, hardware, trained = self.wish.task, self.settings.hardware, {}
        device, dtype = hardware.device(), hardware.torch_dtype
        for route, hybrid in self.settings.amortise.items():
            ledger = Ledger()
            with self.meter(f"amortise-{route}"):
                count = hybrid.count_targets(task) + hybrid.validation_targets
                targets = draw_targets(task, count, self.make_stream("targets of the proposer"), device, dtype, ledger)
                ledger.training_examples = ledger.simulations
                proposer, _, _ = train_proposer(
                    task,
                    targets,
                    hybrid,
                    ledger,
                    self.derive("training of the proposer"),
                    device.type,
                    dtype,
                    self.folder / route,
                )
            trained[route] = proposer, ledger
        return trained

    def solve(
        self,
        meter: str,
        route: Inversion | Optimisation | Refinement,
        targets: Targets,
        forward: Counted,
        before: Sequence[Linearised] = (),
        propose: Proposals | None = None,
    ) -> Solution:
        device = self.settings.hardware.device()
        with self.meter(meter):
            problem, stream = pose_for_route(self.wish.task, route, targets, self.make_stream, device, propose)
            return search(route, [*before, forward], problem, stream)

    def judge(self, targets: Targets, found: Mapping[str, tuple[Solution, Ledger]]) -> Comparison:
        wish, task, device = self.wish, self.wish.task, self.settings.hardware.device()
        again = Ledger()
        truths = {
            name: resimulate(task, targets, solution, device, candidates=1, ledger=again)
            for name, (solution, _) in found.items()
        }
        judged = {name: judge(task, targets, solution, truths[name]) for name, (solution, _) in found.items()}
        reachable = find_reachable(judged.values())
        metrics = {
            name: measure(task, targets, solution, truths[name], judged[name], ledger, reachable)
            for name, (solution, ledger) in found.items()
        }
        routes = list_routes(self.settings)
        result = TaskResult(wish.name, routes, task.miss_unit, task.tolerance, metrics, self.meters, [], [], [], {})
        answers = {
            name: Answer(wish, targets, solution, judged[name], ledger, self.meters[routes[name].solving]["seconds"])
            for name, (solution, ledger) in found.items()
        }
        # The examples of a surrogate route are in the ledger of each, and were simulated once.
        own = sum(ledger.simulations for name, (_, ledger) in found.items() if name not in self.settings.invert)
        total = wish.probing + self.drawn.simulations + own + again.simulations
        return Comparison(answers, result, total)

    def make_stream(self, purpose: str) -> torch.Generator:
        return make_generator(self.settings.seed, self.wish.name, purpose)

    def derive(self, purpose: str) -> int:
        return derive_seed(self.settings.seed, self.wish.name, purpose)

    @contextmanager
    def meter(self, name: str) -> Iterator[None]:
        device = self.settings.hardware.device()
        began = time.perf_counter()
        yield
        seconds, memory = time.perf_counter() - began, peak_memory(device)
        self.meters[name] = {"seconds": seconds, "peak_memory_bytes": memory, "device": device_name(device)}
