"""C3: is the true loss smoother than the loss through the network?"""

import torch
from torch import Tensor

from aimback.core.problem import ForwardMap
from aimback.diagnose import derivatives
from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim, estimate
from aimback.diagnose.statistics import figure, mean, median, medians, sureness
from aimback.diagnose.watershed import Mesh, find_basins

# A slice is some ten thousand simulations, anew for the conditions of every target.
_TARGETS = 12
# A network whose loss bends up to a twentieth more than the true one is as smooth.
_MARGIN = 1.05


def examine(case: Case) -> tuple[Claim, Pictures]:
    """Compare both losses, sums of squared residuals, along the grid lines of slices of the box.

    A slice is the box itself with two controls (a line with one); with more, a square of one box length
    around a random point, in random directions, cut to the box. They are the same for every target and map.
    A dead end of such a slice need not be one of the box, for the truth as little as for the network.
    """
    targets = case.few().first(_TARGETS)
    slices = _slices(case)
    # Without conditions all targets see the same outcomes.
    given = targets.conditions if len(case.task.conditions) else targets.conditions[:1]
    outcomes = [_outcomes(case, forward, slices, given) for forward in (case.task, *case.networks)]
    # Points are compared where every map has an outcome.
    known = torch.stack([torch.isfinite(outcome).all(-1) for outcome in outcomes]).all(0)
    for outcome in outcomes:
        outcome.masked_fill_(~known[..., None], torch.nan)
    # A descent that must climb by more than the tolerance to get on has come to a dead end. With several outcomes the
    # root of the loss is meant, which is the miss or more.
    mesh = Mesh.line(case.settings.points) if len(case.task.box) == 1 else Mesh.square(case.settings.points)
    losses, dead_ends, spurious = [], [], []
    for row, wanted in enumerate(targets.targets / case.task.distance.scales):  # of all at once it is gigabytes
        residuals = (outcome[row % len(given)] - wanted for outcome in outcomes)
        looks = [(_loss_on_grid(case, one), find_basins(one, mesh, case.task.distance.share)) for one in residuals]
        losses.append(torch.stack([loss for loss, _ in looks]))
        truth, *basins = (found for _, found in looks)
        dead_ends.append(torch.stack([found.dead_ends.sum(-1) for found in (truth, *basins)]))
        spurious.append(torch.stack([found.beyond(truth) for found in basins]))
    true, *learned = torch.stack(losses, 1)
    by_map, added = torch.cat(dead_ends, 1), torch.cat(spurious, 1).double()
    bend, variation = _variation(true, 2), _variation(true, 1)
    number = estimate(
        [_over(_variation(loss, 2), bend) for loss in learned],
        medians,
        case.generator("roughness: bootstrap"),
        case.settings.resamples,
    )
    # What a ripple bends back and forth within the truth's own bend shows in the difference alone.
    apart = median(_over(_variation(learned[0] - true, 2), bend))
    if number.value is None:
        because = "On no slice can the losses be compared."
    else:
        because = (
            f"The gradient of the loss through the network varies {number.value:.3g} times as much as that of the "
            f"true loss ({sureness(number)}), that of their difference {figure(apart)} times. The network adds "
            f"{figure(mean(added[0]))} dead ends a slice."
        )
    claim = Claim(
        key="C3",
        says="The true loss is smoother than the loss through the network.",
        question="Is the true loss smoother than the loss through the network?",
        unit="times as rough through the network",
        bound=_MARGIN,
        measure="variation of the loss's gradient on slices of the box, network over truth, median over slices",
        number=number,
        rule=(
            f"supported where the ratio, its interval over targets and that of every network lie above {_MARGIN}; "
            "refuted where none of them does: the network's loss is then as smooth, or smoother"
        ),
        because=because,
        details={
            "excess_variation": median(_over(_variation(learned[0], 1) - variation, variation)),
            "bend_of_difference": apart,
            "spurious_minima": mean(added[0]),
            "spurious_minima_most": float(added.mean(1).max()),
            "dead_ends_surrogate": mean(by_map[1]),
            "dead_ends_true": mean(by_map[0]),
            "slices": bend.numel(),
            "points_left_out": int((~known & torch.isfinite(slices).all(-1)).sum()) * len(targets) // len(given),
        },
    )
    return claim, {}


def _slices(case: Case) -> Tensor:
    """Points of the unit box on grids, row by row, `(slices, n_points, n_controls)`; NaN outside the box."""
    controls, settings = len(case.task.box), case.settings
    along = torch.linspace(0, 1, settings.points, dtype=torch.float64)
    if controls == 1:
        return along[None, :, None]
    if controls == 2:
        return _grid(along)[None]
    generator = case.generator("roughness: slices")
    centres = torch.rand(settings.planes, 1, controls, generator=generator, dtype=torch.float64)
    random = torch.randn(settings.planes, controls, 2, generator=generator, dtype=torch.float64)
    directions, _ = torch.linalg.qr(random)
    points = centres + _grid(along - 0.5) @ directions.mT
    inside = ((points >= 0) & (points <= 1)).all(-1, keepdim=True)
    return torch.where(inside, points, torch.nan)


def _grid(along: Tensor) -> Tensor:
    """All pairs (x, y), x the faster, `(n * n, 2)`."""
    return torch.cartesian_prod(along, along).flip(-1)


def _outcomes(case: Case, forward: ForwardMap, slices: Tensor, given: Tensor) -> Tensor:
    """Over the scales on every slice under each of some conditions, `(conditions, slices, n_points, n_outcomes)`; NaN
    outside the box."""
    inside = torch.isfinite(slices).all(-1)
    points = slices[inside]
    found = derivatives.compute_outcomes(
        case, forward, points.repeat(len(given), 1), given.repeat_interleave(len(points), 0)
    ).unflatten(0, (len(given), len(points)))
    outcomes = torch.full((len(given), *inside.shape, found.shape[-1]), torch.nan, dtype=torch.float64)
    outcomes[:, inside] = found
    return outcomes


def _loss_on_grid(case: Case, residual: Tensor) -> Tensor:
    """`(slices, n_points, n_outcomes)` -> `(slices, points)`, or `(slices, points, points)`."""
    sides = [case.settings.points] * min(len(case.task.box), 2)
    loss: Tensor = residual.square().sum(-1).unflatten(-1, sides)
    return loss


def _variation(loss: Tensor, order: int) -> Tensor:
    """The sum of absolute differences of this order along all grid lines, `(targets, slices)`.

    Order 1 is the loss's own total variation; order 2, but for the spacing, that of its gradient.
    """
    axes = range(2, loss.ndim)
    return torch.stack([loss.diff(n=order, dim=axis).abs().nansum(tuple(axes)) for axis in axes]).sum(0)


def _over(part: Tensor, whole: Tensor) -> Tensor:
    """The ratio; NaN where the whole is zero."""
    return torch.where(whole > 0, part / whole, torch.nan)
