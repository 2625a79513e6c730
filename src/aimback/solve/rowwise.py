"""Reductions over a dimension of a few entries, written out.

Those of torch are made for long dimensions: over two entries they cost five times the one addition. Dimensions of more
than `_FEW` entries, as of a task with a hundred outcomes, are theirs.
"""

import functools

import torch
from torch import Tensor

from aimback.core.tracing import is_traced

_FEW = 32


def total(terms: Tensor, dim: int = -1) -> Tensor:
    """The sum along a dimension, from the first entry to the last."""
    return functools.reduce(torch.add, terms.unbind(dim)) if _is_short(terms, dim) else terms.sum(dim)


def dot(a: Tensor, b: Tensor, dim: int = -1) -> Tensor:
    """The sum of products along a dimension; the others are broadcast."""
    return total(a * b, dim)


def square(matrix: Tensor, dim: int) -> Tensor:
    """The products of all pairs of columns (`dim` 1) or of rows (`dim` 2), summed along that dimension."""
    if _is_short(matrix, 1) and _is_short(matrix, 2):
        pairs = (matrix[:, :, :, None], matrix[:, :, None, :]) if dim == 1 else (matrix[:, :, None], matrix[:, None])
        return dot(*pairs, dim if dim == 1 else -1)
    return matrix.mT @ matrix if dim == 1 else matrix @ matrix.mT


def greatest(terms: Tensor, dim: int = -1) -> Tensor:
    """The greatest entry along a dimension; NaN where one is."""
    return functools.reduce(torch.maximum, terms.unbind(dim)) if _is_short(terms, dim) else terms.amax(dim)


def largest(terms: Tensor, dim: int = -1) -> Tensor:
    """The greatest magnitude along a dimension; NaN where one is."""
    return greatest(terms.abs(), dim)


def some(flags: Tensor, dim: int = -1) -> Tensor:
    """Whether one holds, along a dimension."""
    return functools.reduce(torch.logical_or, flags.unbind(dim)) if _is_short(flags, dim) else flags.any(dim)


def _is_short(terms: Tensor, dim: int) -> bool:
    """Whether a reduction is written out; in a traced program each is."""
    return terms.shape[dim] <= _FEW or is_traced()


def solve_systems(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve a linear system a row: `(rows, n, n)`, `(rows, n)` -> `(rows, n)`; not finite where there is no solution.

    By elimination, each pivot the largest of its column. Sizes 1 and 2 are written out, and in a traced
    program all: no call a row, and a compiler can join it to the rest.
    """
    size = right.shape[-1]
    if size == 1:
        return right / matrix[:, 0]
    if size == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
        x, y = right.unbind(-1)
        return torch.stack([d * x - b * y, a * y - c * x], dim=-1) / (a * d - b * c)[:, None]
    if not is_traced():
        solved: Tensor = torch.linalg.solve_ex(matrix, right)[0]
        return solved
    rows = list(torch.cat([matrix, right[:, :, None]], dim=-1).unbind(-2))
    for column in range(size):
        for other in range(column + 1, size):
            above, below = rows[column], rows[other]
            greater = (below[:, column].abs() > above[:, column].abs())[:, None]
            rows[column], rows[other] = torch.where(greater, below, above), torch.where(greater, above, below)
        rows[column] = rows[column] / rows[column][:, column : column + 1]
        for other in range(size):
            if other != column:
                rows[other] = rows[other] - rows[other][:, column : column + 1] * rows[column]
    return torch.stack([row[:, size] for row in rows], dim=-1)


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve as `solve_systems` where every matrix is symmetric and positive definite.

    In a traced program it goes without the search for pivots, which nothing of that kind needs (Golub & Van Loan 2013,
    section 4.1), and looks at one half of the matrix: a fifth of the arithmetic for seven unknowns.
    """
    size = right.shape[-1]
    if not is_traced():
        if size <= _FEW:
            return solve_systems(matrix, right)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        solved = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
        return torch.where(failed[:, None] == 0, solved, torch.nan)
    if size <= 2:
        return solve_systems(matrix, right)
    shares, parts = [], []
    for _ in range(size):
        row, first = matrix[:, 0], right[:, :1]
        inverse = 1 / row[:, :1]
        share = row[:, 1:] * inverse
        shares.append(share)
        parts.append((first * inverse)[:, 0])
        matrix = matrix[:, 1:, 1:] - share[:, :, None] * row[:, None, 1:]
        right = right[:, 1:] - share * first
    entries: list[Tensor] = []
    for part, share in zip(reversed(parts), reversed(shares), strict=True):
        entries.insert(0, part - dot(share, torch.stack(entries, dim=-1)) if entries else part)
    return torch.stack(entries, dim=-1)
