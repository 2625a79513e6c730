"""SciPy's batched bracketing, `scipy.optimize.elementwise.find_root`, over Runge-Kutta written in NumPy."""

import numpy as np
from scipy.optimize.elementwise import find_root

from benchmarks.cannon import FINE_STEPS, Aim, Array, Cannon

State = tuple[Array, Array, Array, Array]


def prepare(cannon: Cannon) -> Aim:
    gravity, drag = cannon.gravity, cannon.drag
    lengths = np.diff(cannon.shares(FINE_STEPS))

    def slope(u: Array, v: Array) -> tuple[Array, Array]:
        air = -drag * np.sqrt(u * u + v * v)
        return air * u, air * v - gravity

    def step(state: State, h: Array) -> State:
        x, y, u1, v1 = state
        du1, dv1 = slope(u1, v1)
        u2, v2 = u1 + h / 2 * du1, v1 + h / 2 * dv1
        du2, dv2 = slope(u2, v2)
        u3, v3 = u1 + h / 2 * du2, v1 + h / 2 * dv2
        du3, dv3 = slope(u3, v3)
        u4, v4 = u1 + h * du3, v1 + h * dv3
        du4, dv4 = slope(u4, v4)
        sixth = h / 6
        return (
            x + sixth * (u1 + 2 * (u2 + u3) + u4),
            y + sixth * (v1 + 2 * (v2 + v3) + v4),
            u1 + sixth * (du1 + 2 * (du2 + du3) + du4),
            v1 + sixth * (dv1 + 2 * (dv2 + dv3) + dv4),
        )

    def over(angle: Array, target: Array, wind: Array) -> Array:
        u, v = cannon.speed * np.cos(angle) - wind, cannon.speed * np.sin(angle)
        apex = v * v / (2 * gravity + drag * np.hypot(u, v) * v)  # Chudinov (2004)
        time = np.sqrt(8 * apex / gravity)
        state = np.zeros_like(u), np.zeros_like(u), u, v
        for share in lengths:
            state = step(state, share * time)
        for _ in range(2):
            gap = -state[1] / state[3]
            state, time = step(state, gap), time + gap
        return state[0] + wind * time - target

    def aim(targets: Array, wind: Array) -> Array:
        bracket = np.full_like(targets, 0.01), np.full_like(targets, 0.7)
        root = find_root(over, bracket, args=(targets, wind), tolerances={"fatol": cannon.tolerance / 4})
        return np.asarray(root.x)

    return aim
