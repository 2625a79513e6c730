"""Heat through a slab of 128 cells: which conductivities lead to the temperatures that were measured?"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_number, check_one_of, check_positive, check_whole
from aimback.tasks.base import Task

LENGTH, HEIGHT = 2, 1
# Of a square of four nodes, in turn around it: what the bilinear shape functions make of the Laplacian, for any size.
_ITSELF, _BESIDE, _ACROSS = 4 / 6, -1 / 6, -2 / 6
LOADS = ("even", "halved")
PRIORS = ("box", "blobs")
_BLOBS = 3
_AT_ONCE = 32  # samples whose matrices stay in a core's cache


class Heat(Task):
    """The temperatures of a slab of 2 by 1 that is cold on the left and heated on the right, by its densities.

    The controls are the densities of the square cells, row by row from the bottom, each from the cold side on. A cell
    conducts k = least + (1 - least) density^exponent (SIMP, Bendsoe & Sigmund 1999). The outcomes are the temperatures
    of the nodes in the same order, but for those of the left side, where the temperature is 0; into the right side goes
    a flux of 1, and through the others none. There are no conditions: `conditions` is `(..., 0)`. All is without units.

    It is "conductivity recovery" of Mosaic (arXiv:2606.27895, github.com/pasteurlabs/mosaic, thermal-mesh): a layer of
    16 by 8 trilinear hexahedra. Nothing depends on the depth there, and bilinear squares give the same temperatures, so
    every node here stands for two of theirs. What they call the error is the sum of the squares of the differences over
    their nodes, twice that over ours.

    Their targets are made with another load than the one that is inverted: every node of the right side is given half
    of what a cell's side takes in, though all but the two in the corners belong to two cells. `load` "halved" is that
    program: 9/16 of the flux, and too much of it in the corners.

    A call factorises one matrix a sample (Cholesky), and its Jacobian takes the same factor to a right side for every
    control: that is as much as the adjoint solves, one an outcome, would take, and half of the factorisation's own
    derivative by torch; dual numbers have no rule for it. It is done in float64 whatever the controls are, since
    neighbours may conduct a thousand times as well as each other, which costs float32 all but a few digits.

    Args:
        rows: of cells; each is twice as many cells long.
        density: `[lower, upper]` of every cell, within [0, 1].
        least: what a cell of density 0 conducts, in (0, 1).
        exponent: how conductivity rises with density, at least 1.
        load: "even", or "halved" as Mosaic's targets are made.
        prior: what data sets and targets are drawn from. "box": every cell by itself, which makes all slabs much alike,
            for only averages matter far away. "blobs": three Gaussians on an even ground, each of a random place,
            height and width (0.08 to 0.25), of which the published truth, two of width 0.15 on nothing, is nearly one.
        tolerance: how far every temperature may be from what is wanted.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self,
        rows: int = 8,
        density: Sequence[float] = (1e-3, 1.0),
        least: float = 1e-3,
        exponent: float = 3.0,
        load: str = "even",
        prior: str = "box",
        tolerance: float = 0.01,
    ) -> None:
        check_whole(1, 64, rows=rows)
        check_number("least", least, above=0.0, below=1.0)
        check_number("exponent", exponent, least=1.0)
        check_one_of("load", load, LOADS)
        check_one_of("prior", prior, PRIORS)
        self.rows, self.columns = rows, rows * LENGTH // HEIGHT
        self.least, self.exponent, self.load, self.prior = float(least), float(exponent), load, prior
        self.tolerance = check_positive("tolerance", tolerance)
        axis = make_axis("density", "", density)
        check_number("density", axis.lower, least=0.0)
        check_number("density", axis.upper, above=axis.lower, below=1.0 + 1e-12)
        cells = [(row, column) for row in range(rows) for column in range(self.columns)]
        self.box = Box([Axis(f"density_{r + 1}_{c + 1}", "", axis.lower, axis.upper) for r, c in cells])
        self._mesh = _Mesh(rows, self.columns)
        side = torch.ones(rows + 1, dtype=torch.float64)
        if load == "even":
            side[1:-1] = 2.0
        self._flux = torch.zeros(rows + 1, self.columns, dtype=torch.float64)
        self._flux[:, -1] = side * HEIGHT / rows / 2
        self._flux = self._flux.flatten()
        # A temperature is e'K^-1 f, so it is at most the root of e'K^-1 e times f'K^-1 f (Cauchy and Schwarz), and both
        # are greatest where every cell conducts least; and none is below 0, since no entry off the diagonal is above.
        inverse = torch.linalg.inv(self._mesh.assemble(self.conduct(self.box.lower)))
        highest = (inverse.diagonal() * (self._flux @ inverse @ self._flux)).sqrt().tolist()
        nodes = [(row, column) for row in range(rows + 1) for column in range(1, self.columns + 1)]
        names = [f"temperature_{row}_{column}" for row, column in nodes]
        self.outcomes = Box([Axis(name, "", 0.0, high) for name, high in zip(names, highest, strict=True)])

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """The temperatures, `(..., n_outcomes)`, of densities in `(..., n_controls)`."""
        found = torch.cat([self._solve(part)[0] for part in _take_apart(controls)])
        return found.reshape(*controls.shape[:-1], len(self.outcomes)).to(controls.dtype)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The outcome, and the Jacobian by one factorisation: K dT = -dK T, a right side for every control."""
        with torch.no_grad():
            parts = [self._differentiate(part) for part in _take_apart(controls)]
        temperatures, jacobian = (torch.cat(part).to(controls.dtype) for part in zip(*parts, strict=True))
        leading = controls.shape[:-1]
        return temperatures.reshape(*leading, len(self.outcomes)), jacobian.reshape(*leading, *jacobian.shape[1:])

    def draw_controls(self, count: int, generator: torch.Generator) -> Tensor:
        if self.prior == "box":
            return super().draw_controls(count, generator)
        place, across, height, width, ground = torch.rand(
            5, count, _BLOBS, 1, 1, generator=generator, dtype=torch.float64
        )
        x = (torch.arange(self.columns, dtype=torch.float64) + 0.5) * LENGTH / self.columns
        y = (torch.arange(self.rows, dtype=torch.float64)[:, None] + 0.5) * HEIGHT / self.rows
        square = (x - LENGTH * place) ** 2 + (y - HEIGHT * across) ** 2
        blobs = (height * torch.exp(-square / (2 * (0.08 + 0.17 * width) ** 2))).sum(1)
        # In a quarter of the slabs there is nothing between the blobs.
        share = (0.5 * ground[:, 0] + blobs - 0.125).clamp(0, 1).flatten(1)
        return self.box.from_unit(share)

    def _differentiate(self, density: Tensor) -> tuple[Tensor, Tensor]:
        temperatures, factor = self._solve(density)
        right = self._mesh.apply_cells(temperatures)
        slope = (1 - self.least) * self.exponent * density ** (self.exponent - 1)
        return temperatures, torch.cholesky_solve(right, factor) * -slope[:, None, :]

    def conduct(self, density: Tensor) -> Tensor:
        """The conductivities of cells of these densities."""
        return self.least + (1 - self.least) * density**self.exponent

    def _solve(self, density: Tensor) -> tuple[Tensor, Tensor]:
        """The temperatures, and the Cholesky factor of the matrix, NaN where there is none."""
        factor, failed = torch.linalg.cholesky_ex(self._mesh.assemble(self.conduct(density)))
        factor = torch.where((failed == 0)[..., None, None], factor, torch.nan)
        flux = self._flux.to(density.device).expand(*density.shape[:-1], -1)
        return torch.cholesky_solve(flux[..., None], factor)[..., 0], factor


def _take_apart(controls: Tensor) -> Sequence[Tensor]:
    """The samples as rows, a few at a time, in float64."""
    parts: Sequence[Tensor] = controls.reshape(-1, controls.shape[-1]).double().split(_AT_ONCE)
    return parts


class _Mesh:
    """Squares between nodes of which the leftmost column is held, and what each adds to the matrix of the others."""

    def __init__(self, rows: int, columns: int) -> None:
        self.nodes, self.cells = (rows + 1) * columns, rows * columns
        # The number of a node; those that are held come last, as one that nobody asks for.
        number = torch.full((rows + 1, columns + 1), self.nodes)
        number[:, 1:] = torch.arange(self.nodes).reshape(rows + 1, columns)
        around = (number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1])
        self._corners = torch.stack(around, dim=-1).flatten(0, 1)
        # The cells that two nodes share, up to four, and what each of them adds.
        shared: dict[tuple[int, int], list[tuple[int, float]]] = {}
        for cell, corners in enumerate(self._corners.tolist()):
            for turn, weight in enumerate((_ITSELF, _BESIDE, _ACROSS, _BESIDE)):
                for corner in range(4):
                    pair = corners[corner], corners[(corner + turn) % 4]
                    if self.nodes not in pair:
                        shared.setdefault(pair, []).append((cell, weight))
        self._entries = torch.tensor([row * self.nodes + column for row, column in shared])
        filled = [parts + [(0, 0.0)] * (4 - len(parts)) for parts in shared.values()]
        self._sharing = torch.tensor([[cell for cell, _ in parts] for parts in filled]).T
        self._weights = torch.tensor([[weight for _, weight in parts] for parts in filled], dtype=torch.float64).T
        self._places = self._corners * self.cells + torch.arange(self.cells)[:, None]

    def assemble(self, conductivity: Tensor) -> Tensor:
        """The matrix, `(..., n_nodes, n_nodes)`, of conductivities in `(..., n_cells)`."""
        device = conductivity.device
        shares = zip(self._sharing.to(device), self._weights.to(device), strict=True)
        entries = functools.reduce(torch.add, (conductivity[..., cells] * weight for cells, weight in shares))
        empty = conductivity.new_zeros(*conductivity.shape[:-1], self.nodes**2)
        whole: Tensor = empty.index_copy(-1, self._entries.to(device), entries)
        return whole.reshape(*whole.shape[:-1], self.nodes, self.nodes)

    def apply_cells(self, temperatures: Tensor) -> Tensor:
        """What every cell, conducting 1, makes of the temperatures: `(..., n_nodes)` -> `(..., n_nodes, n_cells)`."""
        device = temperatures.device
        held = torch.cat([temperatures, torch.zeros_like(temperatures[..., :1])], dim=-1)
        corners = held[..., self._corners.to(device)]
        beside = corners.roll(1, -1) + corners.roll(-1, -1)
        flows = _ITSELF * corners + _BESIDE * beside + _ACROSS * corners.roll(2, -1)
        empty = temperatures.new_zeros(*temperatures.shape[:-1], (self.nodes + 1) * self.cells)
        # Where two corners are held, both are written to the same place, which is cut off.
        whole: Tensor = empty.index_copy(-1, self._places.flatten().to(device), flows.flatten(-2))
        return whole.reshape(*whole.shape[:-1], self.nodes + 1, self.cells)[..., :-1, :]
