"""The Franka arm against its maker's data, products of homogeneous matrices and the geometric Jacobian."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_compiled import Unoptimised, needs_compiler
from torch import Tensor

from aimback.autodiff import dual
from aimback.compile.compiler import Compiler
from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem, Solution, StartStatus
from aimback.solve.adam import Adam
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.lbfgs import Lbfgs
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.solver import Solver
from aimback.solve.starts import draw_evenly
from aimback.tasks.franka import Franka

Array = NDArray[np.float64]
T = torch.float64
# The maker's table of Denavit-Hartenberg parameters: a, d, alpha of the joints and of the flange.
TABLE = [
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -math.pi / 2),
    (0.0, 0.316, math.pi / 2),
    (0.0825, 0.0, math.pi / 2),
    (-0.0825, 0.384, -math.pi / 2),
    (0.0, 0.0, math.pi / 2),
    (0.088, 0.0, math.pi / 2),
    (0.0, 0.107, 0.0),
]
READY = [0.0, -math.pi / 4, 0.0, -3 * math.pi / 4, 0.0, math.pi / 2, math.pi / 4]


def frames(angles: Array) -> list[Array]:
    """Of the joints and of the flange in the base's, `(4, 4)` each."""
    whole, found = np.eye(4), []
    for (a, d, alpha), angle in zip(TABLE, [*angles, 0.0], strict=True):
        turn, twist = (np.cos(angle), np.sin(angle)), (np.cos(alpha), np.sin(alpha))
        whole = whole @ np.array(
            [
                [turn[0], -turn[1], 0, a],
                [turn[1] * twist[0], turn[0] * twist[0], -twist[1], -d * twist[1]],
                [turn[1] * twist[1], turn[0] * twist[1], twist[0], d * twist[0]],
                [0, 0, 0, 1],
            ]
        )
        found.append(whole)
    return found


def outcome(frame: Array) -> Array:
    return np.concatenate([frame[:3, 3], frame[:3, 0], frame[:3, 2]])


def draw(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Angles in the whole box, and the conditions that there are not."""
    angles = Franka().box.sample(count, torch.Generator().manual_seed(seed))
    return angles, angles[:, :0]


def test_the_pose_is_a_product_of_homogeneous_matrices() -> None:
    angles, none = draw(200)
    expected = np.stack([outcome(frames(row)[-1]) for row in angles.numpy()])
    np.testing.assert_allclose(Franka()(angles, none).numpy(), expected, rtol=0, atol=1e-14)


def test_the_ready_pose_is_the_published_one() -> None:
    """Where MoveIt's Panda stands at rest: its flange at (0.306890566, 0, 0.590282052) m, looking down."""
    ready = Franka()(torch.tensor(READY, dtype=T), torch.zeros(0, dtype=T)).tolist()
    assert ready[:3] == pytest.approx([0.306890566, 0.0, 0.590282052], abs=1e-9)
    assert ready[3:] == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5), 0.0, 0.0, 0.0, -1.0], abs=1e-12)


def test_the_jacobian_is_the_geometric_one_and_that_of_dual_numbers() -> None:
    angles, none = draw(50)
    value, jacobian = Franka().linearise(angles, none)
    for row, ours in zip(angles.numpy(), jacobian.numpy(), strict=True):
        *joints, flange = frames(row)
        columns = [np.concatenate([np.cross(frame[:3, 2], flange[:3, 3] - frame[:3, 3])]) for frame in joints]
        np.testing.assert_allclose(ours[:3], np.stack(columns, axis=1), rtol=0, atol=1e-14)
        turned = [np.cross(frame[:3, 2], flange[:3, axis]) for axis in (0, 2) for frame in joints]
        np.testing.assert_allclose(
            ours[3:].reshape(2, 3, 7), np.stack(turned).reshape(2, 7, 3).swapaxes(1, 2), atol=1e-14
        )
    by_dual = dual.linearise(Franka(), angles, none)
    torch.testing.assert_close(value, by_dual[0], rtol=0, atol=0)
    torch.testing.assert_close(jacobian, by_dual[1], rtol=0, atol=1e-14)


def rotate(axis: Tensor, angle: Tensor) -> Tensor:
    """Rodrigues' formula, `(rows, 3, 3)`."""
    x, y, z = axis.unbind(-1)
    nought = torch.zeros_like(x)
    cross = torch.stack([nought, -z, y, z, nought, -x, -y, x, nought], dim=-1).unflatten(-1, (3, 3))
    angle = angle[:, None, None]
    return torch.eye(3, dtype=T) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross


@pytest.mark.parametrize(("share", "keeps"), [(1.001, False), (0.4, True)])
def test_who_keeps_the_tolerances_keeps_the_published_rule(share: float, keeps: bool) -> None:
    """Beyond 0.05 rad about any axis, or 5 mm in any direction, one of them is not kept; at 0.4 of both, all are."""
    task, generator = Franka(), torch.Generator().manual_seed(0)
    axes = torch.randn(20_000, 3, generator=generator, dtype=T)
    # Among them the axis about which the two columns change least.
    axes[0] = torch.tensor([0.0, 0.0, 1.0], dtype=T)
    axes = axes / axes.norm(dim=-1, keepdim=True)
    angles, none = draw(len(axes))
    here = task(angles, none)
    turn = rotate(axes, torch.full((len(axes),), share * 0.05, dtype=T))
    turned = (turn[:, None] @ here[:, 3:].unflatten(-1, (2, 3, 1))).flatten(1)
    tolerances = torch.tensor(task.tolerances, dtype=T)
    within = ((turned - here[:, 3:]).abs() <= tolerances[3:]).all(-1)
    near = ((share * 0.005 * axes).abs() <= tolerances[:3]).all(-1)
    assert within.unique().tolist() == near.unique().tolist() == [keeps]


def solved(solver: Solver, starts: int, count: int, compiler: Compiler | None = None) -> Solution:
    task = Franka()
    angles, none = draw(count)
    unit = draw_evenly(count, starts, 7, torch.Generator().manual_seed(5))
    problem = InverseProblem(task(angles, none), none, task.box, task.distance, unit)
    return solve(task, problem, solver, torch.Generator().manual_seed(5), compiler=compiler)


def test_the_solver_finds_every_target() -> None:
    solution = solved(LevenbergMarquardt(), 24, 200)
    assert bool((solution.start_status == StartStatus.ARRIVED).any(-1).all())
    box = Franka().box
    assert bool(box.contains(solution.controls.flatten(0, 1)).all())


@needs_compiler
@pytest.mark.parametrize(
    "solver",
    [
        LevenbergMarquardt(),
        *(pytest.param(solver, marks=pytest.mark.slow) for solver in (Adam(max_steps=50), GradientDescent(), Lbfgs())),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_a_compiled_solve_gives_the_answers_of_the_interpreted_one(solver: Solver, tmp_path: Path) -> None:
    """Seven controls: the bounds that a step meets are searched for in a loop."""
    plain = solved(solver, 2, 60)
    fast = solved(solver, 2, 60, Unoptimised(tmp_path, "franka"))
    same = plain.start_status == fast.start_status
    assert float(same.double().mean()) > 0.95
    arrived = same & (plain.start_status == StartStatus.ARRIVED)
    apart = (plain.controls - fast.controls).abs().amax(-1)[arrived]
    assert len(apart) > 20 or isinstance(solver, Adam | GradientDescent)
    # After its hundred steps rounding decides where on the curve of answers Lbfgs ends.
    alike = 0.6 if isinstance(solver, Lbfgs) else 0.9
    assert float((apart < 1e-6).double().mean()) > alike or len(apart) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Franka(joint4=[-0.07, -3.07]), "^joint4: the lower bound must be below"),
        (lambda: Franka(position=0.0), "^position: must be positive and finite, got 0"),
        (lambda: Franka(rotation=4.0), "^rotation: must be a finite number above 0 and below 3.14159"),
    ],
)
def test_values_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
