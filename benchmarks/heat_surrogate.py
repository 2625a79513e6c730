"""Mosaic's conductivity recovery by networks in the place of the simulator, by the number of examples."""

import statistics
from functools import partial

import torch

from aimback.core.problem import InverseProblem
from aimback.data.dataset import simulate_dataset
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.heat import Heat
from benchmarks.break_even import settings_of, trained
from benchmarks.extent import pick
from benchmarks.heat import compute_error, make_targets
from benchmarks.tables import number, table

_EXAMPLES = pick((1000, 4000, 16_000), (1000,))
_DRAWN = 8  # targets
_STEPS = 30


def recovered_by_networks() -> str:
    """Markdown: a table."""
    task, targets = Heat(), make_targets()
    settings = settings_of("mlp")
    settings = settings.model_copy(
        update={"surrogate": settings.surrogate.model_copy(update={"hidden_width": 128, "hidden_layers": 3})}
    )
    solver = LevenbergMarquardt(max_steps=_STEPS)
    rows: list[list[str]] = []
    shares: list[float] = []
    for prior in ("box", "blobs"):
        drawing = Heat(prior=prior)
        fresh = drawing.draw_controls(500, torch.Generator().manual_seed(1))
        outcomes = task(fresh, fresh[:, :0])
        spread_of_outcomes = (outcomes - outcomes.mean(0)).square().mean().sqrt()
        for examples in _EXAMPLES:
            learn = partial(simulate_dataset, examples=examples, validation_fraction=0.1)
            kind = trained(drawing, learn, settings, 1)
            network = kind.surrogate
            with torch.no_grad():
                off = (network(fresh, fresh[:, :0]) - outcomes).square().mean().sqrt() / spread_of_outcomes
            drawn = outcomes[:_DRAWN]
            every = torch.cat([target.temperatures for target in targets] + [drawn])
            middle = torch.full((len(every), 1, 128), 0.5, dtype=torch.float64)
            starts = task.box.to_unit(middle)
            problem = InverseProblem(every, every[:, :0], task.box, task.distance, starts)
            found = solve(network, problem, solver, torch.Generator()).controls[:, 0]
            errors = compute_error(task(found, found[:, :0]), every)
            before = compute_error(task(middle[:, 0], every[:, :0]), every)
            shares.append(float((errors[2:] / before[2:]).median()))
            rows.append(
                [
                    f"{prior}, {number(examples)} examples",
                    f"{statistics.median(kind.seconds):.1f}",
                    f"{float(off):.1%}",
                    *(f"{float(error):.2e}" for error in errors[:2]),
                    f"{shares[-1]:.2g}",
                ]
            )
    head = ["drawn from", "training [s]", "error of the network", "published target", "consistent target"]
    head += ["drawn targets, error over that of the start"]
    return "\n\n".join(
        [
            "A network of 3 hidden layers of 128, trained as by default; its error is the "
            "root of the mean square over 500 fresh slabs, over their standard deviation; "
            f"{_STEPS} steps of `levenberg_marquardt` through it from 0.5, every answer simulated; "
            f"{_DRAWN} fresh slabs as targets, of which the median is told.",
            table(head, rows),
            f"With {number(_EXAMPLES[-1] / _EXAMPLES[0])} times the examples the error of the network falls from "
            f"{rows[0][2]} to {rows[len(_EXAMPLES) - 1][2]} where every cell is drawn by itself, and from "
            f"{rows[len(_EXAMPLES)][2]} to {rows[-1][2]} with blobs. Through the best of them the answers to drawn "
            f"targets keep {min(shares):.2g} of the error of the start, so none recovers the slab.",
        ]
    )
