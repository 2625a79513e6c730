"""A smooth forward map made of a rough one: its mean over random perturbations of the controls."""

from collections.abc import Callable

import torch
from torch import Tensor

from aimback.core.box import Box
from aimback.core.errors import UserError
from aimback.core.problem import Linearised
from aimback.solve.blurred import Blurred
from aimback.solve.rowwise import total
from aimback.solve.smoothing_settings import Order, Smoothing

_ROWS = 65_536  # evaluated at once; bounds the memory
_UNTOLD = 0.5  # of the change of an outcome: how much the derivatives may leave untold, by "switch"


class Smoothed:
    """`F(x) = mean f(x + sigma z)` over Gaussian z (randomised smoothing: Duchi, Bartlett, Wainwright 2012).

    Its Jacobian is estimated from derivatives of f of either order (Suh, Simchowitz, Zhang, Tedrake, ICML 2022):

    - "first": the mean of the Jacobians of f. Exact for this F wherever f is continuous. A jump of f has no part in
      any of them, so where f jumps it is biased, however many the samples.
    - "zeroth": `mean (f(x + sigma z) - f(x - sigma z)) z' / (2 sigma)`, from values alone (Nesterov, Spokoiny 2017).
      It needs no derivative of f and no continuity, and is noisier.
    - "switch": of every outcome at every place the first, unless derivatives leave more than half untold of what the
      values do: `sum |d - (J(x + sigma z) + J(x - sigma z)) sigma z|^2 > 1/4 sum |d|^2`, where d is
      `f(x + sigma z) - f(x - sigma z)`; then the zeroth. The rule of trapezoids tells all of d up to the third order in
      sigma where f is smooth, and nothing of a jump. To switch by a cheap test is the idea of DDCG (Onoda, Parmas,
      Yaguchi, Matsuo 2026, arXiv:2604.18161), which does so for policy gradients; the test is ours. It costs what the
      first order does.

    The perturbations are drawn once and serve every row and every step (common random numbers), so F is a map like
    any other: it gives the same bits for the same controls, whatever else is in the batch. They come in antithetic
    pairs z, -z, so nothing is left of a constant; and their second moments are made those of the Gaussian
    (moment matching: Glasserman 2003, section 4.5), so both Jacobians are exact for a linear f.

    A perturbation that would leave the box stops at its wall: a simulator need not work out there, and F is then
    that of f continued by what it is at the wall. On the wall itself half of the slope across it is left; reflection
    would leave none, and answers on a wall would be lost.

    What is smoothed is the outcome, not the loss: across a jump F has outcomes that f has nowhere near, so its
    answers are not those of f. They are where to begin with f itself (`solve_by_continuation`).

    Args:
        forward: f; it is evaluated `samples` times a row.
        box: of the controls.
        sigma: standard deviation of the perturbations, in unit-box lengths, positive.
        samples: even, at least two a control.
        order: "zeroth", "first" or "switch".
        generator: a CPU generator; the perturbations are a function of it alone.

    Raises:
        UserError: too few samples for so many controls.
    """

    def __init__(
        self, forward: Linearised, box: Box, sigma: float, samples: int, order: Order, generator: torch.Generator
    ) -> None:
        if samples < 2 * len(box):
            raise UserError(f"samples: at least two a control, {2 * len(box)}, got {samples}")
        self.forward = forward
        self.box = box
        self._sigma = sigma
        self._order = order
        half = _match_moments(torch.randn(samples // 2, len(box), generator=generator, dtype=torch.float64))
        self._directions = torch.cat([half, -half])

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """The mean outcome, `(..., n_outcomes)`."""
        (outcome,) = self._map_rows(
            lambda *rows: (_mean(self.forward(*self._perturb(*rows)[1:])),), controls, conditions
        )
        return outcome

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The mean outcome `(..., n_outcomes)` and the estimate of its Jacobian `(..., n_outcomes, n_controls)`."""
        estimates = {
            "zeroth": self._estimate_by_values,
            "first": self._estimate_by_jacobians,
            "switch": self._estimate_by_either,
        }
        outcome, jacobian = self._map_rows(estimates[self._order], controls, conditions)
        return outcome, jacobian

    def _estimate_by_values(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        _, points, given = self._perturb(controls, conditions)
        outcomes = self.forward(points, given)
        return _mean(outcomes), self._compare_values(outcomes)

    def _estimate_by_jacobians(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        unit, points, given = self._perturb(controls, conditions)
        outcomes, jacobians = self.forward.linearise(points, given)
        return _mean(outcomes), _average_jacobians(unit, jacobians)

    def _estimate_by_either(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        unit, points, given = self._perturb(controls, conditions)
        outcomes, jacobians = self.forward.linearise(points, given)
        (there, back), (one, other) = points.chunk(2), jacobians.chunk(2)
        forth, behind = outcomes.chunk(2)
        told = total((one + other) * (there - back)[..., None, :]) / 2
        untold = total((forth - behind - told).square(), dim=0)
        blind = untold > _UNTOLD**2 * total((forth - behind).square(), dim=0)
        slopes = torch.where(blind[..., None], self._compare_values(outcomes), _average_jacobians(unit, jacobians))
        return _mean(outcomes), slopes

    def _compare_values(self, outcomes: Tensor) -> Tensor:
        """The estimate of zeroth order, `(rows, n_outcomes, n_controls)`."""
        forth, back = outcomes.chunk(2)
        directions = self._directions[: len(forth), None, None].to(outcomes)
        slopes = (forth - back)[..., None] * directions / (2 * self._sigma)
        lower, upper = self.box.bounds(outcomes)
        return _mean(slopes) / (upper - lower)

    def _perturb(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Perturb controls: in unit-box lengths, the same stopped at the walls in their own units, and their
        conditions, `(samples, rows, ...)` each."""
        directions = self._directions.to(controls)
        unit = self.box.to_unit(controls) + self._sigma * directions[:, None]
        return unit, self.box.from_unit(unit.clamp(0, 1)), conditions.expand(len(directions), *conditions.shape)

    def _map_rows(
        self, evaluate: Callable[[Tensor, Tensor], tuple[Tensor, ...]], controls: Tensor, conditions: Tensor
    ) -> tuple[Tensor, ...]:
        """Evaluate some rows at a time, so that memory stays bounded; the leading shape is kept."""
        leading = controls.shape[:-1]
        size = max(1, _ROWS // len(self._directions))
        rows = controls.reshape(-1, controls.shape[-1]).split(size)
        given = conditions.expand(*leading, -1).reshape(leading.numel(), conditions.shape[-1]).split(size)
        parts = zip(*(evaluate(*pair) for pair in zip(rows, given, strict=True)), strict=True)
        whole = (torch.cat(part) for part in parts)
        return tuple(part.reshape(*leading, *part.shape[1:]) for part in whole)


def smooth(forward: Linearised, box: Box, smoothing: Smoothing, generator: torch.Generator) -> list[Linearised]:
    """The maps to descend through before `forward` itself, the smoothest first; none where nothing is smoothed."""
    samples, order = smoothing.samples, smoothing.order
    return [
        *(Smoothed(forward, box, sigma, samples, order, generator) for sigma in smoothing.sigmas),
        *(Blurred(forward, width) for width in smoothing.blurs),
    ]


def _match_moments(normal: Tensor) -> Tensor:
    """Turn and stretch the numbers, `(count, dimensions)`, until their second moments are one and nought."""
    root = torch.linalg.cholesky(normal.T @ normal / len(normal))
    matched: Tensor = torch.linalg.solve_triangular(root, normal.T, upper=False).T
    return matched


def _average_jacobians(unit: Tensor, jacobians: Tensor) -> Tensor:
    """The estimate of first order: what stopped at a wall does not move with the controls."""
    moves = ((unit >= 0) & (unit <= 1))[..., None, :]
    return _mean(torch.where(moves, jacobians, 0.0))


def _mean(samples: Tensor) -> Tensor:
    """Average over the first dimension, in order: torch's own mean may add up in another order in another batch."""
    return total(samples, dim=0) / len(samples)
