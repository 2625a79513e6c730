"""Adam on every start by itself."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.errors import UserError
from aimback.solve.point import Point
from aimback.solve.solver import Limits, Memory, check_positive


@dataclass(frozen=True)
class Adam(Limits):
    """Adam (Kingma, Ba 2015) in the unit cube, each start with moments of its own, projected on the box.

    `torch.optim.Adam` would do the same steps, but cannot drop finished starts.

    Args:
        step_size: of the first step, in unit-box lengths.
        decay: factor on the step size a step; below 1 the wobble around a solution dies out.
        beta1, beta2, epsilon: as published.
    """

    step_size: float = 0.05
    decay: float = 0.98
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(step_size=self.step_size, epsilon=self.epsilon)
        if not 0 < self.decay <= 1:
            raise UserError(f"decay: must lie in (0, 1], got {self.decay:g}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}: must lie in [0, 1), got {getattr(self, name):g}")

    def begin(self, point: Point) -> Memory:
        return torch.zeros_like(point.unit), torch.zeros_like(point.unit)

    def propose(self, point: Point, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        gradient = point.gradient
        mean, square = memory
        mean = torch.lerp(gradient, mean, self.beta1)
        square = torch.lerp(gradient.square(), square, self.beta2)
        size = self.step_size * self.decay ** (step - 1)
        ahead = mean / (1 - self.beta1**step)
        spread = (square / (1 - self.beta2**step)).sqrt()
        return (point.unit - size * ahead / (spread + self.epsilon)).clamp(0, 1), (mean, square)

    def judge(self, point: Point, trial: Point, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        always = torch.ones_like(trial.unit[:, 0], dtype=torch.bool)
        return always, ~always, memory
