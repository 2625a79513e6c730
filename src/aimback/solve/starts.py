"""Where solvers begin."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from aimback.core.box import Box
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
    within: torch.Generator | None = None,
) -> Tensor:
    """The starts of a problem, `(targets, number, n_controls)` in the unit cube.

    Args:
        guess: draws so many points from the task's prior, in the units of the box.
        generator: of starts drawn from the box; the same state gives every route the same ones.
        within: see `draw_evenly`.
    """
    if starts.drawn_from == "box":
        return draw_evenly(targets, starts.number, len(box), generator, within)
    guesses = box.to_unit(guess(targets * starts.number))
    return guesses.reshape(targets, starts.number, len(box))


def draw_evenly(
    targets: int, number: int, dimensions: int, generator: torch.Generator, within: torch.Generator | None = None
) -> Tensor:
    """A Latin hypercube for each target, `(targets, number, dimensions)` in the open unit cube, float64, on the CPU.

    Along every axis each of the `number` equal strata holds one start of each target (McKay, Beckman,
    Conover 1979): two starts already lie on either side of every axis's middle, so both the low and
    the high arc of a cannon have one nearby.

    Args:
        within: of the places in the strata; None: `generator` goes on with them. Part by part the starts are those of
            all targets at once where it is `generator` behind the strata of all of them.
    """
    shape = (targets, dimensions, number)
    order = torch.rand(shape, generator=generator, dtype=torch.float64)
    strata = order.argsort(dim=-1) if number > 1 else torch.zeros_like(order)
    places = torch.rand(shape, generator=within or generator, dtype=torch.float64)
    return ((strata + places) / number).transpose(1, 2).contiguous()
