"""What NVRTC makes of every task and solver for a GPU; none is needed for it."""

import re
import time
from typing import cast

import torch
import yaml

from aimback.compile.compiler import write_solve
from aimback.compile.cuda import compile_kernel, read_version
from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem, Linearised
from aimback.learn.surrogate import Surrogate
from aimback.runtime.project import ROOT
from aimback.settings.build import build
from aimback.settings.learning import Architecture
from aimback.solve.solver import Stepper
from aimback.solve.step import Iteration
from aimback.tasks.base import Task
from aimback.workflow.defaults import read_defaults
from benchmarks.tables import number, table

_CARDS = {"sm_80": "A100", "sm_90": "H100"}
_LONGEST = "trebuchet"  # a minute each: with the default solver only
_NO_STEPS = {"bayesian", "cma_es"}
_DEFAULT = "levenberg_marquardt"


def kernels_by_task() -> str:
    """Markdown: a table."""
    files = sorted((ROOT / "conf" / "task").glob("*.yaml"))
    tasks = {file.stem: build(yaml.safe_load(file.read_text())[file.stem], Task, file.stem) for file in files}
    names = [file.stem for file in sorted((ROOT / "conf" / "solver").glob("*.yaml")) if file.stem not in _NO_STEPS]
    solvers = {name: cast("Stepper", read_defaults(f"solver={name}").solver) for name in names}
    rows = []
    for task_name, task in tasks.items():
        for name, solver in solvers.items():
            if task_name != _LONGEST or name == _DEFAULT:
                rows += _measure(task_name, name, task, task, solver)
    for width in (32, 64):
        task = tasks["cannon_drag"]
        rows += _measure(f"network, 3 x {width}", _DEFAULT, make_network(task, width), task, solvers[_DEFAULT])
    return "\n\n".join(
        [
            f"Float64, NVRTC {'.'.join(map(str, read_version()))}, for {' and '.join(_CARDS.values())}. "
            "Local memory is what a thread has beyond its registers; spills are the part of it that did not fit into "
            "them, in bytes.",
            table(["", "solver", "", "registers", "local memory", "spills", "trace [s]", "NVRTC [s]"], rows, words=3),
        ]
    )


def _measure(name: str, solver_name: str, forward: Linearised, task: Task, solver: Stepper) -> list[list[str]]:
    conditions = task.conditions.sample(2, torch.Generator().manual_seed(0))
    wanted = task.outcomes.sample(2, torch.Generator().manual_seed(0))
    starts = torch.full((2, 1, len(task.box)), 0.5, dtype=torch.float64)
    problem = InverseProblem(wanted, conditions, task.box, task.distance, starts)
    began = time.perf_counter()
    try:
        step = write_solve(Iteration(forward, problem, solver))
    except UserError:  # not a solver for this task, or one that only the interpreter has
        return []
    traced = time.perf_counter() - began
    rows = []
    for card in _CARDS:
        began = time.perf_counter()
        _, told = compile_kernel(step, torch.float64, card)
        seconds = time.perf_counter() - began
        registers = re.findall(r"Used (\d+) registers", told)
        local, spills = (re.findall(rf"(\d+) bytes {what}", told) for what in ("stack frame", "spill stores"))
        counts = [max(map(int, found)) for found in (registers, local, spills)]
        rows.append([name, solver_name, card, *map(str, counts), number(traced), number(seconds)])
    return rows


def make_network(task: Task, width: int) -> Surrogate:
    architecture = Architecture(hidden_width=width, hidden_layers=3, activation="tanh")
    inputs = [torch.cat([getattr(box, end) for box in (task.box, task.conditions)]) for end in ("lower", "upper")]
    outputs = [torch.as_tensor(end, dtype=torch.float64) for end in (task.outcomes.lower, task.outcomes.upper)]
    network = Surrogate(*inputs, *outputs, architecture)
    network.draw_weights(torch.Generator().manual_seed(0))
    return network.double().eval().requires_grad_(False)
