"""SciPy, a loop over the targets: `brentq` around `solve_ivp` with a landing event."""

import math

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from benchmarks.cannon import Aim, Array, Cannon


def distance(cannon: Cannon, angle: float, wind: float, method: str, tolerance: float) -> float:
    """The landing distance in m of one shot."""

    def flight(_: float, state: Array) -> list[float]:
        _, _, u, v = state.tolist()
        air = cannon.drag * math.hypot(u - wind, v)
        return [u, v, -air * (u - wind), -cannon.gravity - air * v]

    def ground(_: float, state: Array) -> float:
        return float(state[1])

    ground.terminal, ground.direction = True, -1
    start = [0.0, 0.0, cannon.speed * math.cos(angle), cannon.speed * math.sin(angle)]
    flown = solve_ivp(flight, (0, 10), start, method=method, rtol=tolerance, atol=tolerance, events=ground)
    return float(flown.y_events[0][0][0])


def prepare(cannon: Cannon) -> Aim:
    def over(angle: float, target: float, wind: float) -> float:
        return distance(cannon, angle, wind, "RK45", 1e-7) - target

    def aim(targets: Array, wind: Array) -> Array:
        pairs = zip(targets.tolist(), wind.tolist(), strict=True)
        return np.array([brentq(over, 0.01, 0.7, args=pair, xtol=1e-8) for pair in pairs])

    return aim
