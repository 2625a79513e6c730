"""A coarse forward map made of a fine one: each outcome averaged with its neighbours, as of a spectrum or a series."""

import torch
from torch import Tensor

from aimback.core.problem import Linearised


class Blurred:
    """`F(x) = K f(x)`, where the rows of K are Gaussian weights of neighbouring outcomes, which add up to 1.

    Where controls move the peaks of an outcome, its loss has a minimum wherever two peaks of answer and target overlap;
    peaks that are blurred overlap from farther off. To descend through the coarse map first is what full waveform
    inversion does (Bunks, Saleck, Zaleski, Chavent, Geophysics 60, 1457, 1995). It is for outcomes of one unit that
    stand in a row. Targets are blurred alike, see `blur`.

    Args:
        forward: f; each row costs one evaluation of it.
        width: the standard deviation of the weights, in outcomes, positive.
    """

    def __init__(self, forward: Linearised, width: float) -> None:
        self.forward = forward
        self.width = width

    def blur(self, outcomes: Tensor) -> Tensor:
        """Blur outcomes, `(..., n_outcomes)`."""
        return outcomes @ self._weigh(outcomes).mT

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """The blurred outcome, `(..., n_outcomes)`."""
        return self.blur(self.forward(controls, conditions))

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The blurred outcome `(..., n_outcomes)` and its exact Jacobian `(..., n_outcomes, n_controls)`."""
        outcome, jacobian = self.forward.linearise(controls, conditions)
        return self.blur(outcome), self._weigh(outcome) @ jacobian

    def _weigh(self, outcomes: Tensor) -> Tensor:
        """K, `(n_outcomes, n_outcomes)`."""
        places = torch.arange(outcomes.shape[-1]).to(outcomes)
        weights = torch.exp(-((places - places[:, None]) ** 2) / (2 * self.width**2))
        return weights / weights.sum(-1, keepdim=True)
