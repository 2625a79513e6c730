"""What descending solvers share: a step that keeps to the box, and what it must bring to be taken."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aimback.core.box import Box
from aimback.core.tracing import find_tracer
from aimback.solve.point import Point
from aimback.solve.rowwise import dot, largest, some, total

_WORTH = 0.1  # of the fall along the gradient
# Controls up to which a traced program has the search for the held ones written out; a loop of more is shorter text
# and ends as soon as none of the rows has met a bound.
_WRITTEN_OUT = 4
_ENOUGH = 1e-4  # share of the promised decrease, Nocedal & Wright (2006), (3.4) and algorithm 4.1


def step_inside(point: Point, step: Callable[..., Tensor], given: Sequence[Tensor] = ()) -> Tensor:
    """Where a solver's step ends inside the box, `(rows, n_controls)`, exactly on the bounds that it meets.

    A control on its bound whose descent would lead through it is held from the first. A control that
    the step of the free ones takes out of the box is put on its bound and held too, and `step` is asked
    again for those still free: at most once a control.

    Args:
        point: where the step begins.
        step: `(moved, free, *given) -> (rows, n_controls)`, the best move of the `free` controls where the others
            have moved by `moved` (0 for the free ones); its values for the others are not looked at.
        given: what it knows of the rows.
    """

    def turn(_: Tensor, end: Tensor, free: Tensor, *__: Tensor) -> tuple[Tensor, ...]:
        there = torch.where(free, unit + step(end - unit, free, *given), end)
        inside = there.clamp(0, 1)
        hits = free & (there != inside)
        return there, torch.where(hits, inside, end), free & ~hits, hits

    unit = there = end = point.unit
    free = point.downhill != 0
    tracer = find_tracer()
    if tracer is not None and unit.shape[1] > _WRITTEN_OUT:
        carried = unit, unit, free, torch.ones_like(free)
        there, end, free, _ = tracer.write_loop(lambda *now: now[-1].any(), turn, carried)
        return torch.where(free, there, end)
    for _ in range(unit.shape[1]):
        there, end, free, hits = turn(there, end, free)
        # The rows without a hit would be given the same step again.
        if tracer is None and not bool(hits.any()):
            break
    return torch.where(free, there, end)


def keep_constraints(point: Point, proposed: Tensor, box: Box) -> Tensor:
    """A solver's proposal, moved to the nearest place that keeps the constraints of the box, `(rows, n_controls)`.

    A solver knows nothing of them, so what is left of its step may lead up. Where it does not fall at least by a share
    of what a step of the same length down the gradient would, moved inside likewise, that step is proposed instead. As
    solvers shorten a step that they refuse, this ends as the projected gradient method does (Nocedal & Wright 2006,
    section 16.7; Goldstein 1964): at a place that no short step inside lowers.
    """
    inside = box.keep_inside(proposed)
    length = (total((proposed - point.unit).square()) / total(point.gradient.square())).sqrt()[:, None]
    straight = box.keep_inside(point.unit - torch.where(torch.isfinite(length), length, 0.0) * point.gradient)
    falls, could_fall = (dot(point.gradient, place - point.unit) for place in (inside, straight))
    weak = some(inside != proposed) & (falls > _WORTH * could_fall)
    return torch.where(weak[:, None], straight, inside)


def judge_decrease(point: Point, trial: Point, promised: Tensor) -> tuple[Tensor, Tensor]:
    """-> which rows go to the trial point, which have nothing left to gain, `(rows,)` each.

    A row goes where the loss falls by a share of what was promised. Where it is flat to rounding, as
    around a closest approach, only the gradient still tells what is lower, and the row goes where that
    is smaller (the idea of Hager, Zhang 2005, (4.1)). A refused row is at rest if its step was too short
    to be told from none, or promised no more than rounding.

    Args:
        promised: the decrease of the loss that the solver's model foretold, `(rows,)`.
    """
    epsilon = torch.finfo(promised.dtype).eps
    drop = point.loss - trial.loss
    flat = drop.abs() <= 4 * epsilon * point.loss
    calmer = largest(trial.downhill) < largest(point.downhill)
    better = trial.finite & ((drop > _ENOUGH * promised.abs()) | (flat & calmer))
    tiny = largest(trial.unit - point.unit) < 4 * epsilon
    return better, ~better & (tiny | (promised.abs() <= epsilon * point.loss))


def lowest_share(point: Point, trial: Point) -> Tensor:
    """The share of a refused step to try next, `(rows,)`, between a tenth and a half.

    There the parabola through both losses and the slope at the point is lowest, Nocedal & Wright (3.58).
    """
    slope = dot(point.gradient, trial.unit - point.unit)
    share = -slope / (2 * (trial.loss - point.loss - slope))
    return torch.where(torch.isfinite(share), share, 0.5).clamp(0.1, 0.5)


def adapt_length(point: Point, trial: Point, promised: Tensor, better: Tensor, length: Tensor) -> Tensor:
    """The trust length after a step, `(rows,)`: longer where the model foretold well, shorter where it did not.

    Nocedal & Wright, algorithm 4.1, with its quarter and three quarters.
    """
    far = total((trial.unit - point.unit).square()).sqrt()
    drop = point.loss - trial.loss
    longer = torch.where(drop > 0.75 * promised, torch.maximum(length, 2 * far), length)
    shorter = lowest_share(point, trial) * torch.minimum(far, length)
    return torch.where(better & (drop >= 0.25 * promised), longer, shorter)
