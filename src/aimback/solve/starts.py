"""Where solvers begin."""

import torch
from torch import Tensor

from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem
from aimback.solve.solver import Solver


def draw_starts(problem: InverseProblem, solver: Solver, generator: torch.Generator) -> Tensor:
    """The starts that a solver asks for, `(n_targets, n_starts, n_controls)` in unit-cube coordinates.

    Those that the problem brings may lie outside the box; where that has walls they begin at them.

    Raises:
        UserError: the solver wants the problem's starts, and it has none or too few.
    """
    if solver.starts_from == "box":
        return stratified_starts(len(problem.targets), solver.starts, len(problem.box), generator)
    if problem.starts is None or problem.starts.shape[1] < solver.starts:
        raise UserError(f"starts: the solver takes {solver.starts} a target from the problem, which brings fewer")
    unit = problem.box.to_unit(problem.starts[:, : solver.starts])
    return unit.clamp(0, 1) if solver.boundary is None else unit


def stratified_starts(targets: int, starts: int, dimensions: int, generator: torch.Generator) -> Tensor:
    """Latin hypercube starts, `(targets, starts, dimensions)` in the open unit cube, float64, on the CPU.

    Along every axis each of the `starts` equal strata holds one start of each target (McKay, Beckman,
    Conover 1979): two starts already lie on either side of every axis's middle, so both the low and
    the high arc of a cannon have one nearby.
    """
    shape = (targets, dimensions, starts)
    strata = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(dim=-1)
    within = torch.rand(shape, generator=generator, dtype=torch.float64)
    return ((strata + within) / starts).transpose(1, 2).contiguous()
