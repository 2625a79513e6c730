"""Adam on every start by itself."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.checks import MOST_STEPS, check_positive, check_whole
from aimback.core.errors import UserError
from aimback.solve.point import Point
from aimback.solve.solver import Memory, Solver

_THRESHOLD = 1e-4  # the least relative improvement that counts, as in torch's ReduceLROnPlateau


@dataclass(frozen=True)
class Adam(Solver):
    """Adam (Kingma, Ba 2015) in the unit cube, each start with moments of its own.

    `torch.optim.Adam` would do the same steps, but cannot drop finished starts. With soft walls and
    steps that shrink on a plateau this is the inversion of the Neural-Adjoint method (Ren, Padilla,
    Malof 2020), except that there all starts of a target shrink their steps together.

    Args:
        step_size: of the first step, in unit-box lengths.
        decay: factor on the step size a step; below 1 the wobble around a solution dies out.
        beta1, beta2, epsilon: as published.
        plateau_patience: a start that has not lowered its least loss by a ten-thousandth for more than so
            many steps shrinks its step size; 0: never.
        plateau_factor: what it is then multiplied with.
        boundary: None keeps starts in the box by projection. A number makes the walls soft: what a box
            length outside costs, in squared spans of the miss.
    """

    step_size: float = 0.05
    decay: float = 0.98
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    plateau_patience: int = 0
    plateau_factor: float = 0.5
    boundary: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("step_size", self.step_size)
        check_positive("epsilon", self.epsilon)
        if not 0 < self.decay <= 1:
            raise UserError(f"decay: must lie in (0, 1], got {self.decay:g}")
        check_whole(0, MOST_STEPS, plateau_patience=self.plateau_patience)
        if not 0 < self.plateau_factor < 1:
            raise UserError(f"plateau_factor: must lie between 0 and 1, got {self.plateau_factor:g}")
        if self.boundary is not None and not 0 <= self.boundary < float("inf"):
            raise UserError(f"boundary: must be null, or finite and not negative, got {self.boundary:g}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}: must lie in [0, 1), got {getattr(self, name):g}")

    def begin(self, point: Point) -> Memory:
        moments = torch.zeros_like(point.unit), torch.zeros_like(point.unit)
        if not self.plateau_patience:
            return moments
        loss = point.loss
        return *moments, torch.ones_like(loss), loss, torch.zeros_like(loss, dtype=torch.int32)

    def propose(self, point: Point, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        gradient = point.gradient
        mean, square, *plateau = memory
        mean = torch.lerp(gradient, mean, self.beta1)
        square = torch.lerp(gradient.square(), square, self.beta2)
        ahead = mean / (1 - self.beta1**step)
        spread = (square / (1 - self.beta2**step)).sqrt()
        move = self.step_size * self.decay ** (step - 1) * ahead / (spread + self.epsilon)
        if plateau:
            move = move * plateau[0][:, None]
        return point.keep_inside(point.unit - move), (mean, square, *plateau)

    def judge(self, point: Point, trial: Point, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        always = torch.ones_like(trial.unit[:, 0], dtype=torch.bool)
        if self.plateau_patience:
            mean, square, share, least, waited = memory
            loss = trial.loss
            better = loss < least * (1 - _THRESHOLD)
            waited = torch.where(better, 0, waited + 1)
            shrinks = waited > self.plateau_patience
            share = torch.where(shrinks, share * self.plateau_factor, share)
            memory = mean, square, share, torch.where(better, loss, least), torch.where(shrinks, 0, waited)
        return always, ~always, memory
