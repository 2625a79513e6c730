"""The number of steps that an accuracy of the outcome takes, found out before the first simulation."""

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.checks import check_positive, check_whole
from aimback.core.errors import UserError
from aimback.core.problem import ForwardMap

# The error may be larger between the points of the sample than on them; `python -m benchmarks work_precision`
# puts the promise beside the truth.
SAFETY = 2.0
_MOST = 1_024  # steps; the search for the reach takes seconds with so many
_FINER = 4  # a method of order p leaves 4^-p of the error to the finer grid


def choose_steps(
    steps: int | None,
    accuracy: float | None,
    in_steps: Callable[[int], ForwardMap],
    truth_in: Callable[[int], ForwardMap],
    sample: Callable[[], tuple[Tensor, Tensor]],
    *,
    default: int,
    least: int,
    most: int,
    unit: str,
    axes: Sequence[Axis],
) -> int:
    """The steps that were asked for, or the fewest that keep an accuracy.

    The candidates are 4, 6, 8, 12, 16, 24, 32, ... from `least` to `most`. The error of each is the
    largest difference to the truth on a grid at least four times as fine, over the sample; half of the
    accuracy is kept in reserve for what lies between its points. It is the error of the discretisation,
    in float64; what float32 rounds off comes on top.

    Args:
        steps: None where the accuracy decides, or, without one, the default.
        accuracy: the greatest error of any outcome, in the outcome's `unit`; None asks for none.
        in_steps: number of steps -> the simulator that takes so many.
        truth_in: the same for the truth. It must share no error with the simulator that steps do not
            remove, such as that of an event which is searched for on a grid of its own.
        sample: -> controls and conditions, `(n, n_controls)` and `(n, n_conditions)`, dense where the error
            is large; asked for only where an accuracy is given.
        axes: of the controls, then of the conditions, to say where in them an accuracy cannot be kept.

    Raises:
        UserError: fewer steps than `least`, an accuracy that is not positive or that `most` steps do not
            keep, or steps and an accuracy that do not go together.
    """
    if steps is not None:
        check_whole(least, _MOST, steps=steps)
    if accuracy is None:
        return default if steps is None else int(steps)
    accuracy = check_positive("accuracy", accuracy)
    fewest = _find_fewest(accuracy, in_steps, truth_in, sample(), list(_ladder(least, most)), unit, axes)
    if steps is None:
        return fewest
    if steps < fewest:
        raise UserError(
            f"steps: {steps} are too few for an accuracy of {accuracy:g} {unit}, which takes {fewest}; "
            "give one of the two, and null for the other"
        )
    return int(steps)


def spread_points(*boxes: Box, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
    """A grid over several boxes at once, `(n, len(box))` each, the corners and edges of all among its points.

    Chebyshev's points: they crowd at the faces, where errors tend to be largest.

    Args:
        counts: points an axis, of all boxes in turn.
    """
    axes = [0.5 - 0.5 * torch.cos(torch.linspace(0, math.pi, count, dtype=torch.float64)) for count in counts]
    unit = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes))
    parts = unit.split([len(box) for box in boxes], dim=-1)
    return tuple(box.from_unit(part) for box, part in zip(boxes, parts, strict=True))


def _find_fewest(
    accuracy: float,
    in_steps: Callable[[int], ForwardMap],
    truth_in: Callable[[int], ForwardMap],
    sample: tuple[Tensor, Tensor],
    candidates: list[int],
    unit: str,
    axes: Sequence[Axis],
) -> int:
    def bound_error(truth: Tensor, steps: int) -> Tensor:
        return SAFETY * _differences(in_steps(steps)(*sample), truth)

    def keeps(truth: Tensor, steps: int) -> bool:
        return bool((bound_error(truth, steps) <= accuracy).all())

    with torch.no_grad():
        while True:
            # One fine grid serves as many candidates as a factor of four spans. Where it fails, so does each of
            # them; the next grid is four times as fine and knows nothing of that.
            here = bisect.bisect_right(candidates, 4 * candidates[0])
            served, candidates = candidates[:here], candidates[here:]
            most = served[-1]
            truth = truth_in(_FINER * most)(*sample)
            first = bisect.bisect_left(served, True, key=partial(keeps, truth))
            if first < here:
                return served[first]
            if not candidates:
                worst, row = bound_error(truth, most).max(dim=0)
                place = torch.cat(sample, dim=-1)[row].tolist()
                found = f"promise some {float(worst):.2g} {unit}" if worst < math.inf else "cannot follow the motion"
                at = ", ".join(
                    f"{axis.name} {value:.3g} {axis.unit}".rstrip() for axis, value in zip(axes, place, strict=True)
                )
                raise UserError(
                    f"accuracy: {accuracy:g} {unit} cannot be promised; the most steps that are tried, {most}, {found} "
                    f"at {at}; leave that out of the box, or ask for less"
                )


def _ladder(least: int, most: int) -> Iterator[int]:
    """4, 6, 8, 12, 16, 24, 32, ... as far as they lie in the range."""
    for power in itertools.count(2):
        for number in (2**power, 3 * 2 ** (power - 1)):
            if number > most:
                return
            if number >= least:
                yield number


def _differences(outcomes: Tensor, truth: Tensor) -> Tensor:
    """The largest of each row, infinite where an outcome is no finite number, `(n,)`."""
    return (outcomes - truth).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).amax(dim=-1)
