"""The minimum-norm Gauss-Newton step, inside the box by an active set, no longer than a trust length."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.checks import check_positive
from aimback.solve.descent import adapt_length, judge_decrease, step_inside
from aimback.solve.point import Point
from aimback.solve.rowwise import dot, total
from aimback.solve.solver import Memory, Solver


@dataclass(frozen=True)
class GaussNewton(Solver):
    """Minimise |r + J d| over the step d; of all minimisers the shortest, `d = -J^+ r`.

    Nocedal & Wright, "Numerical Optimization" (2006), section 10.3; the pseudo-inverse from the singular
    vectors of the tiny Jacobian, so more controls than outcomes, fewer, and dependent ones are all the same
    to it. No step is longer than a trust length along any of these vectors: the minimiser within that cube
    is had by clipping, and a nearly singular direction costs the others nothing. The trust length grows
    and shrinks by how well the model foretold the decrease (algorithm 4.1). A control that the step would
    take out of the box is put on its bound and the others solve for what is left.

    One Jacobian a step. Quadratic convergence at a solution with zero miss; at an unreachable target
    linear, to the closest approach, where it stalls. Not for noisy or stepped simulators.

    Args:
        length: the first trust length, in unit-box lengths.
    """

    max_steps: int = 100
    length: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("length", self.length)

    def begin(self, point: Point) -> Memory:
        return (torch.full_like(point.unit[:, 0], self.length),)

    def propose(self, point: Point, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        return step_inside(point, _step_least, (point.residual, point.jacobian, *memory)), memory

    def judge(self, point: Point, trial: Point, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        (length,) = memory
        promised = point.loss - total(_predict(point.residual, point.jacobian, trial.unit - point.unit).square())
        better, still = judge_decrease(point, trial, promised)
        return better, still, (adapt_length(point, trial, promised, better, length),)


def _step_least(moved: Tensor, free: Tensor, residual: Tensor, jacobian: Tensor, length: Tensor) -> Tensor:
    return minimum_norm_step(jacobian * free[:, None, :], _predict(residual, jacobian, moved), length)


def _predict(residual: Tensor, jacobian: Tensor, moved: Tensor) -> Tensor:
    """The linear model of the residual after a move, `(rows, n_outcomes)`."""
    return residual + dot(jacobian, moved[:, None, :])


def minimum_norm_step(jacobian: Tensor, residual: Tensor, length: Tensor) -> Tensor:
    """-J^+ r, clipped to `length` along each right singular vector, `(rows, n_controls)`.

    A singular value below the root of the rounding error, relative to the greatest, counts as zero: its
    vector is noise.
    """
    if jacobian.shape[1] == 1:
        return -_along(jacobian[:, 0], residual[:, 0], torch.zeros_like(length), length)
    noise = torch.finfo(jacobian.dtype).eps ** 0.5
    if jacobian.shape[1] == 2:
        # One Jacobi rotation makes the two rows orthogonal, which is their singular value decomposition.
        (a, b), (r, s) = jacobian.unbind(1), residual.unbind(-1)
        angle = 0.5 * torch.atan2(2 * dot(a, b), total(a * a - b * b))
        cosine, sine = torch.cos(angle), torch.sin(angle)
        long = cosine[:, None] * a + sine[:, None] * b
        short = cosine[:, None] * b - sine[:, None] * a
        floor = noise * total(long.square()).sqrt()
        return -_along(long, cosine * r + sine * s, floor, length) - _along(short, cosine * s - sine * r, floor, length)
    left, values, right = torch.linalg.svd(jacobian, full_matrices=False)
    parts = dot(left, residual[:, :, None], 1) / values
    parts = torch.where(values > noise * values[:, :1], parts, 0.0).clamp(-length[:, None], length[:, None])
    step: Tensor = -dot(right, parts[:, :, None], 1)
    return step


def _along(row: Tensor, part: Tensor, floor: Tensor, length: Tensor) -> Tensor:
    """row^+ part, not longer than `length`; nothing where the row is not longer than `floor`."""
    size = total(row.square()).sqrt()
    share = torch.where(size > floor, (part / size).clamp(-length, length) / size, 0.0)
    return row * share[:, None]
