"""C7: is the gradient right?"""

import numpy as np
import torch
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.diagnose import derivatives
from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim, estimate
from aimback.diagnose.statistics import median, quantile, share
from aimback.settings.claims import LEAST

_POINTS = 1024
_SCALES = (1e-6, 1e-5, 1e-4, 1e-3, 5e-3, 1e-2)  # unit-box lengths; the last is twice the one before
_RIGHT = 0.95


def examine(case: Case) -> tuple[Claim, Pictures]:
    """Jacobians against central differences over several scales, at random points of the box.

    The verdict looks at hundredths of the box, the steps of a solver: a gradient can be right for every
    infinitesimal step and tell nothing of where the outcome jumps or has teeth. Curvature is allowed for: the
    differences over the two greatest scales are extrapolated, so their error is of fourth order (Richardson
    1911). The verdict's number sums over the box, because a jump is met by few of the points; the errors by
    scale are medians, relative to the mean slope, and show what an infinitesimal look would say.
    """
    task = case.task
    generator = case.generator("gradients: points")
    # All that is differenced stays inside the box.
    room = Box([Axis(axis.name, "", 0.0, 1.0) for axis in task.box.axes]).shrink(_SCALES[-1])
    points = task.scale_down(_POINTS, LEAST)
    unit = room.sample(points, generator)
    conditions = task.conditions.sample(points, generator)
    _, jacobian = derivatives.compute_jacobians(case, task, unit, conditions)
    differences = _differences(case, unit, conditions)
    half, whole = differences[-2:]
    slope = (4 * half - whole) / 3
    known = torch.stack([part.flatten(1).isfinite().all(-1) for part in (jacobian, slope, *differences)]).all(0)
    size = _size(slope)[known]
    error = _size(slope - jacobian)[known]
    by_scale = torch.stack([_size(difference - jacobian)[known] for difference in differences]) / size.mean()
    number = estimate(
        [torch.stack([error, size], dim=-1)],
        _share_told,
        case.generator("gradients: bootstrap"),
        case.settings.resamples,
    )
    learned = [derivatives.compute_jacobians(case, network, unit, conditions)[1] for network in case.networks]
    cosines = [derivatives.compare_gradients(slopes, jacobian) for slopes in learned]
    alike = cosines[0]
    medians = [middle for cosine in cosines if (middle := median(cosine)) is not None]
    if number.value is None:
        because = "The outcome does not change, or is not finite, at any of the points looked at."
    else:
        because = (
            f"Over a hundredth of the box the simulator's gradient is off by {1 - number.value:.2g} of how the outcome "
            f"really changes."
        )
    if medians:
        because += f" The network's gradient has a cosine of {medians[0]:.4g} with it in the median."
    claim = Claim(
        key="C7",
        says="The gradient through the simulator is right.",
        question="Is the gradient through the simulator right?",
        unit="of the outcome's change is told by it",
        is_share=True,
        bound=_RIGHT,
        measure="share of the outcome's change over a hundredth of the box that the simulator's gradient tells",
        number=number,
        rule=(
            f"supported where the share and its interval over points lie above {_RIGHT}; refuted where none of them "
            "does: a gradient that tells nothing has 0, as between jumps, and one of the wrong sign -1"
        ),
        because=because,
        details={
            **{f"error_at_{scale:.0e}": median(errors) for scale, errors in zip(_SCALES, by_scale, strict=True)},
            "cosine_median": median(alike),
            "cosine_p10": quantile(alike, 0.1),
            "cosine_below_half": share(alike < 0.5, alike.isfinite()),
            "cosine_median_least": min(medians, default=None),
            "points": points,
            "points_left_out": points - int(known.sum()),
        },
    )
    return claim, {
        "scales": np.array(_SCALES),
        "relative_error": by_scale.numpy(),
        "cosine": alike[alike.isfinite()].numpy(),
    }


def _differences(case: Case, unit: Tensor, conditions: Tensor) -> list[Tensor]:
    """Central differences of the simulator at every scale, `(n, n_outcomes, n_controls)` each, over the scales."""
    count, controls = unit.shape
    scales = torch.tensor(_SCALES, dtype=torch.float64)
    offsets = scales[:, None, None] * torch.eye(controls, dtype=torch.float64)
    around = unit + torch.stack([offsets, -offsets])[:, :, :, None]  # two sides, scales, controls, points
    outcome = derivatives.compute_outcomes(
        case, case.task, around.flatten(0, 3), conditions.repeat(2 * len(scales) * controls, 1)
    )
    ahead, behind = outcome.unflatten(0, (2, len(scales), controls, count))
    return list(((ahead - behind) / (2 * scales[:, None, None, None])).permute(0, 2, 3, 1))


def _size(jacobian: Tensor) -> Tensor:
    size: Tensor = torch.linalg.matrix_norm(jacobian)
    return size


def _share_told(sample: Tensor) -> Tensor:
    error, size = sample.sum(-2).unbind(-1)
    return 1 - error / size
