"""The slab against trilinear hexahedra assembled by SciPy, closed forms, adjoints, and what is published of it."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem, Solution, StartStatus
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.program import Program
from aimback.solve.step import Iteration, NotCompilable
from aimback.tasks.heat import Heat

Array = NDArray[np.float64]
T = torch.float64
CORNERS = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)])


def stiffness(size: Array) -> Array:
    """Of a hexahedron that conducts 1, by two Gauss points along each edge."""
    whole = np.zeros((8, 8))
    for at in np.ndindex(2, 2, 2):
        point = 0.5 + (np.array(at) - 0.5) / math.sqrt(3)
        shape = np.where(CORNERS, point, 1 - point)
        sign = np.where(CORNERS, 1.0, -1.0)
        slopes = np.stack([sign[:, a] * np.delete(shape, a, 1).prod(1) / size[a] for a in range(3)], axis=1)
        whole += slopes @ slopes.T * size.prod() / 8
    return whole


def follow(density: Array, *, halved: bool = False) -> Array:
    """The temperatures of both layers of nodes, `(2, rows + 1, columns + 1)`, as Mosaic assembles them."""
    rows, columns = density.shape
    size = np.array([2 / columns, 1 / rows, 1.0])
    number = np.arange(2 * (rows + 1) * (columns + 1)).reshape(2, rows + 1, columns + 1)
    conductivity = 1e-3 + (1 - 1e-3) * density**3
    matrix = sparse.lil_matrix((number.size, number.size))
    flux = np.zeros(number.size)
    element = stiffness(size)
    for row, column in np.ndindex(rows, columns):
        nodes = [number[z, row + y, column + x] for x, y, z in CORNERS]
        matrix[np.ix_(nodes, nodes)] += conductivity[row, column] * element
        if column == columns - 1 and not halved:
            flux[[nodes[corner] for corner in (1, 2, 5, 6)]] += size[1] * size[2] / 4
    if halved:
        flux[number[:, :, -1].ravel()] = size[1] * size[2] / 4
    free = number[:, :, 1:].ravel()
    found = np.zeros(number.size)
    found[free] = spsolve(matrix.tocsc()[np.ix_(free, free)], flux[free])
    return found.reshape(number.shape)


def two_gaussians() -> Array:
    """The truth that is to be recovered, `(8, 16)`."""
    x, y = (np.arange(16) + 0.5) / 8, (np.arange(8)[:, None] + 0.5) / 8
    blobs = [np.exp(-((x - middle) ** 2 + (y - 0.5) ** 2) / (2 * 0.15**2)) for middle in (0.6, 1.4)]
    return np.clip(blobs[0] + blobs[1], 0, 1)


def call(task: Heat, density: object) -> Tensor:
    points = torch.as_tensor(density, dtype=T).reshape(-1, len(task.box))
    return task(points, points[:, :0])


def draw(task: Heat, count: int, seed: int = 0) -> Tensor:
    return task.box.sample(count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("load", ["even", "halved"])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_both_layers_of_hexahedra_have_these_temperatures(rows: int, load: str) -> None:
    task = Heat(rows=rows, load=load)
    densities = draw(task, 3).numpy()
    ours = call(task, densities).reshape(3, rows + 1, 2 * rows).numpy()
    for density, found in zip(densities, ours, strict=True):
        for layer in follow(density.reshape(rows, 2 * rows), halved=load == "halved"):
            np.testing.assert_allclose(found, layer[:, 1:], rtol=1e-9)


@pytest.mark.parametrize("density", [1e-3, 0.5, 1.0])
def test_a_uniform_slab_warms_evenly_from_left_to_right(density: float) -> None:
    """T = x / k, for a flux of 1 through each column."""
    task = Heat()
    expected = torch.arange(1, 17, dtype=T) / 8 / (1e-3 + (1 - 1e-3) * density**3)
    found = call(task, [density] * 128).reshape(9, 16)
    torch.testing.assert_close(found, expected.expand(9, 16), rtol=1e-10, atol=0)


def test_columns_are_resistances_in_a_row_and_rows_beside_each_other() -> None:
    task, columns = Heat(), 0.1 + 0.05 * torch.arange(16, dtype=T)
    resistance = (0.125 / (1e-3 + (1 - 1e-3) * columns**3)).cumsum(0)
    found = call(task, columns.repeat(8)).reshape(9, 16)
    torch.testing.assert_close(found, resistance.expand(9, 16), rtol=1e-10, atol=0)


def test_finer_meshes_come_closer_in_the_first_order_or_faster() -> None:
    """Of a slab whose lower half conducts eight times as well as the upper one: the temperature in the far corner."""
    found = [
        call(Heat(rows=rows), np.where(np.arange(rows * rows * 2) < rows * rows, 1.0, 0.5))[0, -1]
        for rows in (4, 8, 16, 32)
    ]
    steps = torch.stack(found).diff().abs()
    assert bool((steps[:-1] / steps[1:] > 1.9).all())


def test_what_enters_on_the_right_leaves_on_the_left() -> None:
    """All of the flux, or 9/16 of it: what the first column of cells conducts towards the cold side."""
    for load, whole in (("even", 1.0), ("halved", 9 / 16)):
        task = Heat(load=load)
        densities = draw(task, 5)
        first = call(task, densities).reshape(5, 9, 16)[:, :, 0]
        conductivity = (1e-3 + (1 - 1e-3) * densities**3).reshape(5, 8, 16)[:, :, 0]
        flux = (conductivity * (first[:, 1:] + first[:, :-1]) / 2).sum(-1)  # a square: side over length is 1
        torch.testing.assert_close(flux, torch.full_like(flux, whole), rtol=1e-9, atol=0)


def test_the_jacobian_is_that_of_adjoints_and_of_differences() -> None:
    task = Heat()
    points = draw(task, 2).clamp(min=0.1)
    none = points[:, :0]
    _, jacobian = task.linearise(points, none)
    # A sum of squares, its gradient by one solve with the matrix that is its own adjoint.
    wanted = call(task, [0.4] * 128)
    leaf = points.clone().requires_grad_()
    (by_adjoint,) = torch.autograd.grad((task(leaf, none) - wanted).square().sum(), leaf)
    residual = call(task, points) - wanted
    torch.testing.assert_close(2 * (residual[:, None] @ jacobian)[:, 0], by_adjoint, rtol=1e-9, atol=1e-7)
    steps = 1e-5 * torch.eye(128, dtype=T)
    there, here = (call(task, points[0] + sign * steps) for sign in (1, -1))
    torch.testing.assert_close(jacobian[0], (there - here).T / 2e-5, rtol=1e-5, atol=1e-4)


def test_no_temperature_exceeds_the_stated_range_where_all_cells_are_nearly_empty_or_full() -> None:
    """At corners of the box, where the bound is nearest: it is met where everything conducts least."""
    task = Heat()
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(200, 1, generator=generator, dtype=T)
    corners = torch.where(torch.rand(200, 128, generator=generator, dtype=T) < share, 1.0, 1e-3)
    found = call(task, torch.cat([corners, task.box.lower[None]]))
    assert bool((found >= 0).all()) and bool((found <= task.outcomes.upper).all())
    assert float((found / task.outcomes.upper).max()) > 0.7


def error(task: Heat, found: Tensor, wanted: Tensor) -> list[float]:
    """As published: over the nodes of both layers."""
    return [2 * float(row.square().sum()) for row in call(task, found) - wanted]


def test_the_published_start_has_the_published_error() -> None:
    target = call(Heat(load="halved"), two_gaussians())
    assert error(Heat(), torch.full((128,), 0.5), target) == [pytest.approx(2.942e7, rel=2e-4)]


def recover(target: Tensor, starts: Tensor, *, steps: int = 300) -> Solution:
    task = Heat()
    problem = InverseProblem(target, target[:, :0], task.box, task.distance, task.box.to_unit(starts))
    solver = LevenbergMarquardt(max_steps=steps, precision=1e-13)
    return solve(task, problem, solver, torch.Generator())


def test_the_published_targets_floor_is_reached_from_several_starts_at_once() -> None:
    """Below 686, the best of the published systems, and below 41.3, SciPy's with the exact Jacobian."""
    target = call(Heat(load="halved"), two_gaussians())
    starts = torch.tensor([0.5, 0.4, 0.6], dtype=T)[None, :, None].expand(1, 3, 128)
    solution = recover(target, starts)
    assert error(Heat(), solution.controls[0], target) == [pytest.approx(39.804, abs=1e-3)] * 3
    assert bool((solution.start_status != StartStatus.ARRIVED).all())  # it cannot be reached
    task, best = Heat(), solution.controls[0]
    assert bool(task.box.contains(best).all())


def test_targets_that_can_be_reached_are_recovered_in_one_batch() -> None:
    task = Heat()
    truths = torch.cat([torch.as_tensor(two_gaussians().reshape(1, 128)).clamp(min=1e-3), 0.2 + 0.6 * draw(task, 2)])
    targets = call(task, truths)
    solution = recover(targets, torch.full((3, 1, 128), 0.5, dtype=T))
    assert solution.start_status.flatten().tolist() == [StartStatus.ARRIVED] * 3
    assert max(error(task, solution.controls[:, 0], targets)) < 2.5e-4


def test_a_start_alone_goes_where_it_goes_in_a_batch() -> None:
    """To rounding: products of matrices may add in another order."""
    target = call(Heat(load="halved"), two_gaussians())
    starts = draw(Heat(), 6).reshape(1, 6, 128)
    together, alone = recover(target, starts, steps=12), recover(target, starts[:, 2:3], steps=12)
    torch.testing.assert_close(alone.controls[0, 0], together.controls[0, 2], rtol=1e-6, atol=1e-6)


def test_blocks_of_targets_are_bounded_by_their_jacobians() -> None:
    """Four million numbers at most, 227 starts, and nothing else is different."""
    seen: list[int] = []

    class Watched(Heat):
        def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(len(controls))
            return super().linearise(controls, conditions)

    task = Watched()
    truths = draw(task, 240)
    starts = torch.full((240, 1, 128), 0.5, dtype=T)
    problem = InverseProblem(call(task, truths), truths[:, :0], task.box, task.distance, starts)
    solution = solve(task, problem, LevenbergMarquardt(max_steps=1), torch.Generator())
    assert set(seen) == {227, 13}
    last = recover(problem.targets[-1:], task.box.from_unit(starts[-1:]), steps=1)
    torch.testing.assert_close(solution.controls[-1:], last.controls, rtol=1e-9, atol=1e-9)


def test_what_is_too_wide_to_be_written_out_is_not_compiled() -> None:
    task, middle = Heat(), torch.full((1, 1, 128), 0.5, dtype=T)
    problem = InverseProblem(call(task, [0.5] * 128), middle[:, 0, :0], task.box, task.distance, middle)

    def compile_nothing(_: Iteration) -> Program:
        raise AssertionError("it was asked to")

    with pytest.raises(NotCompilable, match="^a Jacobian of 18,432 numbers"):
        solve(task, problem, LevenbergMarquardt(), torch.Generator(), compiler=compile_nothing)


def test_blobs_are_slabs_of_a_kind_that_the_box_hardly_ever_has() -> None:
    """Neighbours are alike, and many cells are empty, as in the truth that is published."""
    slabs = {
        prior: Heat(prior=prior).draw_controls(500, torch.Generator().manual_seed(0)) for prior in ("box", "blobs")
    }
    assert all(bool(Heat().box.contains(one).all()) for one in slabs.values())
    steps = {prior: float(one.reshape(-1, 8, 16).diff(dim=-1).abs().mean()) for prior, one in slabs.items()}
    assert steps["blobs"] < 0.3 * steps["box"]
    assert 0.05 < float((slabs["blobs"] == 1e-3).double().mean()) < 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Heat(rows=0), "^rows: must be a whole number from 1 to 64"),
        (lambda: Heat(density=[0.5, 0.1]), "^density: the lower bound must be below"),
        (lambda: Heat(density=[-0.1, 0.5]), "^density: must be a finite number of at least 0"),
        (lambda: Heat(density=[0.1, 1.5]), "^density: must be a finite number above 0.1 and below"),
        (lambda: Heat(least=0.0), "^least: must be a finite number above 0 and below 1"),
        (lambda: Heat(exponent=0.5), "^exponent: must be a finite number of at least 1"),
        (lambda: Heat(load="odd"), "^load: must be one of even, halved"),
        (lambda: Heat(prior="odd"), "^prior: must be one of box, blobs"),
        (lambda: Heat(tolerance=0.0), "^tolerance: must be positive"),
    ],
)
def test_values_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
