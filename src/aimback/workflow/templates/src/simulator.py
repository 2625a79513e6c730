"""The simulator: controls and conditions in, the outcome out. This one is an example; put yours in its place."""

import math

GRAVITY = 9.81  # m/s^2


def simulate(speed: float, angle: float, wind: float) -> float:
    """The distance in m at which a ball lands that leaves the ground at a speed in m/s and an angle in rad."""
    flight = 2 * speed * math.sin(angle) / GRAVITY
    return flight * (speed * math.cos(angle) + wind)
