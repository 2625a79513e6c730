"""Numba: the classical Runge-Kutta scheme by hand, system by system, or on several systems in step."""

import numpy as np
from numba import njit

from benchmarks.ensemble import BETA, DURATION, SIGMA, START, STEPS, Array, Integrate

_LANES = 32
_WAYS = 1 + len(START)  # rho and the start
_H = np.float32(DURATION / STEPS)
_HALF, _THIRD, _SIXTH = (np.float32(_H / part) for part in (2, 3, 6))
_SIGMA, _BETA = np.float32(SIGMA), np.float32(BETA)
_START = tuple(map(np.float32, START))
_ZERO = np.float32(0)


@njit(fastmath=True, inline="always")
def _slope(x, y, z, rho):
    return _SIGMA * (y - x), x * (rho - z) - y, x * y - _BETA * z


@njit(fastmath=True, inline="always")
def _step(x, y, z, rho):
    """The next state, and the stages on the way to it."""
    a1, b1, c1 = _slope(x, y, z, rho)
    x2, y2, z2 = x + _HALF * a1, y + _HALF * b1, z + _HALF * c1
    a2, b2, c2 = _slope(x2, y2, z2, rho)
    x3, y3, z3 = x + _HALF * a2, y + _HALF * b2, z + _HALF * c2
    a3, b3, c3 = _slope(x3, y3, z3, rho)
    x4, y4, z4 = x + _H * a3, y + _H * b3, z + _H * c3
    a4, b4, c4 = _slope(x4, y4, z4, rho)
    after = (
        x + (_SIXTH * (a1 + a4) + _THIRD * (a2 + a3)),
        y + (_SIXTH * (b1 + b4) + _THIRD * (b2 + b3)),
        z + (_SIXTH * (c1 + c4) + _THIRD * (c2 + c3)),
    )
    return after, ((x, y, z), (x2, y2, z2), (x3, y3, z3), (x4, y4, z4))


@njit(fastmath=True, inline="always")
def _change(at, rho, dx, dy, dz, drho):
    """The slope's derivative in one direction."""
    x, y, z = at
    return _SIGMA * (dy - dx), dx * (rho - z) + x * (drho - dz) - dy, dx * y + x * dy - _BETA * dz


@njit(fastmath=True, inline="always")
def _step_tangent(stages, rho, dx, dy, dz, drho):
    a1, b1, c1 = _change(stages[0], rho, dx, dy, dz, drho)
    a2, b2, c2 = _change(stages[1], rho, dx + _HALF * a1, dy + _HALF * b1, dz + _HALF * c1, drho)
    a3, b3, c3 = _change(stages[2], rho, dx + _HALF * a2, dy + _HALF * b2, dz + _HALF * c2, drho)
    a4, b4, c4 = _change(stages[3], rho, dx + _H * a3, dy + _H * b3, dz + _H * c3, drho)
    return (
        dx + (_SIXTH * (a1 + a4) + _THIRD * (a2 + a3)),
        dy + (_SIXTH * (b1 + b4) + _THIRD * (b2 + b3)),
        dz + (_SIXTH * (c1 + c4) + _THIRD * (c2 + c3)),
    )


@njit(fastmath=True)
def _reach_each(rho, end):
    for row in range(len(rho)):
        x, y, z = _START
        for _ in range(STEPS):
            (x, y, z), _stages = _step(x, y, z, rho[row])
        end[0, row], end[1, row], end[2, row] = x, y, z


@njit(fastmath=True)
def _reach_in_step(rho, end):
    """Of `(blocks, lanes)` and `(blocks, columns, lanes)`."""
    for block in range(len(rho)):
        own = rho[block]
        x, y, z = np.full(_LANES, _START[0]), np.full(_LANES, _START[1]), np.full(_LANES, _START[2])
        for _ in range(STEPS):
            for i in range(_LANES):
                (x[i], y[i], z[i]), _stages = _step(x[i], y[i], z[i], own[i])
        end[block, 0], end[block, 1], end[block, 2] = x, y, z


@njit(fastmath=True)
def _reach_in_step_with_tangents(rho, end):
    for block in range(len(rho)):
        own, state = rho[block], end[block]
        state[:] = _ZERO
        for axis in range(3):
            state[axis] = _START[axis]
            state[3 + axis * _WAYS + 1 + axis] = np.float32(1)  # of the start by itself
        for _ in range(STEPS):
            for i in range(_LANES):
                after, stages = _step(state[0, i], state[1, i], state[2, i], own[i])
                for way in range(_WAYS):
                    drho = np.float32(1) if way == 0 else _ZERO
                    x, y, z = 3 + way, 3 + _WAYS + way, 3 + 2 * _WAYS + way
                    state[x, i], state[y, i], state[z, i] = _step_tangent(
                        stages, own[i], state[x, i], state[y, i], state[z, i], drho
                    )
                state[0, i], state[1, i], state[2, i] = after


def prepare() -> Integrate:
    def integrate(rho: Array) -> Array:
        end = np.empty((3, len(rho)), np.float32)
        _reach_each(rho, end)
        return end

    return integrate


def _in_blocks(reach, columns: int) -> Integrate:
    def integrate(rho: Array) -> Array:
        blocks = np.pad(rho, (0, -len(rho) % _LANES), mode="edge").reshape(-1, _LANES)
        end = np.empty((len(blocks), columns, _LANES), np.float32)
        reach(blocks, end)
        return end.transpose(1, 0, 2).reshape(columns, -1)[:, : len(rho)]

    return integrate


def in_step() -> Integrate:
    return _in_blocks(_reach_in_step, 3)


def in_step_with_tangents() -> Integrate:
    return _in_blocks(_reach_in_step_with_tangents, 3 + 3 * _WAYS)
