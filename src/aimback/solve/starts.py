"""Where solvers begin."""

import torch
from torch import Tensor


def stratified_starts(targets: int, starts: int, dimensions: int, generator: torch.Generator) -> Tensor:
    """Latin hypercube starts, `(targets, starts, dimensions)` in the open unit cube, float64, on the CPU.

    Along every axis each of the `starts` equal strata holds one start of each target (McKay, Beckman,
    Conover 1979): two starts already lie on either side of every axis's middle, so both the low and
    the high arc of a cannon have one nearby.
    """
    shape = (targets, dimensions, starts)
    strata = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(dim=-1)
    within = torch.rand(shape, generator=generator, dtype=torch.float64)
    return ((strata + within) / starts).transpose(1, 2).contiguous()
