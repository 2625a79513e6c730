"""Diffrax, as the published benchmark calls it: `Tsit5` in steps of one size, vmap and jit."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.ensemble import BETA, DURATION, SIGMA, START, STEPS, Array, Integrate


def _slope(_: jax.Array, state: jax.Array, rho: jax.Array) -> jax.Array:
    x, y, z = state
    return jnp.stack([SIGMA * (y - x), x * (rho - z) - y, x * y - BETA * z])


@jax.jit
@jax.vmap
def _reach(rho: jax.Array) -> jax.Array:
    term, start = diffrax.ODETerm(_slope), jnp.asarray(START, jnp.float32)
    return diffrax.diffeqsolve(term, diffrax.Tsit5(), 0.0, DURATION, DURATION / STEPS, start, rho).ys[0]


def prepare() -> Integrate:
    def integrate(rho: Array) -> Array:
        return np.asarray(_reach(jnp.asarray(rho))).T

    return integrate
