"""Plain gradient descent, the method of the article."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.checks import check_positive
from aimback.solve.point import Point
from aimback.solve.solver import Memory, Solver


@dataclass(frozen=True)
class GradientDescent(Solver):
    """`u <- clamp(u - step_size * dL/du)` on the sum of squared residuals L, in the unit cube.

    The box is kept by projection: at an interior point the step is the textbook one, and a control
    resting on a bound still leaves it as soon as the gradient turns. (A smooth map onto the box, such
    as a sigmoid, would flatten the loss towards every face, and solutions on a face would be lost.)

    Cheap a step and slow: hundreds of steps, more in a curved valley. Use it to show that, or where
    the loss is noisy; `LevenbergMarquardt` is for arriving.
    """

    step_size: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("step_size", self.step_size)

    def begin(self, point: Point) -> Memory:
        return ()

    def propose(self, point: Point, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        return point.keep_inside(point.unit - self.step_size * point.gradient), memory

    def judge(self, point: Point, trial: Point, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        always = torch.ones_like(trial.unit[:, 0], dtype=torch.bool)
        return always, ~always, memory
