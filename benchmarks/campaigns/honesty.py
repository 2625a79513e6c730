"""Targets of which three in ten are out of reach: does the direct route ever call a miss a hit?"""

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor

from aimback.core.problem import InverseProblem, Status
from aimback.data.targets import Targets, draw_targets
from aimback.evaluate.judge import judge, resimulate
from aimback.runtime.project import CONF
from aimback.settings.build import build
from aimback.solve.multistart import solve
from aimback.solve.solver import Solver
from aimback.solve.starts import draw_evenly
from aimback.tasks.base import Task

_FEWER = {"trebuchet": 50}  # a simulation costs a hundred times as much there
_DIFFERENT = 20  # conditions out of reach: each has its reach searched for


def honesty(count: int, folder: Path) -> list[str]:
    """So many targets of each task that can tell what is out of reach."""
    rows = []
    for name in sorted(file.stem for file in (CONF / "task").glob("*.yaml")):
        answered = answers(name, count // _FEWER.get(name, 1))
        if answered is None:
            rows.append(f"{name} cannot tell what is out of reach")
            continue
        rows.append(
            f"{name}, {len(answered.status)} targets: {answered.false} false `solved`; of those within reach "
            f"{100 * answered.solved:.2f} % solved, of those out of reach {100 * answered.named:.2f} % `unreachable`"
        )
    return rows


@dataclass(frozen=True)
class Answered:
    """What became of the targets of a task, those within reach first.

    Attributes:
        status: codes of `Status`, `(n_targets,)`.
        again: their misses, simulated once more and as finely as the task can, `(n_targets,)`.
        tolerance: of a miss.
        reachable: so many are within reach.
    """

    status: Tensor
    again: Tensor
    tolerance: float
    reachable: int

    @property
    def false(self) -> int:
        """Called solved, and a miss."""
        said = self.status == Status.SOLVED
        return int((said & ~(self.again <= self.tolerance)).sum()) + int(said[self.reachable :].sum())

    @property
    def solved(self) -> float:
        """The share of those within reach."""
        return float((self.status[: self.reachable] == Status.SOLVED).double().mean())

    @property
    def named(self) -> float:
        """The share of those out of reach that are said to be."""
        return float((self.status[self.reachable :] == Status.UNREACHABLE).double().mean())


def answers(name: str, count: int) -> Answered | None:
    """The direct route's, with the default solver; None where the task cannot tell what is out of reach."""
    task = build(yaml.safe_load((CONF / "task" / f"{name}.yaml").read_text())[name], Task, name)
    solver = build(yaml.safe_load((CONF / "solver" / "levenberg_marquardt.yaml").read_text()), Solver, "solver")
    reachable = 7 * count // 10
    targets = _asked(task, reachable, count - reachable)
    if targets is None:
        return None
    starts = draw_evenly(len(targets), 8, len(task.box), torch.Generator().manual_seed(1))
    problem = InverseProblem(targets.targets, targets.conditions, task.box, task.distance, starts)
    solution = solve(task, problem, solver, torch.Generator().manual_seed(1))
    judged = judge(task, targets, solution, resimulate(task, targets, solution))
    again = task.distance.measure((task.finer(64) or task)(judged.controls, targets.conditions) - targets.targets)
    again = torch.where(task.box.contains(judged.controls), again, torch.inf)
    return Answered(judged.status, again, task.tolerance, reachable)


def _asked(task: Task, reachable: int, unreachable: int) -> Targets | None:
    """Targets that some controls hit, then some beyond the reach under their own conditions."""
    generator = torch.Generator().manual_seed(0)
    hit = draw_targets(task, reachable, generator)
    conditions = task.conditions.sample(_DIFFERENT, generator).repeat(unreachable // _DIFFERENT, 1)
    reach = task.reach(conditions)
    if reach is None:
        return None
    low, high = reach
    # From just outside, by twice the tolerance, to far away; above and below in turn.
    beyond = 2 * task.tolerance + (high - low) * torch.rand(low.shape, generator=generator, dtype=low.dtype).pow(3)
    above = (torch.arange(len(low)) % 2 == 0)[:, None]
    wanted = torch.cat([hit.targets, torch.where(above, high + beyond, low - beyond)])
    given = torch.cat([hit.conditions, conditions])
    return Targets(wanted, given, torch.zeros(len(wanted), dtype=torch.int64), ("",) * len(wanted))
