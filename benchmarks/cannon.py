"""The work that every peer is given, in plain numbers: no peer pays for the import of another one's library."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# (targets in m, `(n,)`; wind in m/s, `(n,)`) -> angles in rad, `(n,)`
Aim = Callable[[Array, Array], Array]

COARSE_STEPS = 6
FINE_STEPS = 24


@dataclass(frozen=True)
class Cannon:
    """A cannon fired at one speed in air, `dV/dt = -(0, g) - k |V - W| (V - W)`; wanted is the angle.

    Seen from the moving air there is no wind and the muzzle drifts, so peers that integrate by hand
    do it there, and add wind times time at the end.

    Attributes:
        speed: at the muzzle in m/s; gravity: g in m/s^2; drag: k in 1/m.
        tolerance: the miss in m that an answer may have.
    """

    speed: float
    gravity: float
    drag: float
    tolerance: float

    def shares(self, steps: int) -> Array:
        """Times of a Runge-Kutta grid as shares of the flight, `(steps + 1,)`: `aimback.autodiff.ode.grade_times`
        for a shot at 45 degrees in a vacuum; the same grid serves all angles within the box."""
        duration = math.sqrt(2) * self.speed / self.gravity
        decay = self.drag * self.speed * duration
        bend = decay / (16 + decay)
        share = np.arange(steps + 1) / steps
        for _ in range(2):
            share = share - bend * share * (1 - share)
        return share

    def first_angle(self, targets: Array) -> Array:
        """The low angle to a target in a vacuum, for a speed at which it would take 7/10 of the distance."""
        return 0.5 * np.arcsin(np.minimum(0.95, 1.3 * targets * self.gravity / self.speed**2))
