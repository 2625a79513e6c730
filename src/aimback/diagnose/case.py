"""What the claims are examined on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from aimback.core.problem import InverseProblem, Linearised, Solution
from aimback.data.targets import Targets
from aimback.diagnose.settings import DiagnoseSettings
from aimback.solve.multistart import solve
from aimback.solve.solver import Solver
from aimback.tasks.base import Task


@dataclass(frozen=True, eq=False)  # hashed by identity, so that what two claims ask for is found only once
class Subject:
    """One task with everything that a run made of it; float64, on the device that is worked on.

    Attributes:
        task: the true simulator.
        networks: the run's own surrogate, then its replicas.
        targets: the valid ones, all of them, on the CPU.
        solutions: by route, the run's answers to `targets`, on the CPU.
        solver: as configured for every route.
        generator: a random stream by purpose.
        settings: how finely to look.
        device: where to compute.
    """

    task: Task
    networks: Sequence[Linearised]
    targets: Targets
    solutions: Mapping[str, Solution]
    solver: Solver
    generator: Callable[[str], torch.Generator]
    settings: DiagnoseSettings
    device: torch.device

    def few(self) -> Targets:
        """The targets that are looked at closely."""
        return self.targets.first(self.settings.targets)

    @property
    def span(self) -> float:
        """Of the outcomes, in their unit: what a miss is compared with."""
        return float(torch.linalg.vector_norm(self.task.outcomes.upper - self.task.outcomes.lower))

    def solve(
        self, forward: Linearised, targets: Targets, solver: Solver, purpose: str, starts: torch.Tensor | None = None
    ) -> Solution:
        """Invert a forward map at `targets`.

        Args:
            purpose: of the random stream; the same purpose gives every forward map the same starts.
            starts: where to begin instead, `(n_targets, n_starts, n_controls)` in the units of the box.
        """
        if starts is not None:
            solver = replace(solver, starts=starts.shape[1], starts_from="prior")
        problem = InverseProblem(
            targets.targets.to(self.device),
            targets.conditions.to(self.device),
            self.task.box,
            self.task.tolerance,
            self.span,
            None if starts is None else starts.to(self.device, torch.float64),
        )
        return solve(forward, problem, solver, self.generator(purpose))


# Pictures of a claim: arrays by name, for the figures.
Pictures = dict[str, np.ndarray]
