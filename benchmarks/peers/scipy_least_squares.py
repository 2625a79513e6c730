"""SciPy, a loop over the targets: `least_squares` (finite differences) around `solve_ivp` with a landing event."""

import numpy as np
from scipy.optimize import least_squares

from benchmarks.cannon import Aim, Array, Cannon
from benchmarks.peers.scipy_brentq import distance


def prepare(cannon: Cannon) -> Aim:
    def over(angle: Array, target: float, wind: float) -> float:
        return distance(cannon, float(angle[0]), wind, "RK45", 1e-7) - target

    def aim(targets: Array, wind: Array) -> Array:
        first = cannon.first_angle(targets)
        rows = zip(first.tolist(), targets.tolist(), wind.tolist(), strict=True)
        # The differences must be longer than the noise of adaptive steps.
        return np.array(
            [
                least_squares(over, angle, args=(target, given), bounds=(0.0, np.pi / 2), diff_step=1e-4).x[0]
                for angle, target, given in rows
            ]
        )

    return aim
