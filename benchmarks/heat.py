"""Mosaic's conductivity recovery, beside its published figures: 128 densities by the temperatures of 306 nodes."""

import csv
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize
from torch import Tensor

from aimback.autodiff.any_torch import linearise_by_autograd, linearise_by_jvp
from aimback.core.box import Axis, Box
from aimback.core.problem import InverseProblem, Solution
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.base import Task
from aimback.tasks.heat import Heat
from benchmarks.extent import pick
from benchmarks.rounds import one_core, spread
from benchmarks.tables import number, table

PUBLISHED = Path(__file__).with_name("heat_published.csv")
_COMMAND = "python -m benchmarks heat"
_ROUNDS = pick(5, 1)
_STEPS = 300
_FINEST = 1e-13  # of the span
_ASKED = {"published": (42.0, 1.0), "consistent": (2.5e-4, 1.0)}  # error, seconds
_STARTS = pick(8, 2)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """What is to be recovered.

    Attributes:
        name: "published": made with another load than the one that is inverted; "consistent": with the same.
        temperatures: `(1, n_outcomes)`.
    """

    name: str
    temperatures: Tensor


def make_targets() -> list[Target]:
    """Of Mosaic's truth: two Gaussians of width 0.15 at 3/10 and 7/10 of the length, clipped to [0, 1]."""
    x, y = (np.arange(16) + 0.5) / 8, (np.arange(8)[:, None] + 0.5) / 8
    truth = sum(np.exp(-((x - middle) ** 2 + (y - 0.5) ** 2) / (2 * 0.15**2)) for middle in (0.6, 1.4))
    density = torch.as_tensor(np.clip(truth, 0, 1).reshape(1, 128))
    loads = {"published": "halved", "consistent": "even"}
    return [Target(name, Heat(load=load)(density, density[:, :0])) for name, load in loads.items()]


def compute_error(found: Tensor, wanted: Tensor) -> Tensor:
    """As published, of temperatures `(..., n_outcomes)`: over the nodes of both layers."""
    return 2 * (found - wanted).square().sum(-1)


def recovered_beside_published() -> str:
    """Markdown: tables, and what they were made of."""
    with one_core():
        task, targets = Heat(), make_targets()
        shown = {target.name: _compare(task, target) for target in targets}
        parts = [
            "Mosaic (Rehmann, Haefner, Zimmermann 2026, arXiv:2606.27895), thermal-mesh, conductivity recovery: 16 by "
            "8 trilinear hexahedra, their densities within [0.001, 1], from 0.5 in all of them; the error is the sum "
            "of the squares of the differences of the temperatures over 306 nodes, "
            f"{_start_error(task, targets[0]):.4g} at the start. `levenberg_marquardt` with its defaults but for "
            f"{_STEPS} steps, through the ordinary `solve`, interpreted, on one core; time is that of the core, so "
            "that others on it do not count, and includes everything from the target to the densities. SciPy gets the "
            "same simulator with the same Jacobian.",
        ]
        for name, (error, seconds) in _ASKED.items():
            parts += [f"**The {name} target**; asked: at most {error:g} in {seconds:g} s.", _show(shown[name])]
        parts += [_floor(task, targets[0]), _jacobians(task)]
    return "\n\n".join(parts)


@dataclass(frozen=True)
class Row:
    """One system on one target."""

    system: str
    error: float
    seconds: list[float]
    source: str


def _compare(task: Heat, target: Target) -> list[Row]:
    """Ours, SciPy's, and what is published of it."""
    solver = LevenbergMarquardt(max_steps=_STEPS, precision=_FINEST)
    middle = torch.full((1, 1, 128), 0.5, dtype=torch.float64)
    solution = _descend(task, target, solver, middle)
    asked = _ASKED[target.name][0]
    enough = next(step for step, error in _errors_on_the_way(task, target, solution) if error <= asked)
    rivals = {
        f"aimback, direct, to the floor ({int(solution.steps)} steps)": solver,
        f"aimback, direct, to {asked:g} ({enough} steps)": LevenbergMarquardt(max_steps=enough, precision=_FINEST),
    }
    timed: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(_ROUNDS):
        for name, one in rivals.items():
            began = time.process_time()
            _descend(task, target, one, middle)
            timed[name].append(time.process_time() - began)
    rows = []
    for name, one in rivals.items():
        found = task(_descend(task, target, one, middle).controls[:, 0], middle[:, 0, :0])
        rows.append(Row(name, float(compute_error(found, target.temperatures)), timed[name], _COMMAND))
    for name, minimise in (
        ("SciPy, least_squares (trf), 300 evaluations", _minimise_squares),
        ("SciPy, L-BFGS-B, 200 iterations as published", _minimise_loss),
    ):
        began = time.process_time()
        density = torch.as_tensor(minimise(task, target))[None]
        spent = time.process_time() - began
        found = task(density, density[:, :0])
        rows.append(Row(name, float(compute_error(found, target.temperatures)), [spent], _COMMAND))
    return rows + (list(_read_published()) if target.name == "published" else [])


def _descend(task: Task, target: Target, solver: LevenbergMarquardt, density: Tensor) -> Solution:
    """From uniform densities or others, `(1, starts, n_controls)`."""
    starts = task.box.to_unit(density)
    none = target.temperatures[:, :0]
    problem = InverseProblem(target.temperatures, none, task.box, task.distance, starts)
    return solve(task, problem, solver, torch.Generator())


def _start_error(task: Heat, target: Target) -> float:
    start = torch.full((1, 128), 0.5, dtype=torch.float64)
    return float(compute_error(task(start, start[:, :0]), target.temperatures))


def _errors_on_the_way(task: Heat, target: Target, solution: Solution) -> Iterator[tuple[int, float]]:
    path = solution.history.controls[:, 0, 0]
    return enumerate(compute_error(task(path, path[:, :0]), target.temperatures).tolist())


def _residuals(task: Heat, target: Target, density: Array) -> tuple[Array, Array]:
    point = torch.as_tensor(density)[None]
    outcome, jacobian = task.linearise(point, point[:, :0])
    return math.sqrt(2) * (outcome - target.temperatures)[0].numpy(), math.sqrt(2) * jacobian[0].numpy()


def _minimise_squares(task: Heat, target: Target) -> Array:
    both = partial(_residuals, task, target)
    bounds = task.box.lower.numpy(), task.box.upper.numpy()
    start = np.full(128, 0.5)
    done = least_squares(
        lambda x: both(x)[0], start, lambda x: both(x)[1], bounds, xtol=None, ftol=1e-15, gtol=1e-15, max_nfev=_STEPS
    )
    return np.asarray(done.x)


def _minimise_loss(task: Heat, target: Target) -> Array:
    def loss(density: Array) -> tuple[float, Array]:
        residual, jacobian = _residuals(task, target, density)
        return float(residual @ residual), 2 * residual @ jacobian

    bounds = list(zip(task.box.lower.tolist(), task.box.upper.tolist(), strict=True))
    done = minimize(loss, np.full(128, 0.5), jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(done.x)


def _read_published() -> Iterator[Row]:
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            seconds = [float(row["seconds"])] if row["seconds"] else []
            yield Row(f"{row['system']}, as published", float(row["error"]), seconds, row["source"])


def _show(rows: list[Row]) -> str:
    ours = statistics.median(rows[0].seconds)
    return table(
        ["", "error", "seconds", "time over ours", "source"],
        [
            [
                row.system,
                f"{row.error:.4g}",
                spread(row.seconds) if row.seconds else "",
                number(statistics.median(row.seconds) / ours) if row.seconds else "",
                row.source if row.source != _COMMAND else "measured here",
            ]
            for row in rows
        ],
    )


class LastColumns(Task):
    """The last columns of cells of a slab, whatever may be on their left.

    The controls are their densities, and the temperatures of the nodes at their left side; the outcomes are all of
    their nodes' temperatures. What a slab can do, they can: nothing holds them to the cells on the left. So the least
    error here is below that of the whole slab, on all of its nodes.

    Args:
        whole: the slab.
        columns: so many of its columns of cells.
    """

    def __init__(self, whole: Heat, columns: int) -> None:
        self._whole, rows = whole, whole.rows
        self.tolerance = whole.tolerance
        nodes = torch.arange((rows + 1) * (columns + 1)).reshape(columns + 1, rows + 1).T
        around = [nodes[:-1, :-1], nodes[:-1, 1:], nodes[1:, 1:], nodes[1:, :-1]]
        square = torch.tensor([[4, -1, -2, -1], [-1, 4, -1, -2], [-2, -1, 4, -1], [-1, -2, -1, 4]]) / 6
        self._parts = torch.zeros(rows * columns, nodes.numel(), nodes.numel(), dtype=torch.float64)
        for cell, corners in enumerate(torch.stack(around, dim=-1).flatten(0, 1)):
            self._parts[cell][corners[:, None], corners] = square.double()
        self._flux = torch.zeros(rows * columns + columns, dtype=torch.float64)
        self._flux[-rows - 1 :] = torch.tensor([0.5] + [1.0] * (rows - 1) + [0.5]) / rows
        highest = float(whole.outcomes.upper.max())
        density = whole.box.axes[0]
        cells = [Axis(f"density_{n}", "", density.lower, density.upper) for n in range(rows * columns)]
        held = [Axis(f"temperature_{n}", "", 0.0, highest) for n in range(rows + 1)]
        self.box, self.conditions = Box(cells + held), Box([])
        self.outcomes = Box([Axis(f"temperature_{n}", "", 0.0, highest) for n in range(nodes.numel())])

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        held = controls[..., len(self._parts) :]
        conductivity = self._whole.conduct(controls[..., : len(self._parts)])
        matrix = torch.einsum("...e,eij->...ij", conductivity, self._parts)
        first = held.shape[-1]
        into = self._flux - (matrix[..., first:, :first] @ held[..., None])[..., 0]
        return torch.cat([held, torch.linalg.solve(matrix[..., first:, first:], into)], dim=-1)


def _floor(task: Heat, target: Target) -> str:
    """Why the published target cannot be reached, and by how much it has to be missed."""
    generator = torch.Generator().manual_seed(0)
    solver = LevenbergMarquardt(max_steps=_STEPS, precision=_FINEST)
    even = torch.linspace(0.05, 0.95, _STARTS, dtype=torch.float64)[:, None].expand(-1, 128)
    rough = task.box.sample(_STARTS, generator)
    rows = []
    for label, starts in (("uniform, from 0.05 to 0.95", even), ("every cell drawn by itself", rough)):
        solution = _descend(task, target, solver, starts[None])
        found = solution.controls[0]
        errors = compute_error(task(found, found[:, :0]), target.temperatures)
        least = errors.min()
        share = f"{int((errors < least + 0.01).sum())} of {_STARTS}"
        rows.append([f"whole slab, starts {label}", f"{float(least):.3f}", f"{float(errors.median()):.4g}", share])
    wanted = target.temperatures.reshape(9, 16)
    for columns in (1, 2, 3, 4):
        part = LastColumns(task, columns)
        temperatures = wanted[:, 15 - columns :].T
        drawn = torch.rand(_STARTS, 8 * columns, generator=generator, dtype=torch.float64)
        starts = torch.cat([0.02 + 0.3 * drawn, temperatures[0].expand(_STARTS, -1)], dim=-1)
        piece = Target("part", temperatures.reshape(1, -1))
        found = _descend(part, piece, solver, starts[None]).controls[0]
        errors = compute_error(part(found, found[:, :0]), piece.temperatures)
        share = f"{int((errors < errors.min() + 0.01).sum())} of {_STARTS}"
        label = f"last {columns} columns of cells alone"
        rows.append([label, f"{float(errors.min()):.3f}", f"{float(errors.median()):.4g}", share])
    return "\n\n".join(
        [
            "**The floor of the published target.** Its corners on the right were given as much heat as each of the "
            "nodes between, where the load that is inverted gives them half as much. A column has nine nodes, whose "
            "heat has to balance, and eight cells to do it. The last columns are also solved for alone, with whatever "
            "temperatures suit them on their left: what they cannot reach, no slab can. So the least error of the "
            "whole slab lies between the last row and the first, if those of the parts are found, on which their "
            "starts agree.",
            table(["", "least error", "median over starts", "within 0.01 of the least"], rows),
        ]
    )


def _jacobians(task: Heat) -> str:
    """What an outcome with its Jacobian costs, by several ways, of one slab and of sixteen at once."""
    rows = []
    ways: dict[str, Callable[[Tensor, Tensor], object]] = {
        "outcome alone": task,
        "128 right sides to one factor, as the task does it": task.linearise,
        "torch, forward mode, 128 tangents": partial(linearise_by_jvp, task),
        "torch, reverse mode, 144 passes": partial(linearise_by_autograd, task),
    }
    for name, way in ways.items():
        cells = [name]
        for count in (1, 16):
            points = task.box.sample(count, torch.Generator().manual_seed(0))
            way(points, points[:, :0])
            spent = []
            for _ in range(_ROUNDS):
                began = time.process_time()
                way(points, points[:, :0])
                spent.append(1e3 * (time.process_time() - began) / count)
            cells.append(spread(spent))
        rows.append(cells)
    return "\n\n".join(
        ["**A value with its Jacobian**, 144 by 128.", table(["", "ms a slab, one", "ms a slab, 16 at once"], rows)]
    )
