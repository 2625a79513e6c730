"""Damped Gauss-Newton on the tiny Jacobian, inside the box by an active set."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.checks import check_positive
from aimback.solve.descent import step_inside
from aimback.solve.point import Point
from aimback.solve.rowwise import dot, largest, solve_positive, square, total
from aimback.solve.solver import Memory, Solver

_FIRST_GROWTH = 2.0


@dataclass(frozen=True)
class LevenbergMarquardt(Solver):
    """Levenberg (1944), Marquardt (1963): minimise |r + J d|^2 + damping |d|^2 over the step d.

    Solved in the smaller of its two forms, J'(JJ' + damping)^-1 and (J'J + damping)^-1 J', so with
    more controls than outcomes it tends to the minimum-norm step. A control that the step would take
    out of the box is put on its bound and the others solve for what is left, so the box costs no
    convergence. A step that does not lower the loss is not taken. The damping follows the ratio of
    the decrease that came to the decrease that the model promised (Nielsen 1999, IMM-REP-1999-05).

    Superlinear near a solution with zero miss: 4 to 8 evaluations. At an unreachable target it
    converges linearly to the closest approach, some tens of evaluations. It needs Jacobians that
    mean something: not for noisy or stepped simulators.

    Args:
        damping: at the first step, in squared spans of the miss per squared unit-box length.
    """

    max_steps: int = 100
    damping: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("damping", self.damping)

    def begin(self, point: Point) -> Memory:
        damping = torch.full_like(point.unit[:, 0], self.damping)
        return damping, torch.full_like(damping, _FIRST_GROWTH)

    def propose(self, point: Point, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        damping, jacobian = memory[0], point.jacobian
        if point.residual.shape[1] <= point.unit.shape[1]:
            return step_inside(point, _step_shortest, (point.residual, jacobian, damping)), memory
        products = square(jacobian, 1)
        return step_inside(point, _step_squared, (0.5 * point.gradient, products, damping)), memory

    def judge(self, point: Point, trial: Point, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        damping, growth = memory
        moved = trial.unit - point.unit
        promised = point.loss - total((point.residual + dot(point.jacobian, moved[:, None, :])).square())
        gain = (point.loss - trial.loss) / promised
        better = trial.finite & (trial.loss < point.loss)
        eased = damping * (1 - (2 * gain - 1) ** 3).clamp(min=0.1, max=2)
        smallest = torch.finfo(damping.dtype).tiny
        damping = torch.where(better & torch.isfinite(eased), eased, damping * growth).clamp(min=smallest)
        growth = torch.where(better, _FIRST_GROWTH, 2 * growth)
        # A refused step too short to be told from no step, or that promised no more than rounding: nothing
        # better lies nearby.
        epsilon = torch.finfo(damping.dtype).eps
        still = ~better & ((largest(moved) < 4 * epsilon) | (promised.abs() <= epsilon * point.loss))
        return better, still, (damping, growth)


def _step_shortest(moved: Tensor, free: Tensor, residual: Tensor, jacobian: Tensor, damping: Tensor) -> Tensor:
    """Minimise by J'(JJ' + damping)^-1, which is the smaller system where there are no more outcomes than controls."""
    # What the controls on their bounds have not done is left to the free ones.
    left = residual + dot(jacobian, moved[:, None, :])
    jacobian = jacobian * free[:, None, :]
    matrix = square(jacobian, 2)
    matrix = _damp(matrix, damping, total(total(jacobian.square())))
    return -dot(jacobian, solve_positive(matrix, left)[:, :, None], 1)


def _step_squared(moved: Tensor, free: Tensor, slope: Tensor, products: Tensor, damping: Tensor) -> Tensor:
    """Minimise by (J'J + damping)^-1 J', of which J'J and J'r stay the same whichever controls are held."""
    left = slope + dot(products, moved[:, None, :])
    matrix = torch.where(free[:, :, None] & free[:, None, :], products, 0.0)
    size = total(matrix.reshape(-1, free.shape[1] ** 2)[:, :: free.shape[1] + 1])  # the diagonal
    return -solve_positive(_damp(matrix, damping, size), torch.where(free, left, 0.0))


def _damp(matrix: Tensor, damping: Tensor, size: Tensor) -> Tensor:
    """Add the damping to the diagonal.

    Damping below the square root of the rounding error of the matrix would leave a singular one, as of two
    outcomes and a single free control, to rounding noise.
    """
    damping = torch.maximum(damping, torch.finfo(damping.dtype).eps ** 0.5 * size)
    return matrix + damping[:, None, None] * torch.eye(matrix.shape[-1]).to(matrix)
