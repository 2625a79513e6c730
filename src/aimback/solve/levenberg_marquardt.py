"""Damped Gauss-Newton on the tiny Jacobian, inside the box by an active set."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.solve.point import Point
from aimback.solve.solver import Memory, Solver, check_positive

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
        damping: at the first step, in squared outcome spans per squared unit-box length.
    """

    max_steps: int = 100
    damping: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(damping=self.damping)

    def begin(self, point: Point) -> Memory:
        damping = torch.full_like(point.unit[:, 0], self.damping)
        return damping, torch.full_like(damping, _FIRST_GROWTH)

    def propose(self, point: Point, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        damping, _ = memory
        unit, jacobian = point.unit, point.jacobian
        moved = torch.zeros_like(unit)
        free = point.downhill != 0
        for _ in range(unit.shape[1]):
            # What the controls on their bounds have not done is left to the free ones.
            left = point.residual + (jacobian * moved[:, None, :]).sum(-1)
            step_to = torch.where(free, _damped_step(jacobian * free[:, None, :], left, damping), moved)
            inside = (unit + step_to).clamp(0, 1) - unit
            hits = inside != step_to
            moved = torch.where(free & ~hits, 0.0, inside)
            free = free & ~hits
            if not bool(hits.any()):
                break
        return (unit + torch.where(free, step_to, moved)).clamp(0, 1), memory

    def judge(self, point: Point, trial: Point, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        damping, growth = memory
        moved = trial.unit - point.unit
        promised = point.loss - (point.residual + (point.jacobian * moved[:, None, :]).sum(-1)).square().sum(-1)
        gain = (point.loss - trial.loss) / promised
        better = trial.finite & (trial.loss < point.loss)
        eased = damping * (1 - (2 * gain - 1) ** 3).clamp(min=0.1, max=2)
        smallest = torch.finfo(damping.dtype).tiny
        damping = torch.where(better & torch.isfinite(eased), eased, damping * growth).clamp(min=smallest)
        growth = torch.where(better, _FIRST_GROWTH, 2 * growth)
        # A refused step too short to be told from no step: nothing better lies nearby.
        still = ~better & (moved.abs().amax(-1) < 4 * torch.finfo(damping.dtype).eps)
        return better, still, (damping, growth)


def _damped_step(jacobian: Tensor, residual: Tensor, damping: Tensor) -> Tensor:
    """The minimiser of |r + J d|^2 + damping |d|^2, `(rows, n_controls)`."""
    transposed = jacobian.transpose(1, 2)
    outcomes, controls = jacobian.shape[1:]
    if outcomes <= controls:
        return -(transposed @ _solve(_damped(jacobian @ transposed, damping), residual)[..., None])[..., 0]
    return -_solve(_damped(transposed @ jacobian, damping), (transposed @ residual[..., None])[..., 0])


def _damped(matrix: Tensor, damping: Tensor) -> Tensor:
    return matrix + damping[:, None, None] * torch.eye(matrix.shape[-1]).to(matrix)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Symmetric positive definite systems, a row each; sizes 1 and 2 written out, being 16 times faster."""
    size = matrix.shape[-1]
    if size == 1:
        return right / matrix[:, 0]
    if size == 2:
        (a, b), (_, d) = (row.unbind(-1) for row in matrix.unbind(-2))
        x, y = right.unbind(-1)
        return torch.stack([d * x - b * y, a * y - b * x], dim=-1) / (a * d - b * b)[:, None]
    solved: Tensor = torch.linalg.solve(matrix, right)
    return solved
