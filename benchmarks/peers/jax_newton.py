"""JAX: Newton's method on angle and landing time together, forward tangents, compiled; no further library."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cannon import COARSE_STEPS, FINE_STEPS, Aim, Array, Cannon
from benchmarks.peers.jax_flight import Flight, first_time, flight


def prepare(cannon: Cannon) -> Aim:
    coarse, fine = flight(cannon, COARSE_STEPS), flight(cannon, FINE_STEPS)

    def improved(
        fly: Flight, angle: jax.Array, time: jax.Array, target: jax.Array, wind: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        # By the time a place changes at the velocity, so only the angle needs a tangent.
        (x, y, u, v), (xa, ya, *_) = jax.jvp(lambda a: fly(a, time, wind), (angle,), (jnp.ones_like(angle),))
        over, determinant = x - target, xa * v - u * ya
        return angle - (v * over - u * y) / determinant, time - (xa * y - ya * over) / determinant

    @jax.jit
    def newton(angle: jax.Array, target: jax.Array, wind: jax.Array) -> jax.Array:
        time = first_time(cannon, angle)
        for fly in (coarse, coarse, coarse, fine, fine):
            angle, time = improved(fly, angle, time, target, wind)
        return angle

    def aim(targets: Array, wind: Array) -> Array:
        return np.asarray(newton(cannon.first_angle(targets), targets, wind))

    return aim
