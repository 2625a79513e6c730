"""The default direct route and the surrogate's, from the targets to their best answers, through `solve`."""

import tempfile
from pathlib import Path

import torch

from aimback.compile.compiler import Compiler
from aimback.core.problem import InverseProblem, Linearised
from aimback.data.targets import draw_targets
from aimback.solve.multistart import solve
from aimback.solve.starts import draw_evenly
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from aimback.workflow.defaults import read_defaults
from benchmarks.gpu.cannon import clock
from benchmarks.kernels import make_network
from benchmarks.tables import number, table

_SIZES = (10_000, 1_000_000)
_WIDTHS = (16, 64, 128, 256)  # from where on is the interpreter with cuBLAS the quicker one?


def measure(device: torch.device) -> str:
    sizes, widths = (_SIZES, _WIDTHS) if device.type == "cuda" else ((1000,), _WIDTHS[:2])
    task = CannonDrag()
    maps: dict[str, Linearised] = {
        "direct": task,
        **{f"surrogate, 3 x {width}, not trained": make_network(task, width).to(device) for width in widths},
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, forward in maps.items():
            compiler = Compiler(Path(folder), name)
            for how, chosen in (("compiled", compiler), ("interpreted", None)):
                rows.append(
                    [name, how, *(number(count / _solve(task, forward, count, device, chosen)) for count in sizes)]
                )
    starts = read_defaults().starts.number
    return table([f"targets a second, {starts} starts each", "", *(f"{count:,}" for count in sizes)], rows, words=2)


def _solve(task: Task, forward: Linearised, count: int, device: torch.device, compiler: Compiler | None) -> float:
    """Seconds of a whole solve; what is drawn, is drawn before."""
    settings = read_defaults()
    wanted = draw_targets(task, count, torch.Generator().manual_seed(1), device)
    starts = draw_evenly(count, settings.starts.number, len(task.box), torch.Generator().manual_seed(2), device)
    problem = InverseProblem(wanted.targets.to(device), wanted.conditions.to(device), task.box, task.distance, starts)

    def work() -> None:
        solve(forward, problem, settings.solver, torch.Generator(), compiler=compiler).best()

    return clock(work, device, rounds=3)
