"""Diffrax and Optimistix, `vmap` and `jit`: `Newton` on the angle around Tsit5 with a landing `Event`."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx

from benchmarks.cannon import Aim, Array, Cannon

jax.config.update("jax_enable_x64", True)


def prepare(cannon: Cannon) -> Aim:
    def slope(_: jax.Array, state: jax.Array, wind: jax.Array) -> jax.Array:
        _, _, u, v = state
        air = -cannon.drag * jnp.sqrt((u - wind) ** 2 + v * v)
        return jnp.stack([u, v, air * (u - wind), air * v - cannon.gravity])

    def ground(t: jax.Array, y: jax.Array, *_: object, **__: object) -> jax.Array:
        return y[1]

    term, method = diffrax.ODETerm(slope), diffrax.Tsit5()
    event = diffrax.Event(ground, optx.Newton(rtol=1e-9, atol=1e-9), direction=False)
    controller = diffrax.PIDController(rtol=1e-7, atol=1e-7)
    solver = optx.Newton(rtol=1e-7, atol=cannon.tolerance / 10)

    def over(angle: jax.Array, given: tuple[jax.Array, jax.Array]) -> jax.Array:
        target, wind = given
        nought = jnp.zeros_like(angle)
        start = jnp.stack([nought, nought, cannon.speed * jnp.cos(angle), cannon.speed * jnp.sin(angle)])
        flown = diffrax.diffeqsolve(
            term,
            method,
            0.0,
            10.0,
            0.01,
            start,
            wind,
            stepsize_controller=controller,
            event=event,
            adjoint=diffrax.ForwardMode(),
            max_steps=200,
            throw=False,
        )
        return flown.ys[0, 0] - target

    @jax.jit
    @jax.vmap
    def newton(angle: jax.Array, target: jax.Array, wind: jax.Array) -> jax.Array:
        return optx.root_find(over, solver, angle, (target, wind), max_steps=15, throw=False).value

    def aim(targets: Array, wind: Array) -> Array:
        return np.asarray(newton(jnp.asarray(cannon.first_angle(targets)), targets, wind))

    return aim
