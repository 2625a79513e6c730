"""Optimistix, `vmap` and `jit`: two of its solvers on angle and landing time together over a Runge-Kutta scan."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx

from benchmarks.cannon import FINE_STEPS, Aim, Array, Cannon
from benchmarks.peers.jax_flight import first_time, flight


def newton(cannon: Cannon) -> Aim:
    return _prepared(cannon, optx.root_find, optx.Newton(rtol=1e-8, atol=cannon.tolerance / 10), 30)


def levenberg_marquardt(cannon: Cannon) -> Aim:
    return _prepared(cannon, optx.least_squares, optx.LevenbergMarquardt(rtol=1e-8, atol=cannon.tolerance / 10), 60)


def _prepared(cannon: Cannon, door: Callable[..., Any], solver: Any, max_steps: int) -> Aim:
    fly = flight(cannon, FINE_STEPS)

    def over(unknown: tuple[jax.Array, jax.Array], given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        (angle, time), (target, wind) = unknown, given
        x, y, *_ = fly(angle, time, wind)
        return x - target, y

    @jax.jit
    @jax.vmap
    def solved(angle: jax.Array, target: jax.Array, wind: jax.Array) -> jax.Array:
        first = angle, first_time(cannon, angle)
        return door(over, solver, first, (target, wind), max_steps=max_steps, throw=False).value[0]

    def aim(targets: Array, wind: Array) -> Array:
        return np.asarray(solved(jnp.asarray(cannon.first_angle(targets)), targets, wind))

    return aim
