"""All figures of a task: what they show is worked out once, to be played with and as stills of the same panels."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aimback.core.errors import OverBudgetError
from aimback.core.files import write_text
from aimback.core.problem import Linearised, Solution
from aimback.data.targets import Targets
from aimback.evaluate.metrics import follow_descents
from aimback.evaluate.tables import Array
from aimback.report import interactive, takeaways
from aimback.report.canvas import COLOURS, LINES
from aimback.report.captions import KINDS
from aimback.report.stills import plot_panels
from aimback.report.sweep import plot_sweep, view_sweep
from aimback.report.views import (
    spread_targets,
    to_array,
    view_goals,
    view_landscape,
    view_trajectories,
)
from aimback.solve.solver import Solver
from aimback.tasks.base import Task

# All that a task may have, in the order in which they are drawn: its panels, and what they come down to.
FIGURES: dict[str, tuple[Callable[..., list[interactive.Panel]], Callable[..., str]]] = {
    "surfaces": (interactive.draw_surfaces, takeaways.tell_surfaces),
    "sweep": (interactive.draw_sweep, takeaways.tell_sweep),
    "trajectories": (interactive.draw_trajectories, takeaways.tell_trajectories),
    "loss": (interactive.draw_loss, takeaways.tell_loss),
    "r_t": (interactive.draw_r_t, takeaways.tell_r_t),
    "miss": (interactive.draw_misses, takeaways.tell_misses),
    "training": (interactive.draw_training, takeaways.tell_training),
    "belief": (interactive.draw_belief, takeaways.tell_belief),
    "iterations": (interactive.draw_iterations, takeaways.tell_iterations),
    "basins": (interactive.draw_basins, takeaways.tell_basins),
    "conditioning": (interactive.draw_conditioning, takeaways.tell_conditioning),
    "gradients": (interactive.draw_gradients, takeaways.tell_gradients),
    "fidelity": (interactive.draw_fidelity, takeaways.tell_fidelity),
}


def draw_figures(
    folder: Path,
    live: Path,
    name: str,
    task: Task,
    *,
    surrogate: Linearised | None,
    targets: Targets,
    solutions: Mapping[str, Solution],
    compared: Mapping[str, str],
    misses: Mapping[str, Tensor],
    r_t: Mapping[str, Array],
    training: Mapping[str, Array],
    pictures: Mapping[str, Mapping[str, Array]],
    solver: Solver,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
    budget: int | None = None,
) -> list[str]:
    """Draw all figures of a task that apply to it; without a simulator, how its network has learned.

    Args:
        folder: where the still figures go (PNG), and the one that moves (GIF).
        live: where the interactive ones go (JSON).
        name: the task's name, for the titles.
        task: the simulator.
        surrogate: the trained network; None where there is none.
        targets: the valid targets, in the order of the solutions.
        solutions: by route, with the history of their first targets; on the CPU.
        compared: the route of each kind whose descents are compared.
        misses: by route, the miss of each target's answer, `(n_targets,)`; not finite where there is none.
        r_t: by route, `(n_candidates, 5)`: T, mean, lower quartile, median and upper quartile.
        training: columns of the training history: "step", "train_loss", "validation_loss"; empty without a network.
        pictures: by figure, the arrays of `evidence.PICTURES`; those of claims that were not examined are left out.
        solver: how the moving figure's descents are made.
        generator: of their starts.
        progress: told 1 after each figure.
        budget: simulations for all of them; a figure that would take more than is left is left out. None: no bound.

    Returns:
        The figures' names, in the order in which they were drawn.
    """
    drawn: list[str] = []

    def show(figure: str, *content: Any) -> None:
        draw, tell = FIGURES[figure]
        panels = draw(*content)
        if figure == "sweep":
            plot_sweep(folder / "sweep.gif", name, *content)
        else:
            plot_panels(folder / f"{figure}.png", f"{name}: {KINDS[figure].title}", panels)
        write_text(live / f"{figure}.json", interactive.to_json(panels, tell(*content)) + "\n")
        drawn.append(figure)
        if progress is not None:
            progress(1)

    unit, tolerance = task.miss_unit, task.tolerance
    for route in solutions:  # the order in which routes get their looks
        _ = COLOURS[route], LINES[route]
    task.allow(budget)
    if len(targets) and task.has_simulator:
        most = None if budget is None else budget // (4 * len(solutions))
        descents = {route: follow_descents(task, targets, one, most=most) for route, one in solutions.items()}
        if surrogate is not None:
            with contextlib.suppress(OverBudgetError):
                show("surfaces", view_landscape(task, surrogate, targets, solutions, compared))
            with contextlib.suppress(OverBudgetError):
                show("sweep", view_sweep(task, surrogate, targets, solver, generator))
        shown = spread_targets(targets)
        paths = view_trajectories(task, targets, solutions, shown)
        if paths is not None:
            missed = {route: to_array(miss[shown]) for route, miss in misses.items()}
            first = compared.get("direct", next(iter(solutions)))
            goals = view_goals(task, targets, solutions[first], paths[first], shown)
            show("trajectories", paths, goals, missed, task.outcomes.axes[0].unit, unit)
        losses, true = ({route: to_array(pair[part]) for route, pair in descents.items()} for part in (0, 1))
        show("loss", losses, true, unit, tolerance)
        show("r_t", r_t)
    if task.has_simulator:
        show("miss", {route: to_array(miss) for route, miss in misses.items()}, unit, tolerance)
    if training:
        show("training", *(training[column] for column in ("step", "train_loss", "validation_loss")))
    more: dict[str, tuple[Any, ...]] = {
        "basins": (task.box.axes[:2],),
        **dict.fromkeys(("belief", "fidelity"), (unit, tolerance)),
    }
    for figure, picture in pictures.items():
        show(figure, picture, *more.get(figure, ()))
    task.allow(None)
    return drawn
