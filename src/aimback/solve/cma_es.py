"""CMA-ES on every start by itself: it shows what can be had without any gradient."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aimback.core.checks import check_positive
from aimback.core.distance import Distance
from aimback.core.errors import UserError
from aimback.solve.derivative_free import DerivativeFree

if TYPE_CHECKING:
    from cmaes import CMA

_LARGEST = 10_000  # population


@dataclass(frozen=True)
class CmaEs(DerivativeFree):
    """Covariance matrix adaptation evolution strategy (Hansen 2016, arXiv:1604.00772), by the package `cmaes`.

    A start is one run whose first mean lies there; a step is one generation. It asks the forward map for
    values only, and so also works where a simulator has no derivative worth following: a baseline for
    what derivatives bring. Its own arithmetic is a Python loop over starts: slow beyond some ten thousand.

    Args:
        step_size: the first standard deviation, in unit-box lengths.
        population: evaluations a generation; 0 takes the published default, 4 + floor(3 ln n_controls).
    """

    max_steps: int = 100
    step_size: float = 0.3
    population: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("step_size", self.step_size)
        if self.population != 0 and not 4 <= self.population <= _LARGEST:
            raise UserError(f"population: must be 0, or a whole number from 4 to {_LARGEST:,}, got {self.population}")

    def begin_quests(self, starts: Tensor, distance: Distance, generator: torch.Generator) -> "list[_Evolution]":
        from cmaes import CMA  # brings SciPy's statistics, most of a second

        bounds = np.tile([0.0, 1.0], (starts.shape[-1], 1))
        seeds = torch.randint(2**32, (len(starts),), generator=generator).tolist()
        return [
            _Evolution(CMA(mean, self.step_size, bounds=bounds, seed=seed, population_size=self.population or None))
            for mean, seed in zip(starts.numpy(), seeds, strict=True)
        ]

    def count_evaluations(self, controls: int) -> int:
        return self.max_steps * (self.population or 4 + int(3 * math.log(controls)))


class _Evolution:
    """One run, generation after generation."""

    def __init__(self, run: "CMA") -> None:
        self._run, self._failed = run, False

    def ask(self) -> Tensor:
        return torch.from_numpy(np.stack([self._run.ask() for _ in range(self._run.population_size)]))

    def tell(self, unit: Tensor, residual: Tensor, loss: Tensor) -> None:
        self._run.tell(list(zip(unit.numpy(), loss.tolist(), strict=True)))
        self._failed = bool(torch.isinf(loss).all())

    def should_stop(self) -> bool:
        return self._failed or bool(self._run.should_stop())
