"""The Lorenz ensemble of `benchmarks lorenz` in one launch: states and their four derivatives."""

import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from aimback.compile.compiler import Compiler
from aimback.core.box import Box, make_axis
from aimback.core.distance import Distance
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem
from aimback.solve.look import compile_look
from benchmarks.ensemble import LARGEST_RHO, START, spread_rho
from benchmarks.gpu.cannon import clock
from benchmarks.peers.lorenz_aimback import linearise_reach, reach
from benchmarks.tables import number, table

_SIZES = (2**17, 2**23)


class _Lorenz:
    """Rho and the start, as controls -> the state at the end."""

    box = Box([make_axis("rho", "", [0.0, LARGEST_RHO]), *(make_axis(name, "", [0.0, 2.0]) for name in "xyz")])

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return reach(controls)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return linearise_reach(controls)


def measure(device: torch.device) -> str:
    sizes = _SIZES if device.type == "cuda" else (2**10,)
    lorenz, distance = _Lorenz(), Distance((1.0, 1.0, 1.0), 1.0, 1.0)
    row = []
    for count in sizes:
        rho = torch.from_numpy(spread_rho(count)).to(device)
        controls = torch.stack([rho, *(torch.full_like(rho, one) for one in START)], dim=-1)
        unit, nothing = lorenz.box.to_unit(controls), controls[:, :0]
        wanted = torch.zeros_like(controls[:, :3])
        problem = InverseProblem(wanted[:1], nothing[:1], lorenz.box, distance, unit[:1, None])
        with tempfile.TemporaryDirectory() as folder:
            counted = Counted(lorenz, Ledger(), simulates=True)
            look = compile_look(counted, problem, Compiler(Path(folder), "lorenz"))
            row.append(number(1e-6 * count / clock(partial(look, unit, nothing, wanted), device)))
    head = ["million solves a second, float32, 1000 steps", *(f"{count:,}" for count in sizes)]
    return table(head, [["states and tangents", *row]])
