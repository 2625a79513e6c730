"""Inverting a trained network: steps of second order against the usual steps of Adam."""

import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch

from aimback.compile.compiler import Compiler
from aimback.core.problem import InverseProblem
from aimback.data.dataset import simulate_dataset
from aimback.data.targets import draw_targets
from aimback.solve.adam import Adam
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.solver import Solver
from aimback.solve.starts import draw_evenly
from benchmarks.break_even import settings_of, trained
from benchmarks.rounds import in_turns, one_core, ratio
from benchmarks.tables import number, table

_TARGETS = 1000
_STARTS = 2
_STEPS = 300
_ROUNDS = 5
_FINEST = 1e-12  # of the span: what Adam is to come as near to as it can in its steps
_ASKED = 30


def second_order_against_adam() -> str:
    """Markdown: a table."""
    settings = settings_of("mlp")
    (task,) = settings.tasks.values()
    examples = partial(
        simulate_dataset, examples=settings.data.examples, validation_fraction=settings.data.validation_fraction
    )
    network = trained(task, examples, settings, 1).surrogate
    wanted = draw_targets(task, _TARGETS, torch.Generator().manual_seed(1))
    starts = draw_evenly(_TARGETS, _STARTS, len(task.box), torch.Generator().manual_seed(2))
    problem = InverseProblem(wanted.targets, wanted.conditions, task.box, task.distance, starts)

    def inverted(solver: Solver, compiler: Compiler | None = None) -> float:
        """The median over targets of the best start's miss, by the network's own word."""
        solution = solve(network, problem, solver, torch.Generator().manual_seed(2), compiler=compiler)
        return float(solution.believed_miss.amin(-1).median())

    with one_core(), tempfile.TemporaryDirectory() as folder:
        adam = Adam(max_steps=_STEPS, precision=_FINEST)
        reached = inverted(adam)
        second = LevenbergMarquardt(precision=max(_FINEST, reached / task.distance.span))
        compiler = Compiler(Path(folder), "mlp")
        ways = {
            f"Adam, {_STEPS} steps": partial(inverted, adam),
            "Levenberg-Marquardt": partial(inverted, second),
            "Levenberg-Marquardt, compiled": partial(inverted, second, compiler),
        }
        misses = {name: way() for name, way in ways.items()}
        seconds = in_turns(ways, _ROUNDS)
    first = next(iter(ways))
    rows = [
        [
            name,
            number(misses[name]),
            number(1e6 * statistics.median(seconds[name]) / _TARGETS),
            "" if name == first else ratio(seconds, first, name),
        ]
        for name in ways
    ]
    return "\n\n".join(
        [
            f"The default network for cannon_drag, speed and angle, {_TARGETS} targets at once, {_STARTS} starts each. "
            f"The second-order steps end where the miss is that of Adam's median; asked: at least {_ASKED} x.",
            table(["", "median miss of the best start [m]", "us a target", "times as fast as Adam"], rows),
        ]
    )
