"""Where solvers begin."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from aimback.core.box import Box
from aimback.core.randomness import draw_words
from aimback.core.section import Section

# As many as are moved at once, see `multistart`.
MOST_STARTS = 65_536


class Starts(Section):
    """The section `starts`: how many initial guesses a target has, and where they come from.

    Attributes:
        number: of guesses a target.
        until_solved: whether a target gets further ones only while none has hit it, see `rounds`.
        drawn_from: "box": evenly from all of it; "prior": as the task's literature draws initial guesses.
    """

    number: Annotated[int, Field(ge=1, le=MOST_STARTS)]
    drawn_from: Literal["box", "prior"]
    until_solved: bool


def draw_starts(
    starts: Starts,
    targets: int,
    box: Box,
    guess: Callable[[int], Tensor],
    generator: torch.Generator,
    device: torch.device | str,
    first: int,
) -> Tensor:
    """The starts of a problem, `(targets, number, n_controls)` in the unit cube.

    Args:
        guess: draws so many points from the task's prior, in the units of the box.
        generator: of starts drawn from the box; the same state gives every route the same ones.
        device, first: see `draw_evenly`.
    """
    if starts.drawn_from == "box":
        return draw_evenly(targets, starts.number, len(box), generator, device, first)
    guesses = box.to_unit(guess(targets * starts.number))
    return guesses.reshape(targets, starts.number, len(box))


def draw_evenly(
    targets: int,
    number: int,
    dimensions: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    first: int = 0,
) -> Tensor:
    """A Latin hypercube for each target, `(targets, number, dimensions)` in the open unit cube, float64.

    Along every axis each of the `number` equal strata holds one start of each target (McKay, Beckman,
    Conover 1979): two starts already lie on either side of every axis's middle, so both the low and
    the high arc of a cannon have one nearby.

    Args:
        generator: moved on by one number, the key; the starts of a target are a function of that, and of the target's
            own number, to the bit on every device.
        first: the number of the first target; those of a part of the targets are those of the whole.
    """
    key = int(torch.randint(2**63 - 1, (), generator=generator))
    size = dimensions * number
    words = draw_words(key, first * size, targets * size, device).view(targets, dimensions, number)
    # The upper halves of words put the strata in a random order, the lower half of each is the place in its stratum.
    # Stratum, place and the half of its last bit fit into a float64: no start is rounded onto a wall of its stratum.
    starts = words.argsort(dim=-1)
    starts <<= 32
    starts |= words.bitwise_and_(0xFFFFFFFF)
    starts = starts.transpose(1, 2).to(torch.float64, memory_format=torch.contiguous_format)
    return starts.add_(0.5).div_(number << 32)
