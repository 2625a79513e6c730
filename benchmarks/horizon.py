"""Chaos: how far ahead the direct route, smoothed or not, finds the start of a double pendulum, beside other routes."""

import math
import statistics
import tempfile
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from aimback.compile.compiler import Compiler
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem, Linearised
from aimback.data.dataset import simulate_dataset
from aimback.data.targets import draw_targets
from aimback.solve.cma_es import CmaEs
from aimback.solve.continuation import solve_by_continuation
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.look import compile_look
from aimback.solve.smoothed import smooth
from aimback.solve.smoothing_settings import Order, Smoothing
from aimback.solve.solver import Solver
from aimback.solve.starts import draw_evenly
from aimback.tasks.base import Task
from aimback.tasks.double_pendulum import DoublePendulum
from benchmarks.break_even import settings_of, trained
from benchmarks.extent import pick
from benchmarks.tables import number, table

_HORIZONS = pick((1.0, 2.0, 4.0, 8.0, 16.0, 24.0), (1.0, 4.0))  # s
_SEEDS, _TARGETS = pick(3, 1), 100
_ORDERS: tuple[Order, ...] = ("first", "zeroth", "switch")
_CHAOTIC = 2 * math.pi / 3  # rad, of both rods: starts beside it part from each other


class Compiled:
    """A simulator without conditions as one program, which tells outcomes and Jacobians at once."""

    def __init__(self, task: Task, folder: Path) -> None:
        point = torch.full((1, 1, len(task.box)), 0.5, dtype=torch.float64)
        self._nought = torch.zeros(1, len(task.outcomes), dtype=torch.float64)
        problem = InverseProblem(self._nought, self._nought[:, :0], task.box, task.distance, point)
        self._look = compile_look(Counted(task, Ledger(), simulates=True), problem, Compiler(folder, repr(vars(task))))
        self._task = task

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self.linearise(controls, conditions)[0]

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        box, scales, rows = self._task.box, self._task.distance.scales, controls.shape[:-1]
        unit = box.to_unit(controls).flatten(0, -2)
        point = self._look(unit, unit[:, :0], self._nought.expand(len(unit), -1))
        outcomes, jacobians = point.residual * scales, point.jacobian * scales[:, None] / (box.upper - box.lower)
        return outcomes.unflatten(0, rows), jacobians.unflatten(0, rows)


def solved_by_horizon() -> str:
    """Markdown: two tables, and where the direct route stops winning."""
    generator = torch.Generator().manual_seed(0)
    anywhere = DoublePendulum().box.sample(1000, generator)
    chaotic = _CHAOTIC + torch.rand(64, 2, generator=generator, dtype=torch.float64) / 50
    growth, shares, lost = [], [], []
    gone, logs = 0.0, torch.zeros(2, dtype=torch.float64)
    for horizon in _HORIZONS:
        task = DoublePendulum(horizon=horizon)
        with tempfile.TemporaryDirectory() as folder:
            forward = Compiled(task, Path(folder))
            values = [torch.linalg.svdvals(forward.linearise(at, at[:, :0])[1])[:, 0] for at in (anywhere, chaotic)]
            solved, cost = _solve_by_routes(task, forward)
        ends = values[0].quantile(torch.tensor([0.5, 0.9], dtype=torch.float64)).tolist()
        now = torch.stack([part.log().mean() for part in values])
        rates = ((now - logs) / (horizon - gone)).tolist()
        growth.append([f"{horizon:g}", *map(number, ends), *(f"{rate:.2f}" for rate in rates)])
        gone, logs = horizon, now
        means = {name: statistics.mean(each) for name, each in solved.items()}
        best = max((name for name in means if name not in ("direct", "finer")), key=lambda name: means[name])
        if means["direct"] <= means[best]:
            lost.append(f"{horizon:g} s ({best})")
        told = {name: f"{means[name]:.0%} ({min(each):.0%} to {max(each):.0%})" for name, each in solved.items()}
        shares.append([f"{horizon:g}", *("; ".join([told[name], *cost.get(name, [])]) for name in told)])
    stops = f"is met or beaten at {', '.join(lost)}" if lost else "solves the most at every horizon"
    return "\n\n".join(
        [
            "`double_pendulum`, the default but for the horizon. The greatest singular value of the Jacobian in m/rad, "
            "of 1000 controls drawn evenly. Its growth since the horizon before is that of the mean logarithm, over "
            f"these and over 64 starts beside {_CHAOTIC:.2f} rad, where it tends to the Lyapunov exponent.",
            table(["horizon [s]", "median", "nine in ten below", "growth [1/s]", "of chaotic starts [1/s]"], growth),
            f"The share solved of {_TARGETS} reachable targets, its mean and range over {_SEEDS} draws of targets and "
            "starts, and the simulations a target. Direct: `levenberg_marquardt` from 8 starts, the default, or from "
            "one. First, zeroth, switch: from one start too, through the pendulum smoothed by 8 samples with sigmas of "
            "0.1 and 0.03, at most 30 steps each, then through itself. CMA-ES: 100 generations from one start. "
            "Surrogate: the default one, trained once a horizon, from 8 starts; its simulations are examples. Finer: "
            "what of the direct answers still hits when simulated by steps half as long.",
            table(["horizon [s]", *solved], shares),
            f"The direct route from 8 starts {stops}.",
        ]
    )


def _solve_by_routes(task: DoublePendulum, forward: Linearised) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """The share of targets that each route solves, by seed, and the simulations that it takes a target."""
    settings = settings_of("mlp")
    learn = partial(simulate_dataset, examples=settings.data.examples, validation_fraction=0.1)
    network = trained(task, learn, settings, 1).surrogate
    solved: dict[str, list[float]] = defaultdict(list)
    ledgers: dict[str, Ledger] = defaultdict(Ledger)
    for seed in range(_SEEDS):
        generator = torch.Generator().manual_seed(seed)
        wanted = draw_targets(task, _TARGETS, generator)
        starts = draw_evenly(_TARGETS, settings.starts.number, len(task.box), generator)
        many = InverseProblem(wanted.targets, wanted.conditions, task.box, task.distance, starts)
        one, short = replace(many, starts=starts[:, :1]), LevenbergMarquardt(max_steps=30)
        ways: dict[str, tuple[InverseProblem, Solver]] = {
            "direct": (many, settings.solver),
            "direct, one start": (one, settings.solver),
            **dict.fromkeys(_ORDERS, (one, short)),
            "CMA-ES": (one, CmaEs()),
            "surrogate": (many, settings.solver),
        }
        for name, (problem, solver) in ways.items():
            last = network if name == "surrogate" else Counted(forward, ledgers[name], simulates=True)
            smoothing = [
                Smoothing(sigmas=[0.1, 0.03], samples=8, order=name, blurs=[]) for order in _ORDERS if order == name
            ]
            maps = [easier for each in smoothing for easier in smooth(last, task.box, each, generator)]
            solution = solve_by_continuation([*maps, last], problem, solver, generator)
            answers = solution.controls[torch.arange(_TARGETS), solution.best()]
            for label, simulator in ((name, task), ("finer", task.finer(2))):
                if name in (label, "direct"):
                    miss = task.distance.measure(simulator(answers, wanted.conditions) - wanted.targets)
                    solved[label].append(float((miss <= task.tolerance).double().mean()))
    ledgers["surrogate"].simulations = settings.data.examples * _SEEDS
    return solved, {name: [f"{ledger.simulations / _SEEDS / _TARGETS:,.0f}"] for name, ledger in ledgers.items()}
