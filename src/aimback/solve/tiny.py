"""Reductions over a dimension of a few entries, written out.

Those of torch are made for long dimensions: over two entries they cost five times the one addition.
"""

import functools

import torch
from torch import Tensor


def total(terms: Tensor, dim: int = -1) -> Tensor:
    """The sum along a dimension, from the first entry to the last."""
    return functools.reduce(torch.add, terms.unbind(dim))


def dot(a: Tensor, b: Tensor, dim: int = -1) -> Tensor:
    """The sum of products along a dimension; the others are broadcast."""
    return total(a * b, dim)


def largest(terms: Tensor, dim: int = -1) -> Tensor:
    """The greatest magnitude along a dimension; NaN where one is."""
    return functools.reduce(torch.maximum, terms.abs().unbind(dim))


def every(flags: Tensor, dim: int = -1) -> Tensor:
    """Whether all hold, along a dimension."""
    return functools.reduce(torch.logical_and, flags.unbind(dim))


def some(flags: Tensor, dim: int = -1) -> Tensor:
    """Whether one holds, along a dimension."""
    return functools.reduce(torch.logical_or, flags.unbind(dim))
