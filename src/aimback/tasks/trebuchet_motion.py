"""The trebuchet's equations of motion: sling on the ground, sling in the air, projectile in flight.

The machine of FluxML/Trebuchet.jl; the motion follows from the Lagrangian that virtualtrebuchet.com
documents, here in angles against the vertical, where the mass matrix is simpler than in theirs. The
origin is the pivot; x points to the target, y up. A state of the machine is

    (arm, hanger, sling, d arm/dt, d hanger/dt, d sling/dt):

the angles of the arm (0 with its long end up), of the hanger of the counterweight (0 hanging down)
and of the sling (0 pointing up, pi down) in rad, counterclockwise. A state in flight is (x, height
above the ground, dx/dt, dy/dt), seen from the moving air.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aimback.autodiff.ode import Derivative, Measure, State

FOOT = 0.3048  # m
POUND = 0.45359237  # kg

GRAVITY = 9.80665  # m/s^2
PIVOT_HEIGHT = 5.0 * FOOT
LONG_ARM = 6.792 * FOOT
SHORT_ARM = 1.75 * FOOT
HANGER = 2.0 * FOOT
SLING = 6.833 * FOOT
PROJECTILE_RADIUS = 0.1245 * FOOT
PROJECTILE = 0.328 * POUND
ARM = 10.65 * POUND
AIR_DENSITY = 1.0  # kg/m^3, as published
DRAG_COEFFICIENT = 1.0

ARM_INERTIA = ARM * (LONG_ARM + SHORT_ARM) ** 2 / 12  # kg m^2, a rod about its middle
WEIGHT_INERTIA = 1.0 * POUND * FOOT**2  # kg m^2, as published

DRAG = AIR_DENSITY * DRAG_COEFFICIENT * math.pi * PROJECTILE_RADIUS**2 / (2 * PROJECTILE)  # 1/m

_ARM_CENTRE = (LONG_ARM - SHORT_ARM) / 2
_ARM_PULL = ARM * _ARM_CENTRE
_PROJECTILE_ON_ARM = PROJECTILE * LONG_ARM
_COUPLING = PROJECTILE * LONG_ARM * SLING
_SLING_INERTIA = PROJECTILE * SLING**2


@dataclass(frozen=True)
class Stage:
    """A part of the motion and the event that ends it.

    Attributes:
        derivative: state -> rate of change.
        tempo: state -> ticks a second of a clock by which the motion is even.
        effort: its share of Runge-Kutta steps, the hardest stage having 1.
        pace: ticks between two looks for the event; it does not come and go within them.
        crossing: state -> a number that falls from above zero to zero at the event.
        differentiate: the same by finite difference, as a program without accelerations at hand has
            it: (state, state at the start of the step, time since) -> number; None where there is no need.
    """

    derivative: Derivative
    tempo: Measure
    effort: float
    pace: float
    crossing: Measure
    differentiate: Callable[[State, State, Any], Any] | None = None


class Machine:
    """The swinging trebuchet with one counterweight.

    Args:
        weight: mass of the counterweight in kg, `(...)`.
        arm_inertia, weight_inertia: of the arm and the counterweight about their own centres, kg m^2.
    """

    def __init__(self, weight: Any, arm_inertia: float, weight_inertia: float) -> None:
        self._coupling = weight * (SHORT_ARM * HANGER)
        self._arm = weight * SHORT_ARM**2 + (arm_inertia + ARM * _ARM_CENTRE**2 + PROJECTILE * LONG_ARM**2)
        self._hanger = weight * HANGER**2 + weight_inertia
        self._hanger_pull = weight * (GRAVITY * HANGER)
        self._pull_on_ground = (_ARM_PULL - weight * SHORT_ARM) * GRAVITY
        self._pull_in_air = self._pull_on_ground + GRAVITY * _PROJECTILE_ON_ARM

    def on_ground(self, state: State) -> State:
        """Rates while the projectile slides without friction: the sling follows from the level ground."""
        arm, hanger, sling, arm_rate, hanger_rate, sling_rate = state
        (sin_a, cos_a), (sin_s, cos_s) = _sine(arm), _sine(sling)
        couple, hanger_force, hanger_lag, hanger_term = self._hanging(sin_a, cos_a, hanger, arm_rate, hanger_rate)
        cos_as, sin_as = cos_a * cos_s + sin_a * sin_s, sin_a * cos_s - cos_a * sin_s
        arm_square, sling_square = arm_rate * arm_rate, sling_rate * sling_rate
        # d2 sling/dt2 = -ratio * d2 arm/dt2 - bend keeps LONG_ARM cos(arm) + SLING cos(sling) where it is.
        lever = SLING * sin_s
        ratio = LONG_ARM * sin_a / lever
        bend = (LONG_ARM * cos_a * arm_square + SLING * cos_s * sling_square) / lever
        mixed = _COUPLING * cos_as
        drive = mixed - _SLING_INERTIA * ratio
        force = self._pull_on_ground * sin_a + hanger_term - _COUPLING * sin_as * (sling_square + ratio * arm_square)
        inertia = self._arm - ratio * (mixed + drive) - hanger_lag
        arm_push = (force + drive * bend) / inertia
        hanger_push = (hanger_force - couple * arm_push) / self._hanger
        return arm_rate, hanger_rate, sling_rate, arm_push, hanger_push, -ratio * arm_push - bend

    def in_air(self, state: State) -> State:
        """Rates while the projectile hangs in the sling."""
        arm, hanger, sling, arm_rate, hanger_rate, sling_rate = state
        (sin_a, cos_a), (sin_s, cos_s) = _sine(arm), _sine(sling)
        couple, hanger_force, hanger_lag, hanger_term = self._hanging(sin_a, cos_a, hanger, arm_rate, hanger_rate)
        cos_as, sin_as = cos_a * cos_s + sin_a * sin_s, sin_a * cos_s - cos_a * sin_s
        mixed = _COUPLING * cos_as
        sling_force = (GRAVITY * PROJECTILE * SLING) * sin_s + _COUPLING * sin_as * (arm_rate * arm_rate)
        share = mixed / _SLING_INERTIA
        force = self._pull_in_air * sin_a + hanger_term - _COUPLING * sin_as * (sling_rate * sling_rate)
        arm_push = (force - share * sling_force) / (self._arm - hanger_lag - share * mixed)
        hanger_push = (hanger_force - couple * arm_push) / self._hanger
        return (
            arm_rate,
            hanger_rate,
            sling_rate,
            arm_push,
            hanger_push,
            (sling_force - mixed * arm_push) / _SLING_INERTIA,
        )

    def _hanging(self, sin_a: Any, cos_a: Any, hanger: Any, arm_rate: Any, hanger_rate: Any) -> tuple[Any, ...]:
        """What the counterweight does to the arm, its own acceleration eliminated."""
        sin_h, cos_h = _sine(hanger)
        couple = self._coupling * (cos_a * cos_h + sin_a * sin_h)
        swing = self._coupling * (sin_a * cos_h - cos_a * sin_h)
        force = swing * (arm_rate * arm_rate) - self._hanger_pull * sin_h
        share = couple / self._hanger
        return couple, force, share * couple, -swing * (hanger_rate * hanger_rate) - share * force


def rest(like: Tensor) -> State:
    """The cocked machine: long arm and sling on the ground, counterweight hanging down, `(...)` each."""
    nought = torch.zeros_like(like)
    arm = math.pi / 2 + math.asin(PIVOT_HEIGHT / LONG_ARM)
    return nought + arm, nought, nought + 3 * math.pi / 2, nought, nought, nought


def projectile(state: State) -> tuple[Any, Any, Any, Any]:
    """Position (x, y) and velocity of the projectile at the end of the sling."""
    arm, _, sling, arm_rate, _, sling_rate = state
    (sin_a, cos_a), (sin_s, cos_s) = _sine(arm), _sine(sling)
    x, y = -LONG_ARM * sin_a - SLING * sin_s, LONG_ARM * cos_a + SLING * cos_s
    along = -LONG_ARM * cos_a * arm_rate - SLING * cos_s * sling_rate
    up = -LONG_ARM * sin_a * arm_rate - SLING * sin_s * sling_rate
    return x, y, along, up


def pull(state: State, rate: State) -> Any:
    """Horizontal acceleration of the projectile, negative as long as the sling pulls, m/s^2."""
    arm, _, sling, arm_rate, _, sling_rate = state
    (sin_a, cos_a), (sin_s, cos_s) = _sine(arm), _sine(sling)
    from_arm = LONG_ARM * (sin_a * (arm_rate * arm_rate) - cos_a * rate[3])
    return from_arm + SLING * (sin_s * (sling_rate * sling_rate) - cos_s * rate[5])


def sliding(machine: Machine) -> Stage:
    """On the ground, until the sling carries the projectile's weight."""

    def crossing(state: State) -> Any:
        return _ground_push(state, pull(state, machine.on_ground(state)))

    def differentiate(state: State, before: State, elapsed: Any) -> Any:
        return _ground_push(state, (projectile(state)[2] - projectile(before)[2]) / elapsed)

    return Stage(machine.on_ground, _swing_tempo, 1 / 3, 0.25, crossing, differentiate)


def swinging(machine: Machine, release_angle: Any) -> Stage:
    """In the air, until the projectile's velocity has turned down to the release angle."""
    sine, cosine = torch.sin(release_angle), torch.cos(release_angle)

    def crossing(state: State) -> Any:
        _, _, along, up = projectile(state)
        return up * cosine - along * sine

    return Stage(machine.in_air, _swing_tempo, 1.0, 0.6, crossing)


def flying() -> Stage:
    """From the release until the ground; Newton's quadratic drag."""

    def derivative(state: State) -> State:
        _, _, along, up = state
        # The smallest normal number keeps the square root differentiable where the projectile rests in the air.
        speed = torch.sqrt(along * along + up * up + torch.finfo(along.dtype).tiny)
        resistance = -DRAG * speed
        return along, up, resistance * along, resistance * up - GRAVITY

    return Stage(derivative, _flight_tempo, 0.5, 8.0, lambda state: state[1])


def _swing_tempo(state: State) -> Any:
    """Ticks a second: fast where arm and hanger stretch to one line.

    There the counterweight hardly resists, and a heavy one makes the arm dart through within some
    milliseconds. Power and shares are tuned for the least error of the thrown projectile.
    """
    _, _, _, arm_rate, hanger_rate, sling_rate = state
    fold = arm_rate - hanger_rate
    square = fold * fold + 0.1 * (sling_rate * sling_rate) + 9.0
    root = torch.sqrt(square)
    return root * torch.sqrt(root)


def _flight_tempo(state: State) -> Any:
    """Ticks a second: the faster the projectile, the faster drag slows it."""
    _, _, along, up = state
    return torch.sqrt(along * along + up * up + 400.0)


def _ground_push(state: State, acceleration: Any) -> Any:
    """What presses on the ground: g + acceleration * cot(sling), times -sin(sling), which is positive there.

    The sling's tension T moves the projectile along the ground, m * acceleration = T sin(sling), and
    lifts it with -T cos(sling).
    """
    sin_s, cos_s = _sine(state[2])
    return -GRAVITY * sin_s - acceleration * cos_s


def _sine(angle: Any) -> tuple[Any, Any]:
    return torch.sin(angle), torch.cos(angle)
