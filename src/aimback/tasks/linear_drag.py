"""Flight against linear drag, in its natural units.

With mass m and drag coefficient k, times are counted in m / k, speeds in the terminal speed g m / k
and lengths in their product. A body at height h with vertical speed v then follows
`y(t) = h + v s - (t - s)` with `s = 1 - exp(-t)`.
"""

from typing import Any

import torch
from torch import Tensor

from aimback.autodiff.dual import value_of

_STEPS = 2  # of third order, from a guess within some per cent
_STEEPEST = -60.0  # exponent; a fall that fast is far outside of what lands


def share_of_range(time: Any) -> Any:
    """`1 - exp(-t)`: the share of its whole way that a body has gone forwards."""
    return -torch.expm1(-time)


def height_at(time: Any, height: Any, rise: Any) -> Any:
    """y at a time."""
    gone = share_of_range(time)
    return height + rise * gone - (time - gone)


def never_lands(height: Tensor, rise: Tensor) -> Tensor:
    """Whether the ground lies above all of the flight to come, so that it is never met falling."""
    return (height < 0) & ((rise <= 0) | (_depth(height, rise) < 0))


def landing_time(height: Any, rise: Any) -> Any:
    """When the body meets y = 0 falling, `(...)`; of no meaning where it never lands.

    In closed form `t = h + a + W(-a exp(-h - a))`, a = 1 + v, with the main branch of Lambert's W
    (Corless et al., Adv. Comput. Math. 5, 1996). Its expansion at the branch point is the guess, which
    Halley's iteration takes to rounding; one Newton step more carries the derivatives.
    """
    h, v = value_of(height), value_of(rise)
    # The slope of y at the landing is -w with w = 1 + W, and w = p - p^2 / 3 + 11 p^3 / 72 - ..., here as a
    # quotient, which holds within 1 % up to p = sqrt(2). Only a shot downwards faster than the terminal
    # speed has a greater p; that one falls almost evenly.
    p = torch.sqrt(2 * _depth(h, v).clamp(min=0))
    plunges = v <= -1
    time = torch.where(plunges, h / torch.where(plunges, -v, 1.0), h + v + p * (1 + p / 8) / (1 + 11 * p / 24))
    for _ in range(_STEPS):
        gone = share_of_range(time)
        slope = _falling(v - (1 + v) * gone)
        newton = (h + v * gone - (time - gone)) / slope
        time = time - newton / (1 + newton * (1 + v) * (1 - gone) / (2 * slope))
    slope = _falling(v - (1 + v) * share_of_range(time))
    return time - height_at(time, height, rise) / slope


def _depth(height: Tensor, rise: Tensor) -> Tensor:
    """`1 - a exp(-h - v)`, which is p^2 / 2 of the expansion; negative where the apex lies below the ground."""
    bound = (height + rise).clamp(min=_STEEPEST)
    gone = share_of_range(bound)
    depth: Tensor = gone - rise * (1 - gone)
    return depth


def _falling(slope: Tensor) -> Tensor:
    """The slope where it is negative. It is 0 for a body set down at rest on the ground, whose landing
    time has no derivative; -1 keeps that finite, and nothing moves forwards there to be multiplied by it."""
    return torch.where(slope < 0, slope, -1.0)
