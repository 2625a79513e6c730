"""Numba: Newton's method on angle and landing time together, tangents by hand, one compiled loop over the targets."""

import math

import numpy as np
from numba import njit

from benchmarks.cannon import COARSE_STEPS, FINE_STEPS, Aim, Array, Cannon


def prepare(cannon: Cannon) -> Aim:
    speed, gravity, drag = cannon.speed, cannon.gravity, cannon.drag
    coarse, fine = np.diff(cannon.shares(COARSE_STEPS)), np.diff(cannon.shares(FINE_STEPS))

    @njit(fastmath=True, error_model="numpy")
    def slope(u, v, ua, va):
        fast = math.sqrt(u * u + v * v)
        air, by_angle = -drag * fast, -drag * (u * ua + v * va) / fast
        return air * u, air * v - gravity, by_angle * u + air * ua, by_angle * v + air * va

    @njit(fastmath=True, error_model="numpy")
    def fly(angle, time, wind, lengths):
        """Place, its derivative by the angle, and velocity (its derivative by the time), seen from the air."""
        c, s = math.cos(angle), math.sin(angle)
        x = y = xa = ya = 0.0
        u, v, ua, va = speed * c - wind, speed * s, -speed * s, speed * c
        for length in lengths:
            h = length * time
            half, third, sixth = h / 2, h / 3, h / 6
            u1, v1, ua1, va1 = slope(u, v, ua, va)
            u_, v_, ua_, va_ = u + half * u1, v + half * v1, ua + half * ua1, va + half * va1
            x, y, xa, ya = x + sixth * u, y + sixth * v, xa + sixth * ua, ya + sixth * va
            x, y, xa, ya = x + third * u_, y + third * v_, xa + third * ua_, ya + third * va_
            u2, v2, ua2, va2 = slope(u_, v_, ua_, va_)
            u_, v_, ua_, va_ = u + half * u2, v + half * v2, ua + half * ua2, va + half * va2
            x, y, xa, ya = x + third * u_, y + third * v_, xa + third * ua_, ya + third * va_
            u3, v3, ua3, va3 = slope(u_, v_, ua_, va_)
            u_, v_, ua_, va_ = u + h * u3, v + h * v3, ua + h * ua3, va + h * va3
            x, y, xa, ya = x + sixth * u_, y + sixth * v_, xa + sixth * ua_, ya + sixth * va_
            u4, v4, ua4, va4 = slope(u_, v_, ua_, va_)
            u, v = u + sixth * (u1 + 2 * (u2 + u3) + u4), v + sixth * (v1 + 2 * (v2 + v3) + v4)
            ua, va = ua + sixth * (ua1 + 2 * (ua2 + ua3) + ua4), va + sixth * (va1 + 2 * (va2 + va3) + va4)
        return x, y, xa, ya, u, v

    @njit(fastmath=True, error_model="numpy")
    def newton(angle, target, wind):
        time = 1.9 * speed * math.sin(angle) / gravity
        for turn in range(5):
            x, y, xa, ya, u, v = fly(angle, time, wind, coarse if turn < 3 else fine)
            over, u = x + wind * time - target, u + wind
            determinant = xa * v - u * ya
            angle -= (v * over - u * y) / determinant
            time -= (xa * y - ya * over) / determinant
        return angle

    @njit
    def aim_all(first, targets, wind):
        angles = np.empty_like(targets)
        for row in range(len(targets)):
            angles[row] = newton(first[row], targets[row], wind[row])
        return angles

    def aim(targets: Array, wind: Array) -> Array:
        return np.asarray(aim_all(cannon.first_angle(targets), targets, wind))

    return aim
