"""Targets within reach, and the judge of the answers, who has part in none of the peers."""

from dataclasses import replace

import numpy as np
import torch

from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.reach import search_reach
from benchmarks.cannon import Array, Cannon
from benchmarks.peers.aimback_direct import OneSpeed
from benchmarks.peers.scipy_brentq import distance

SHARE = 0.05, 0.95  # of the reach under the target's wind: the rim, where two angles meet, is left to other tests
MISS = 1e-6  # of the span of all distances
CHECKED = 200
_SEED = 0


def default_cannon() -> Cannon:
    """The task `cannon_drag` as it comes, at full speed."""
    task = CannonDrag()
    span = float(task.outcomes.upper - task.outcomes.lower)
    return Cannon(task.box.axes[0].upper, task.gravity, task.drag, MISS * span)


def draw_work(cannon: Cannon, count: int) -> tuple[Array, Array]:
    """Targets and wind, `(count,)` each; the first of many are those of few."""
    task = CannonDrag()
    (axis,) = task.conditions.axes
    winds = torch.linspace(axis.lower, axis.upper, 41, dtype=torch.float64)
    _, farthest = search_reach(OneSpeed(task, cannon.speed), winds[:, None])
    draws = np.random.default_rng(_SEED).random((count, 2))
    wind = axis.lower + (axis.upper - axis.lower) * draws[:, 0]
    reach = np.interp(wind, winds.numpy(), farthest[:, 0].numpy())
    return reach * (SHARE[0] + (SHARE[1] - SHARE[0]) * draws[:, 1]), wind


def hits(cannon: Cannon, answers: Array, targets: Array, wind: Array) -> tuple[int, int, float]:
    """How many answers of how many checked hit, and the worst miss in units of the tolerance, by DOP853.

    Args:
        answers: angles `(n,)`, or speeds and angles `(n, 2)`.
    """
    misses = []
    for row in np.linspace(0, len(answers) - 1, min(CHECKED, len(answers))).round().astype(int):
        speed, angle = (cannon.speed, answers[row]) if answers.ndim == 1 else answers[row]
        shot = replace(cannon, speed=float(speed))
        landed = distance(shot, float(angle), float(wind[row]), "DOP853", 1e-12)
        misses.append(abs(landed - targets[row]) / cannon.tolerance)
    return sum(miss <= 1 for miss in misses), len(misses), max(misses)
