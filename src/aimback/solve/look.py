"""A look at places: where a forward map leads from them, and its derivatives there."""

import functools
from collections.abc import Callable

from torch import Tensor

from aimback.core.box import Box
from aimback.core.distance import Distance
from aimback.core.ledger import Counted
from aimback.core.problem import InverseProblem, Linearised
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.multistart import make_program
from aimback.solve.point import Point, evaluate_point
from aimback.solve.program import Buffers, Program
from aimback.solve.step import Iteration

# Takes controls in the unit cube, conditions and targets; a row each.
Look = Callable[[Tensor, Tensor, Tensor], Point]


def make_look(forward: Linearised, box: Box, distance: Distance) -> Look:
    """Make a look that the interpreter takes, operation by operation."""
    return functools.partial(evaluate_point, forward, box, scales=distance.scales)  # can be pickled


def compile_look(forward: Counted, problem: InverseProblem, compiler: Callable[[Iteration], Program]) -> Look:
    """Make a look that is one program: on a GPU one launch, where the interpreter needs thousands.

    It is a solve that ends before its first step. The last bits are not those of `make_look`.

    Args:
        problem: says what `forward` is, and of what dtype and where the rows will be.

    Raises:
        NotCompilable: see `solve`.
    """
    _, program = make_program(forward, problem, GradientDescent(), compiler)

    def look(unit: Tensor, conditions: Tensor, targets: Tensor) -> Point:
        rows, controls = unit.shape
        buffers = Buffers.allocate(targets, conditions, unit[:, None], 0, rows, jacobians=True)
        program(buffers)()
        forward.count(rows, gradients=True)
        _, residual, jacobian = buffers.path[0].tensor_split([controls, controls + targets.shape[1]], dim=-1)
        return Point(unit, residual, jacobian.unflatten(-1, (-1, controls)))

    return look
