"""Numba as an expert writes it: the Newton iteration of `numba_newton` on several targets in step, so that the
compiler turns the inner loop into vector instructions."""

import math

import numpy as np
from numba import njit

from benchmarks.cannon import COARSE_STEPS, FINE_STEPS, Aim, Array, Cannon

_LANES = 16


def prepare(cannon: Cannon) -> Aim:
    speed, gravity, drag = cannon.speed, cannon.gravity, cannon.drag
    coarse, fine = np.diff(cannon.shares(COARSE_STEPS)), np.diff(cannon.shares(FINE_STEPS))

    @njit(fastmath=True, error_model="numpy", inline="always")
    def slope(u, v, ua, va):
        fast = math.sqrt(u * u + v * v)
        air, by_angle = -drag * fast, -drag * (u * ua + v * va) / fast
        return air * u, air * v - gravity, by_angle * u + air * ua, by_angle * v + air * va

    @njit(fastmath=True, error_model="numpy")
    def fly(lengths, time, x, y, u, v, xa, ya, ua, va):
        """Move places, velocities and their derivatives by the angle, `(lanes,)` each, in place."""
        for length in lengths:
            for i in range(_LANES):
                h = length * time[i]
                half, sixth = h * (1 / 2), h * (1 / 6)
                u1, v1, ua1, va1 = u[i], v[i], ua[i], va[i]
                du1, dv1, dua1, dva1 = slope(u1, v1, ua1, va1)
                u2, v2, ua2, va2 = u1 + half * du1, v1 + half * dv1, ua1 + half * dua1, va1 + half * dva1
                du2, dv2, dua2, dva2 = slope(u2, v2, ua2, va2)
                u3, v3, ua3, va3 = u1 + half * du2, v1 + half * dv2, ua1 + half * dua2, va1 + half * dva2
                du3, dv3, dua3, dva3 = slope(u3, v3, ua3, va3)
                u4, v4, ua4, va4 = u1 + h * du3, v1 + h * dv3, ua1 + h * dua3, va1 + h * dva3
                du4, dv4, dua4, dva4 = slope(u4, v4, ua4, va4)
                x[i] += sixth * (u1 + 2 * (u2 + u3) + u4)
                y[i] += sixth * (v1 + 2 * (v2 + v3) + v4)
                xa[i] += sixth * (ua1 + 2 * (ua2 + ua3) + ua4)
                ya[i] += sixth * (va1 + 2 * (va2 + va3) + va4)
                u[i] = u1 + sixth * (du1 + 2 * (du2 + du3) + du4)
                v[i] = v1 + sixth * (dv1 + 2 * (dv2 + dv3) + dv4)
                ua[i] = ua1 + sixth * (dua1 + 2 * (dua2 + dua3) + dua4)
                va[i] = va1 + sixth * (dva1 + 2 * (dva2 + dva3) + dva4)

    @njit(fastmath=True, error_model="numpy")
    def newton(angle, target, wind):
        time = 1.9 * speed * np.sin(angle) / gravity
        for turn in range(5):
            u, v = speed * np.cos(angle), speed * np.sin(angle)
            ua, va = -v, u.copy()
            u -= wind
            x, y, xa, ya = np.zeros(_LANES), np.zeros(_LANES), np.zeros(_LANES), np.zeros(_LANES)
            fly(coarse if turn < 3 else fine, time, x, y, u, v, xa, ya, ua, va)
            for i in range(_LANES):
                over, along = x[i] + wind[i] * time[i] - target[i], u[i] + wind[i]
                determinant = xa[i] * v[i] - along * ya[i]
                angle[i] -= (v[i] * over - along * y[i]) / determinant
                time[i] -= (xa[i] * y[i] - ya[i] * over) / determinant

    @njit
    def aim_all(angle, targets, wind):
        for row in range(0, len(targets), _LANES):
            lanes = slice(row, row + _LANES)
            newton(angle[lanes], targets[lanes], wind[lanes])

    def aim(targets: Array, wind: Array) -> Array:
        idle = 0, -len(targets) % _LANES
        targets, wind = np.pad(targets, idle, mode="edge"), np.pad(wind, idle, mode="edge")
        angle = cannon.first_angle(targets)
        aim_all(angle, targets, wind)
        return angle[: len(angle) - idle[1]]

    return aim
