"""What the claims are examined on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimback.core.problem import Linearised, Solution
from aimback.data.dataset import Dataset
from aimback.data.question import pose_problem
from aimback.data.targets import Targets
from aimback.settings.claims import DiagnoseSettings
from aimback.solve.multistart import solve
from aimback.solve.solver import Solver
from aimback.solve.starts import Starts
from aimback.tasks.base import Task


@dataclass(frozen=True, eq=False)  # hashed by identity, so that what two claims ask for is found only once
class Case:
    """One task with everything that a run has made of it; float64, on the device that is worked on.

    Attributes:
        task: the true simulator.
        networks: the run's own surrogate, then its replicas.
        targets: the valid ones, all of them, on the CPU.
        solutions: by route, the run's answers to `targets`, on the CPU.
        solver, starts: as configured for every route.
        generator: a random stream by purpose.
        settings: how finely to look.
        device: where to compute.
        train: makes networks of a data set, one for each of some seeds, as the run's own was made; None where no claim
            asks for more of them.
        jacobians: whether they learn from Jacobians too.
    """

    task: Task
    networks: Sequence[Linearised]
    targets: Targets
    solutions: Mapping[str, Solution]
    solver: Solver
    starts: Starts
    generator: Callable[[str], torch.Generator]
    settings: DiagnoseSettings
    device: torch.device
    train: Callable[[Dataset, Sequence[int]], Sequence[Linearised]] | None = None
    jacobians: bool = False

    def few(self) -> Targets:
        """The targets that are looked at closely."""
        return self.targets.first(self.settings.count_targets(self.task))

    def solve(
        self, forward: Linearised, targets: Targets, solver: Solver, purpose: str, starts: Tensor | Starts
    ) -> Solution:
        """Invert a forward map at `targets`.

        Args:
            purpose: of the random stream; the same purpose gives every forward map the same starts.
            starts: where to begin, `(n_targets, n_starts, n_controls)` in the units of the box, or how to draw that.
        """
        problem, stream = pose_problem(self.task, targets, starts, self.generator, purpose=purpose, device=self.device)
        return solve(forward, problem, solver, stream)


# Pictures of a claim: arrays by name, for the figures.
Pictures = dict[str, np.ndarray]
