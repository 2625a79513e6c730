"""From how many targets on a surrogate pays, as the simulator gets dearer."""

import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aimback.core.problem import InverseProblem, Linearised, Solution
from aimback.data.dataset import simulate_dataset
from aimback.data.targets import Targets, draw_targets
from aimback.learn.surrogate import Surrogate
from aimback.learn.surrogate_training import train_surrogate
from aimback.report.costs import break_even_targets
from aimback.settings.tree import Settings
from aimback.solve.multistart import solve
from aimback.solve.starts import draw_evenly
from aimback.tasks.base import Task
from aimback.workflow.compose import compose_settings
from benchmarks.figures import plot_break_even
from benchmarks.rounds import in_turns, one_core
from benchmarks.tables import number, table

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("mlp", "second_order")
PRICES = (1, 10, 100)
TARGETS = 1000
ROUNDS = 3
_PATIENCE = 15.0


class Dear:
    """A simulator that does everything so many times."""

    def __init__(self, task: Task, times: int) -> None:
        self._task, self._times = task, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        for _ in range(self._times):
            outcome = self._task(controls, conditions)
        return outcome

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(self._times):
            both = self._task.linearise(controls, conditions)
        return both


@dataclass(frozen=True)
class Kind:
    """A surrogate, trained.

    Attributes:
        seconds: of the trainings, by round.
        surrogate: the last one.
    """

    seconds: list[float]
    surrogate: Surrogate


def break_even_by_price(
    prices: Sequence[int] = PRICES, kinds: Sequence[str] = KINDS, targets: int = TARGETS, rounds: int = ROUNDS
) -> str:
    """Markdown: a table and a figure."""
    there = [kind for kind in kinds if (ROOT / "conf" / "surrogate" / f"{kind}.yaml").exists()]
    settings = {kind: settings_of(kind) for kind in there}
    first = settings[there[0]]
    (task,) = first.tasks.values()
    examples = partial(
        simulate_dataset, examples=first.data.examples, validation_fraction=first.data.validation_fraction
    )
    wanted = draw_targets(task, targets, torch.Generator().manual_seed(1))
    rows: list[list[str]] = []
    costs: dict[str, list[tuple[float, float]]] = {}
    with one_core():
        networks = {kind: trained(task, examples, settings[kind], rounds) for kind in there}
        for price in prices:
            dear = Dear(task, price)
            work = {
                "generate": lambda dear=dear: examples(dear, generator=torch.Generator().manual_seed(0)),
                "direct": lambda dear=dear: _solve(dear, task, wanted, first),
            }
            for kind in there:
                network = networks[kind].surrogate
                work[kind] = lambda network=network: _solve(network, task, wanted, first)
            seconds = in_turns(work, rounds, warm_up=price == 1, patience=_PATIENCE)
            each = {name: [spent / targets for spent in seconds[name]] for name in work}
            costs.setdefault("direct", []).append((0.0, statistics.median(each["direct"])))
            for kind in there:
                fixed = [sum(parts) for parts in zip(seconds["generate"], networks[kind].seconds, strict=False)]
                repaid = [break_even_targets(*terms) for terms in zip(fixed, each[kind], each["direct"], strict=False)]
                costs.setdefault(kind, []).append((statistics.median(fixed), statistics.median(each[kind])))
                rows.append(
                    [
                        kind,
                        str(price),
                        number(statistics.median(seconds["generate"])),
                        number(statistics.median(networks[kind].seconds)),
                        number(1e6 * statistics.median(each[kind])),
                        number(1e6 * statistics.median(each["direct"])),
                        _repaid(repaid),
                    ]
                )
    solved = {"direct": _solved_share(task, wanted, _solve(task, task, wanted, first))}
    solved |= {
        kind: _solved_share(task, wanted, _solve(networks[kind].surrogate, task, wanted, first)) for kind in there
    }
    head = [
        "surrogate",
        "price of a simulation",
        "generate [s]",
        "train [s]",
        "surrogate, us a target",
        "direct, us a target",
        "pays from so many targets on",
    ]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in solved.items())
    return "\n\n".join(
        [
            f"cannon_drag, speed and angle, all settings the pipeline's own: {first.data.examples} examples, "
            f"{first.starts.number} starts a target. A dearer simulator does every evaluation so "
            f"many times. Times a target are those of {targets} at once. Share of these "
            f"targets within {task.tolerance:g} m when simulated again: {shares}.",
            table(head, rows),
            plot_break_even("break_even.png", [f"simulator at {price} x the price" for price in prices], costs),
        ]
    )


def settings_of(kind: str, task: str = "cannon_drag") -> Settings:
    training = kind if (ROOT / "conf" / "training" / f"{kind}.yaml").exists() else "default"
    return compose_settings(f"task=[{task}]", f"surrogate={kind}", f"training={training}")


def trained(task: Task, examples: Any, settings: Settings, rounds: int) -> Kind:
    data = examples(task, generator=torch.Generator().manual_seed(0))
    made: list[Surrogate] = []

    def train() -> None:
        with tempfile.TemporaryDirectory() as folder:
            made.append(train_surrogate(data, task, settings.surrogate, settings.training, 0, "cpu", Path(folder))[0])

    seconds = in_turns({"train": train}, rounds, warm_up=False, patience=_PATIENCE)
    return Kind(seconds["train"], made[-1].double())


def _solve(forward: Linearised, task: Task, targets: Targets, settings: Settings) -> Solution:
    starts = draw_evenly(len(targets), settings.starts.number, len(task.box), torch.Generator().manual_seed(2))
    problem = InverseProblem(targets.targets, targets.conditions, task.box, task.distance, starts)
    return solve(forward, problem, settings.solver, torch.Generator().manual_seed(2))


def _solved_share(task: Task, targets: Targets, solution: Solution) -> float:
    answers = solution.controls[torch.arange(len(targets)), solution.best()]
    with torch.no_grad():
        miss = task.distance.measure(task(answers, targets.conditions) - targets.targets)
    return float((miss <= task.tolerance).double().mean())


def _repaid(counts: Sequence[float]) -> str:
    middle = statistics.median(counts)
    if math.isinf(middle):
        return "never: the direct route is no dearer a target"
    return f"{number(middle)} ({number(min(counts))} to {number(max(counts))})" if len(counts) > 1 else number(middle)
