"""JAX: the classical Runge-Kutta scheme of one system in a loop, vmap and jit; `jacfwd` for tangents."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.ensemble import BETA, DURATION, SIGMA, START, STEPS, Array, Integrate

# Components apart: stacked into one array they would be copied at every stage.
_State = tuple[jax.Array, jax.Array, jax.Array]
_H = DURATION / STEPS


def _slope(state: _State, rho: jax.Array) -> _State:
    x, y, z = state
    return SIGMA * (y - x), x * (rho - z) - y, x * y - BETA * z


def _move(state: _State, h: float, rate: _State) -> _State:
    return jax.tree.map(lambda part, slope: part + h * slope, state, rate)


def _reach(rho: jax.Array, *start: jax.Array) -> _State:
    def step(_: int, state: _State) -> _State:
        k1 = _slope(state, rho)
        k2 = _slope(_move(state, _H / 2, k1), rho)
        k3 = _slope(_move(state, _H / 2, k2), rho)
        k4 = _slope(_move(state, _H, k3), rho)
        mean = jax.tree.map(lambda a, b, c, d: (a + 2 * (b + c) + d) / 6, k1, k2, k3, k4)
        return _move(state, _H, mean)

    return jax.lax.fori_loop(0, STEPS, step, start)


def _reach_with_tangents(rho: jax.Array, *start: jax.Array) -> list[jax.Array]:
    def twice(*given: jax.Array) -> tuple[_State, _State]:
        end = _reach(*given)
        return end, end

    tangents, end = jax.jacfwd(twice, argnums=(0, 1, 2, 3), has_aux=True)(rho, *start)
    return [*end, *(one for row in tangents for one in row)]


def _prepare(reach) -> Integrate:
    whole = jax.jit(jax.vmap(reach))

    def integrate(rho: Array) -> Array:
        return np.stack(whole(jnp.asarray(rho), *(jnp.full(rho.shape, one, jnp.float32) for one in START)))

    return integrate


def prepare() -> Integrate:
    return _prepare(_reach)


def with_tangents() -> Integrate:
    return _prepare(_reach_with_tangents)
