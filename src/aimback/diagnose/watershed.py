"""The local minima of a loss on a grid, told from what is only the grid's or the rounding's doing.

Between grid points the residual, not the loss, is taken as linear: on a triangle (with one control, a
segment) the loss is then convex and its minimum known in closed form. A curved valley of solutions is
thus one minimum at zero, and not a string of pits, however it runs through the grid. A minimum counts
where it is prominent: every way from it to a lower one climbs by more than a given height. This is the
0-dimensional persistence of the sublevel sets (Edelsbrunner, Letscher, Zomorodian 2002). One that is no
solution either is a dead end.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mesh:
    """How a grid is cut into cells; indices of corners count the grid points row by row.

    Attributes:
        cells: corners of each, `(n_cells, 3)` for triangles, `(n_cells, 2)` for segments.
        borders: corners of what each two neighbours share, `(n_borders, 2)` or `(n_borders, 1)`.
        sides: the two neighbours, `(n_borders, 2)`.
    """

    cells: Tensor
    borders: Tensor
    sides: Tensor

    @classmethod
    def line(cls, points: int) -> "Mesh":
        """Segments between neighbours."""
        at = torch.arange(points)
        cells = torch.stack([at[:-1], at[1:]], dim=-1)
        return cls(cells, at[1:-1, None], cells[:-1])

    @classmethod
    def square(cls, points: int) -> "Mesh":
        """Two triangles a square of the grid."""
        at = torch.arange(points * points).reshape(points, points)
        here, right, below, across = at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]
        near, far = torch.arange(2 * here.numel()).reshape(2, points - 1, points - 1)
        cells = [(here, right, below), (across, right, below)]
        borders = [(right, below), (right[:, :-1], across[:, :-1]), (below[:-1], across[:-1])]
        sides = [(near, far), (far[:, :-1], near[:, 1:]), (far[:-1], near[1:])]
        return cls(
            *(torch.cat([torch.stack(one, dim=-1).flatten(0, 1) for one in part]) for part in (cells, borders, sides))
        )


@dataclass(frozen=True)
class Basins:
    """The cells that drain to each prominent minimum.

    Attributes:
        lowest: least root of the loss in each cell, `(slices, n_cells)`; infinite where the residual is not finite.
        drains: the cell, numbered over all slices, in which its basin is lowest, `(slices, n_cells)`.
        prominence: that a minimum needs to count, and above which it is a dead end; a root of the loss.
    """

    lowest: Tensor
    drains: Tensor
    prominence: float

    @cached_property
    def minima(self) -> Tensor:
        """Which cells are the bottom of a basin, `(slices, n_cells)`."""
        own = torch.arange(self.drains.numel()).view_as(self.drains)
        return (self.drains == own) & torch.isfinite(self.lowest)

    @cached_property
    def dead_ends(self) -> Tensor:
        """Which of these are no solutions, `(slices, n_cells)`."""
        return self.minima & (self.lowest > self.prominence)

    def beyond(self, truth: "Basins") -> Tensor:
        """How many dead ends the truth does not have, `(slices,)`: each of its own excuses one in its basin."""
        met = torch.zeros_like(self.drains).flatten()
        met.index_add_(0, truth.drains[self.dead_ends], torch.ones_like(truth.drains[self.dead_ends]))
        excused = truth.dead_ends & (met.view_as(self.drains) > 0)
        return self.dead_ends.sum(-1) - excused.sum(-1)


def find_basins(residual: Tensor, mesh: Mesh, prominence: float) -> Basins:
    """Where a descent over each slice comes to rest.

    Args:
        residual: at the grid's points, `(slices, n_points, n_outcomes)`; NaN is no part of the slice.
        prominence: a root of the loss.
    """
    residual = torch.where(torch.isfinite(residual).all(-1, keepdim=True), residual, torch.nan)
    # Slice by slice, for of hundreds of outcomes one is a gigabyte.
    lowest = torch.stack([_least(one[mesh.cells]) for one in residual]).nan_to_num(nan=torch.inf)
    pass_height = torch.cat([_least(one[mesh.borders]) for one in residual])
    slices, cells = lowest.shape
    sides = (mesh.sides + cells * torch.arange(slices)[:, None, None]).flatten(0, 1)
    open_ = torch.isfinite(pass_height) & torch.isfinite(lowest.flatten()[sides]).all(-1)
    order = pass_height[open_].argsort(stable=True)
    drains = _merge(lowest.flatten(), sides[open_][order], pass_height[open_][order], prominence)
    return Basins(lowest, drains.view_as(lowest), prominence)


def _merge(lowest: Tensor, sides: Tensor, height: Tensor, prominence: float) -> Tensor:
    """Join each basin that is not prominent with its neighbour over its lowest pass, until all are (Boruvka 1926).

    Where two basins meet, the one with the higher bottom ends. At the lowest pass out of one of them, no more
    than the prominence above its bottom, that is one that does not count, whichever it is; so what is left
    over are the minima that do.

    Args:
        lowest: bottoms, `(n,)`; sides `(m, 2)` and height `(m,)` of the passes, lowest first.

    Returns:
        The lowest cell of each cell's basin, `(n,)`.
    """
    count = len(lowest)
    itself = torch.arange(count)
    basin, bottom = itself, lowest
    while True:
        ends = basin[sides]
        between = ends[:, 0] != ends[:, 1]
        sides, height, ends = sides[between], height[between], ends[between]
        numbers = torch.arange(len(sides))
        first = torch.full((count,), len(sides))
        for end in ends.unbind(-1):
            first = first.scatter_reduce(0, end, numbers, "amin")
        (has_pass,) = torch.nonzero(first < len(sides), as_tuple=True)
        passes = first[has_pass]
        (low,) = torch.nonzero(height[passes] - bottom[has_pass] <= prominence, as_tuple=True)
        if len(low) == 0:
            break
        leaving, passes = has_pass[low], passes[low]
        into = itself.clone()
        into[leaving] = ends[passes].sum(-1) - leaving
        # Two that would go into each other: the first stays.
        into = torch.where((into[into] == itself) & (itself < into), itself, into)
        while not torch.equal(into, further := into[into]):
            into = further
        basin = into[basin]
        bottom = bottom.scatter_reduce(0, into, bottom, "amin")
    at_bottom = torch.where(lowest == bottom[basin], itself, count)
    return torch.full((count,), count).scatter_reduce(0, basin, at_bottom, "amin")[basin]


def _least(corners: Tensor) -> Tensor:
    """The least length of a linear vector field over each cell, from its corners `(..., k, n_outcomes)`, k <= 3."""
    if corners.shape[-2] == 1:
        return _length(corners[..., 0, :])
    if corners.shape[-2] == 2:
        return _least_between(*corners.unbind(-2))
    a, b, c = corners.unbind(-2)
    least = torch.minimum(torch.minimum(_least_between(a, b), _least_between(b, c)), _least_between(c, a))
    if corners.shape[-1] == 1:
        return least  # where it is zero inside, it is on an edge too
    # The stationary point of |a + s u + t v|, where it lies inside.
    u, v = b - a, c - a
    uu, uv, vv, au, av = ((x * y).sum(-1) for x, y in ((u, u), (u, v), (v, v), (a, u), (a, v)))
    size = uu * vv - uv * uv
    s, t = (uv * av - vv * au) / size, (uv * au - uu * av) / size
    inside = (s >= 0) & (t >= 0) & (s + t <= 1)  # never where it divided by zero
    within = _length(a + s[..., None] * u + t[..., None] * v)
    return torch.where(inside, torch.minimum(within, least), least)


def _least_between(a: Tensor, b: Tensor) -> Tensor:
    way = b - a
    share = (-(a * way).sum(-1) / way.square().sum(-1)).nan_to_num(nan=0.0).clamp(0, 1)
    return _length(a + share[..., None] * way)


def _length(vector: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vector, dim=-1)
    return length
