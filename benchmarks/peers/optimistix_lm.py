"""Optimistix, `vmap` and `jit`: `LevenbergMarquardt` on angle and landing time together over a Runge-Kutta scan."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx

from benchmarks.cannon import FINE_STEPS, Aim, Array, Cannon
from benchmarks.peers.jax_flight import first_time, flight


def prepare(cannon: Cannon) -> Aim:
    fly = flight(cannon, FINE_STEPS)
    solver = optx.LevenbergMarquardt(rtol=1e-8, atol=cannon.tolerance / 10)

    def over(unknown: tuple[jax.Array, jax.Array], given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        (angle, time), (target, wind) = unknown, given
        x, y, *_ = fly(angle, time, wind)
        return x - target, y

    @jax.jit
    @jax.vmap
    def descend(angle: jax.Array, target: jax.Array, wind: jax.Array) -> jax.Array:
        first = angle, first_time(cannon, angle)
        return optx.least_squares(over, solver, first, (target, wind), max_steps=60, throw=False).value[0]

    def aim(targets: Array, wind: Array) -> Array:
        return np.asarray(descend(jnp.asarray(cannon.first_angle(targets)), targets, wind))

    return aim
