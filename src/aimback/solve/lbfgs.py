"""Limited-memory BFGS on every start by itself, inside the box by an active set."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.checks import check_whole
from aimback.solve.descent import judge_decrease, lowest_share, step_inside
from aimback.solve.point import Point
from aimback.solve.rowwise import dot, total
from aimback.solve.solver import Memory, Solver

_CURVED = 1e-8  # a pair that curves less, relative to the lengths of its halves, is noise or bends the wrong way


@dataclass(frozen=True)
class Lbfgs(Solver):
    """L-BFGS (Nocedal 1980; Nocedal & Wright 2006, algorithms 7.4 and 7.5) on the sum of squared residuals.

    `torch.optim.LBFGS` would couple the starts through one line search and one Hessian; here each has
    its own pairs and its own share of the step. The share halves or less, by a parabola, until the loss
    falls by Armijo's condition (algorithm 3.1), one evaluation a step. A control whose descent would lead
    through the box is held, and the two-loop recursion runs over the free ones (Bertsekas 1982). The
    first step is as long as the linear model says, for a gradient alone has no length.

    One Jacobian a step, as everywhere, but only its gradient is used: up to twice the steps of
    `LevenbergMarquardt` to a solution with zero miss, each with more arithmetic around the simulator.
    Superlinear at the closest approach too, so it is for unreachable targets with several outcomes. Not
    for noisy simulators.

    Args:
        pairs: so many last steps, and the changes of the gradient over them, are remembered.
    """

    max_steps: int = 300
    pairs: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, 100, pairs=self.pairs)

    def begin(self, point: Point) -> Memory:
        """Moves and turns `(rows, pairs, n_controls)` each, the last one last, and shares `(rows,)`."""
        none = torch.zeros_like(point.unit)[:, None, :].repeat(1, self.pairs, 1)
        return none, none.clone(), torch.ones_like(point.unit[:, 0])

    def propose(self, point: Point, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        moves, turns, share = memory
        gradient = point.gradient
        end = step_inside(point, _step_lower, (moves, turns, gradient, _first_length(point)))
        # A control that would climb to its bound, to make room for others, stays: what is left leads downhill.
        climbs = ((end <= 0) | (end >= 1)) & (gradient * (end - point.unit) > 0)
        end = torch.where(climbs, point.unit, end)
        # `lerp` is exact at both ends: a whole step ends on the bound itself.
        return torch.lerp(point.unit, end, share[:, None]), memory

    def judge(self, point: Point, trial: Point, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        moves, turns, share = memory
        move, turn = trial.unit - point.unit, trial.gradient - point.gradient
        better, still = judge_decrease(point, trial, -dot(point.gradient, move))
        share = torch.where(better, 1.0, share * lowest_share(point, trial))
        kept = (better & _is_curved(move, turn))[:, None, None]
        moves = torch.where(kept, torch.cat([moves[:, 1:], move[:, None, :]], dim=1), moves)
        turns = torch.where(kept, torch.cat([turns[:, 1:], turn[:, None, :]], dim=1), turns)
        return better, still, (moves, turns, share)


def _step_lower(moved: Tensor, free: Tensor, moves: Tensor, turns: Tensor, gradient: Tensor, length: Tensor) -> Tensor:
    seen = free[:, None, :]
    return -_times_inverse(moves * seen, turns * seen, torch.where(free, gradient, 0.0), length)


def _is_curved(moves: Tensor, turns: Tensor) -> Tensor:
    """Which pairs `(..., n_controls)` have the loss bend upwards, `(...,)`."""
    return dot(moves, turns) > _CURVED * (total(moves.square()) * total(turns.square())).sqrt()


def _first_length(point: Point) -> Tensor:
    """Of the step down the gradient to the least of |r + J d|, per gradient, but at most a box length, `(rows,)`."""
    downhill = point.downhill
    square = total(downhill.square())
    length = square / (2 * total(dot(point.jacobian, downhill[:, None, :]).square()))
    longest = 1 / square.sqrt()
    # At rest, or where the model is flat, the quotient is not a number.
    return torch.where(length < longest, length, torch.where(square > 0, longest, 0.0))


def _times_inverse(moves: Tensor, turns: Tensor, vector: Tensor, length: Tensor) -> Tensor:
    """The inverse Hessian that the pairs know of, times a vector, by the two-loop recursion, a row each.

    `length` stands for it where there is no pair yet.
    """
    known = _is_curved(moves, turns)
    along, square = dot(moves, turns), total(turns.square())
    weights = torch.where(known, 1 / along, 0.0)
    backward = list(range(moves.shape[1]))[::-1]
    shares = []
    for pair in backward:
        share = weights[:, pair] * dot(moves[:, pair], vector)
        vector = vector - share[:, None] * turns[:, pair]
        shares.append(share)
    for pair in range(moves.shape[1]):
        length = torch.where(known[:, pair], along[:, pair] / square[:, pair], length)
    vector = length[:, None] * vector
    for pair, share in zip(backward[::-1], shares[::-1], strict=True):
        back = weights[:, pair] * dot(turns[:, pair], vector)
        vector = vector + (share - back)[:, None] * moves[:, pair]
    return vector
