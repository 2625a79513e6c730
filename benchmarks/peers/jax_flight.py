"""The flight in JAX: what the peers on JAX share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.cannon import Cannon

jax.config.update("jax_enable_x64", True)

# Components apart: stacked into one array they would be copied at every stage.
State = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
# (angle, time, wind) -> (x, y, u, v) seen from the ground
Flight = Callable[[jax.Array, jax.Array, jax.Array], State]


def flight(cannon: Cannon, steps: int) -> Flight:
    """The state after some time by the classical Runge-Kutta scheme; of a single shot or of an array of them."""
    lengths = jnp.diff(jnp.asarray(cannon.shares(steps)))

    def slope(state: State) -> State:
        _, _, u, v = state
        air = -cannon.drag * jnp.sqrt(u * u + v * v)
        return u, v, air * u, air * v - cannon.gravity

    def moved(state: State, h: jax.Array, rate: State) -> State:
        return jax.tree.map(lambda part, slope: part + h * slope, state, rate)

    def fly(angle: jax.Array, time: jax.Array, wind: jax.Array) -> State:
        def step(state: State, length: jax.Array) -> tuple[State, None]:
            h = length * time
            k1 = slope(state)
            k2 = slope(moved(state, h / 2, k1))
            k3 = slope(moved(state, h / 2, k2))
            k4 = slope(moved(state, h, k3))
            mean = jax.tree.map(lambda a, b, c, d: (a + 2 * (b + c) + d) / 6, k1, k2, k3, k4)
            return moved(state, h, mean), None

        nought = jnp.zeros_like(angle)
        u, v = cannon.speed * jnp.cos(angle) - wind, cannon.speed * jnp.sin(angle)
        (x, y, u, v), _ = jax.lax.scan(step, (nought, nought, u, v), lengths)
        return x + wind * time, y, u + wind, v

    return fly


def first_time(cannon: Cannon, angle: jax.Array) -> jax.Array:
    """Of the landing: a little less than in a vacuum."""
    return 1.9 * cannon.speed * jnp.sin(angle) / cannon.gravity
