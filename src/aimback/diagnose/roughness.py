"""C3: is the true loss smoother than the loss through the network?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.diagnose import landscape
from aimback.diagnose.claim import Claim, estimate
from aimback.diagnose.dead_ends import Mesh, basins
from aimback.diagnose.subject import Pictures, Subject
from aimback.diagnose.summary import mean, median, medians, sureness
from aimback.problem import ForwardMap
from aimback.targets import Targets

# A slice is some ten thousand simulations, anew for the conditions of every target.
_TARGETS = 8
# A network whose loss bends up to a twentieth more than the true one is as smooth.
_MARGIN = 1.05


@dataclass(frozen=True)
class Comparison:
    """A network's loss against the true one, slice by slice, `(targets, slices)`; NaN where the true one is flat.

    Attributes:
        bend: variation of the gradient along the grid's lines, network over truth.
        variation: total variation along the grid's lines, network over truth.
        dead_ends, dead_ends_true: prominent local minima that are no solutions.
        spurious: dead ends that the truth does not have.
        left_out: points of all slices where either outcome is not finite.
    """

    bend: Tensor
    variation: Tensor
    dead_ends: Tensor
    dead_ends_true: Tensor
    spurious: Tensor
    left_out: int


def examine(subject: Subject) -> tuple[Claim, Pictures]:
    """Compare both losses, the squared relative miss, along the grid lines of slices of the box.

    A slice is the box itself with two controls (a line with one); with more, a square of one box length
    around a random point, in random directions, cut to the box. They are the same for every target and map.
    """
    targets = _first(subject.few(), _TARGETS)
    slices = _slices(subject)
    truth = _residuals(subject, subject.task, slices, targets)
    compared = [
        _compare(subject, slices, truth, _residuals(subject, network, slices, targets)) for network in subject.networks
    ]
    own = compared[0]
    number = estimate(
        [one.bend for one in compared],
        medians,
        subject.generator("roughness: bootstrap"),
        subject.settings.resamples,
    )
    spurious = [mean(one.spurious) for one in compared]
    if number.value is None:
        because = "On no slice can both losses be compared."
    else:
        because = (
            f"The gradient of the loss through the network varies {number.value:.3g} times as much as that of the "
            f"true loss ({sureness(number)}); the network adds {spurious[0]:.2g} dead ends a slice."
        )
    variation = median(own.variation)
    claim = Claim(
        key="C3",
        says="The true loss is smoother than the loss through the network.",
        measure="variation of the loss's gradient on slices of the box, network over truth, median over slices",
        number=number,
        rule=(
            f"holds where the ratio, its interval over targets and that of every network lie above {_MARGIN}; does "
            "not hold where none of them does: the network's loss is then as smooth, or smoother"
        ),
        verdict=number.against(_MARGIN),
        because=because,
        details={
            "excess_variation": None if variation is None else variation - 1,
            "spurious_minima": spurious[0],
            "spurious_minima_most": max((count for count in spurious if count is not None), default=None),
            "dead_ends_surrogate": mean(own.dead_ends),
            "dead_ends_true": mean(own.dead_ends_true),
            "slices": own.bend.numel(),
            "points_left_out": own.left_out,
        },
    )
    return claim, _picture(subject)


def _first(targets: Targets, count: int) -> Targets:
    rows = slice(count)
    return Targets(targets.targets[rows], targets.conditions[rows], targets.lines[rows], targets.problems[rows])


def _slices(subject: Subject) -> Tensor:
    """Points of the unit box on grids, row by row, `(slices, points ** 1 or 2, n_controls)`; NaN outside the box."""
    controls, settings = len(subject.task.box), subject.settings
    along = torch.linspace(0, 1, settings.points, dtype=torch.float64)
    if controls == 1:
        return along[None, :, None]
    grid = torch.cartesian_prod(along, along).flip(-1)
    if controls == 2:
        return grid[None]
    generator = subject.generator("roughness: slices")
    centres = torch.rand(settings.planes, 1, controls, generator=generator, dtype=torch.float64)
    random = torch.randn(settings.planes, controls, 2, generator=generator, dtype=torch.float64)
    directions, _ = torch.linalg.qr(random)
    points = centres + (grid - 0.5) @ directions.mT
    inside = ((points >= 0) & (points <= 1)).all(-1, keepdim=True)
    return torch.where(inside, points, torch.nan)


def _residuals(subject: Subject, forward: ForwardMap, slices: Tensor, targets: Targets) -> Tensor:
    """(outcome - target) / span on every slice, `(targets, slices, points, n_outcomes)`; NaN outside the box."""
    inside = torch.isfinite(slices).all(-1)
    points = slices[inside]
    # Without conditions all targets see the same outcomes.
    given = targets.conditions if len(subject.task.conditions) else targets.conditions[:1]
    outcome = landscape.outcomes(
        subject, forward, points.repeat(len(given), 1), given.repeat_interleave(len(points), 0)
    ).unflatten(0, (len(given), len(points)))
    wanted = targets.targets / subject.span
    residual = torch.full((len(wanted), *inside.shape, wanted.shape[1]), torch.nan, dtype=torch.float64)
    residual[:, inside] = outcome - wanted[:, None]
    return residual


def _compare(subject: Subject, slices: Tensor, truth: Tensor, network: Tensor) -> Comparison:
    known = torch.isfinite(truth).all(-1, keepdim=True) & torch.isfinite(network).all(-1, keepdim=True)
    truth, network = (torch.where(known, residual, torch.nan) for residual in (truth, network))
    line = len(subject.task.box) == 1
    side = subject.settings.points
    shape = (side,) if line else (side, side)
    true_loss, loss = (residual.square().sum(-1).unflatten(-1, shape) for residual in (truth, network))

    mesh = Mesh.line(side) if line else Mesh.square(side)
    # A tolerance that no grid can show would make minima of what is only between its points.
    hit = subject.task.tolerance / subject.span
    true_basins, its_basins = (basins(residual.flatten(0, 1), mesh, hit) for residual in (truth, network))
    counts = (
        its_basins.dead_ends.sum(-1),
        true_basins.dead_ends.sum(-1),
        its_basins.beyond(true_basins),
    )
    dead_ends, dead_ends_true, spurious = (count.unflatten(0, true_loss.shape[:2]) for count in counts)
    inside = torch.isfinite(slices).all(-1)
    return Comparison(
        bend=_varies(loss, 2, len(shape)) / _varies(true_loss, 2, len(shape)),
        variation=_varies(loss, 1, len(shape)) / _varies(true_loss, 1, len(shape)),
        dead_ends=dead_ends,
        dead_ends_true=dead_ends_true,
        spurious=spurious,
        left_out=int((~known[..., 0] & inside).sum()),
    )


def _varies(loss: Tensor, order: int, axes: int) -> Tensor:
    """The sum of absolute differences of this order along all grid lines: 1 the variation, 2 that of the gradient."""
    sums = [loss.diff(n=order, dim=axis).abs().nansum(tuple(range(-axes, 0))) for axis in range(-axes, 0)]
    return torch.stack(sums).sum(0)


def _picture(subject: Subject) -> Pictures:
    """Both losses of the first target over the first two controls, the others as the direct route has them."""
    task, settings = subject.task, subject.settings
    answer = subject.solutions["direct"]
    rest = answer.controls[0, answer.best()[0]].double()
    unit = torch.linspace(0, 1, settings.points, dtype=torch.float64)
    shown = min(len(task.box), 2)
    grid = unit[:, None] if shown == 1 else torch.cartesian_prod(unit, unit).flip(-1)
    points = task.box.to_unit(rest).repeat(len(grid), 1)
    points[:, :shown] = grid
    axes = task.box.from_unit(unit[:, None].expand(-1, len(task.box)))
    pictures = {name: axes[:, index].numpy() for index, name in enumerate(("axis_x", "axis_y")[:shown])}
    first = _first(subject.targets, 1)
    for name, forward in (("true", subject.task), ("surrogate", subject.networks[0])):
        residual = _residuals(subject, forward, points[None], first)[0, 0]
        pictures[name] = residual.square().sum(-1).reshape([settings.points] * shown).numpy()
    return pictures | {
        "target": first.targets[0].numpy(),
        "condition": first.conditions[0].numpy(),
        "rest": rest.numpy(),
    }
