"""For one outcome: a parabola along the step, its curvature learned from the Jacobians on the way."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.checks import check_positive
from aimback.core.errors import UserError
from aimback.solve.descent import adapt_length, judge_decrease, step_inside
from aimback.solve.point import Point
from aimback.solve.rowwise import dot, solve_systems, total
from aimback.solve.solver import Memory, Solver

_SOUND = 1e-8  # below it the change of the curvature divides by noise, Nocedal & Wright (6.26)
_CLIMBS = 0.1  # the way to the summit must fall by a tenth of the steepest slope


@dataclass(frozen=True)
class Quadratic(Solver):
    """Model the residual to second order, r + g d + d' B d / 2, and step to its nearest root.

    Along the steepest direction that is the nearer root of a parabola; an outcome that would not reach
    the target there is led to the summit of the model instead (-B^-1 g in the free controls), or to the
    root on the way to it: at an unreachable target that is the closest approach. The matrix B costs no
    evaluation: each trial, taken or refused, corrects it by the change of the Jacobian over the step
    (symmetric rank one, Nocedal & Wright 2006, section 6.2; the secant, with one control). No step is
    longer than a trust length (algorithm 4.1), and a control that it would take out of the box is put
    on its bound while the others do the rest.

    One Jacobian a step. Superlinear at a solution and at a closest approach alike, the latter where
    Gauss-Newton steps are linear or do not arrive. Only for one outcome, and for maps without noise, whose
    Jacobians differ by their curvature.

    Args:
        length: the first trust length, in unit-box lengths.
    """

    max_steps: int = 100
    length: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("length", self.length)

    def begin(self, point: Point) -> Memory:
        """The trust lengths `(rows,)` and B `(rows, n_controls, n_controls)`.

        Raises:
            UserError: there is more than one outcome.
        """
        outcomes = point.residual.shape[1]
        if outcomes != 1:
            raise UserError(f"solver: quadratic is for one outcome, here are {outcomes}; take levenberg_marquardt")
        unit = point.unit
        return torch.full_like(unit[:, 0], self.length), torch.zeros_like(unit[:, :, None] * unit[:, None, :])

    def propose(self, point: Point, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        length, curvature = memory
        given = point.residual[:, 0], point.jacobian[:, 0], curvature, length
        return step_inside(point, _step_nearest, given), memory

    def judge(self, point: Point, trial: Point, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        length, curvature = memory
        moved = trial.unit - point.unit
        foretold, slope = _predict(point.residual[:, 0], point.jacobian[:, 0], curvature, moved)
        promised = point.loss - foretold.square()
        better, still = judge_decrease(point, trial, promised)
        length = adapt_length(point, trial, promised, better, length)
        # The change of the Jacobian that the model did not foretell.
        wrong = trial.jacobian[:, 0] - slope
        along = dot(wrong, moved)
        sizes = (total(wrong.square()) * total(moved.square())).sqrt()
        sound = (trial.finite & (along.abs() > _SOUND * sizes))[:, None, None]
        change = wrong[:, :, None] * wrong[:, None, :] / along[:, None, None]
        return better, still, (length, torch.where(sound, curvature + change, curvature))


def _step_nearest(
    moved: Tensor, free: Tensor, residual: Tensor, slope: Tensor, curvature: Tensor, length: Tensor
) -> Tensor:
    residual, slope = _predict(residual, slope, curvature, moved)
    sign = torch.sign(residual)
    # From here on the model of the miss, over the free controls.
    miss = residual.abs()
    slope = torch.where(free, sign[:, None] * slope, 0.0)
    bend = sign[:, None, None] * curvature
    ahead = _unit(-slope)
    fall, arch = _parabola(slope, bend, ahead)
    summit = _unit(-_solve_free(bend, slope, free))
    its_fall, its_arch = _parabola(slope, bend, summit)
    climbs = (fall.square() < 2 * arch * miss) & (its_fall > _CLIMBS * fall) & (its_arch > 0)
    ahead = torch.where(climbs[:, None], summit, ahead)
    fall, arch = torch.where(climbs, its_fall, fall), torch.where(climbs, its_arch, arch)
    # The nearer root, written so that it does not cancel and a straight line is no exception.
    inside = fall.square() - 2 * arch * miss
    far = torch.where(inside >= 0, 2 * miss / (fall + inside.clamp(min=0).sqrt()), fall / arch)
    return ahead * torch.where(fall > 0, torch.minimum(far, length), 0.0)[:, None]


def _predict(residual: Tensor, slope: Tensor, curvature: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    """The model's residual `(rows,)` and its gradient `(rows, n_controls)` after a move."""
    turned = _times(curvature, moved)
    return residual + dot(slope + 0.5 * turned, moved), slope + turned


def _parabola(slope: Tensor, bend: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
    """How fast the miss falls in a direction, and how that fall bends up, `(rows,)` each."""
    return -dot(slope, ahead), dot(_times(bend, ahead), ahead)


def _solve_free(matrix: Tensor, right: Tensor, free: Tensor) -> Tensor:
    """Solve for matrix^-1 right over the free controls; not finite, or of no use, where there is no inverse."""
    both = free[:, :, None] & free[:, None, :]
    matrix = torch.where(both, matrix, torch.eye(right.shape[1]).to(right))
    return solve_systems(matrix, right)


def _unit(vector: Tensor) -> Tensor:
    """Of length 1; zero where the vector is zero or not finite."""
    size = total(vector.square()).sqrt()[:, None]
    return torch.where((size > 0) & torch.isfinite(size), vector / size, 0.0)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return dot(matrix, vector[:, None, :])
