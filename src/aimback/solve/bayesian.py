"""Bayesian optimisation on every start by itself: for simulators that are dear and have no derivatives."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.checks import check_positive, check_whole
from aimback.core.distance import Distance
from aimback.core.extras import check_installed
from aimback.solve.derivative_free import DerivativeFree
from aimback.solve.starts import draw_evenly

_MOST_POINTS, _MOST_AT_ONCE = 1_000, 64  # of the first round, and of every further one
_SAMPLES = 128  # of the outcomes' posterior
_RESTARTS, _CANDIDATES = 4, 128  # where the acquisition is ascended from, and of how many points these are the best


@dataclass(frozen=True)
class Bayesian(DerivativeFree):
    """Bayesian optimisation of the miss, by a Gaussian process of the outcomes (extra `bayesian`, BoTorch).

    The first round looks at the start and at a Latin hypercube. Every further one fits a process to each outcome of all
    that this start has seen, smooth where the miss has its kink (Astudillo and Frazier 2019, arXiv:1906.01537), and
    looks where the expected improvement of the miss is greatest together (qLogEI, Ament et al. 2023, arXiv:2310.20708).

    A start is done within the tolerance. It learns nothing from other starts or targets, so one start a target is best.
    A round takes about a second a start, and grows with the cube of the points: choose `cma_es` for quick simulators.

    Args:
        max_steps: rounds.
        initial: points of the first round; 0 takes 2 (n_controls + 1).
        batch: points of every further one, which may be simulated side by side.
        noise: standard deviation of an outcome, in tolerances: what the process need not follow.
    """

    max_steps: int = 20
    initial: int = 0
    batch: int = 4
    noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(0, _MOST_POINTS, initial=self.initial)
        check_whole(1, _MOST_AT_ONCE, batch=self.batch)
        check_positive("noise", self.noise)

    def check(self) -> None:
        check_installed("botorch", "bayesian")

    def begin_quests(self, starts: Tensor, distance: Distance, generator: torch.Generator) -> "list[_Optimisation]":
        self.check()
        seeds = torch.randint(2**32, (len(starts),), generator=generator).tolist()
        return [_Optimisation(self, distance, start, seed) for start, seed in zip(starts, seeds, strict=True)]

    def count_evaluations(self, controls: int) -> int:
        return self.count_initial(controls) + (self.max_steps - 1) * self.batch

    def count_initial(self, controls: int) -> int:
        """Count the points of the first round."""
        return self.initial or 2 * (controls + 1)


class _Optimisation:
    """The search of one start, `(n_controls,)`; outcomes are counted in tolerances."""

    def __init__(self, solver: Bayesian, distance: Distance, start: Tensor, seed: int) -> None:
        self._solver, self._share = solver, distance.share
        self._random = torch.Generator().manual_seed(seed)
        further = solver.count_initial(len(start)) - 1
        self._first = torch.cat([start[None], draw_evenly(1, further, len(start), self._random)[0]])
        self._seen = self._first[:0]
        self._outcomes = torch.empty(0, len(distance.tolerances), dtype=torch.float64)

    def ask(self) -> Tensor:
        if len(self._seen) == 0:
            return self._first
        seeds = torch.randint(2**31, (2,), generator=self._random).tolist()
        # BoTorch draws from the global stream too, which is left where it was, and warns of what it then mends.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"), torch.enable_grad():
            torch.default_generator.manual_seed(seeds[0])
            chosen = self._choose(seeds[1])
        if chosen is None:
            chosen = draw_evenly(1, self._solver.batch, self._seen.shape[1], self._random)[0]
        return chosen

    def tell(self, unit: Tensor, residual: Tensor, loss: Tensor) -> None:
        failed = torch.isinf(loss)
        known = torch.cat([self._outcomes, residual[~failed] / self._share])
        if len(known) == 0:
            return
        # A failure counts as the worst outcome so far, so that it is not asked there again.
        worst = known[_measure(known).argmax()].expand(int(failed.sum()), -1)
        self._outcomes = torch.cat([known, worst])
        self._seen = torch.cat([self._seen, unit[~failed], unit[failed]])

    def should_stop(self) -> bool:
        return len(self._seen) == 0 or bool((_measure(self._outcomes) <= 1).any())

    def _choose(self, seed: int) -> Tensor | None:
        """The points that improve most together, `(batch, n_controls)`; None: outcomes too far apart for a process."""
        from botorch import fit_gpytorch_mll
        from botorch.acquisition import GenericMCObjective, qLogExpectedImprovement
        from botorch.exceptions import ModelFittingError
        from botorch.models import SingleTaskGP
        from botorch.optim import optimize_acqf
        from botorch.sampling import SobolQMCNormalSampler
        from gpytorch.mlls import ExactMarginalLogLikelihood

        process = SingleTaskGP(self._seen, self._outcomes, torch.full_like(self._outcomes, self._solver.noise**2))
        gain = qLogExpectedImprovement(
            process,
            best_f=-_measure(self._outcomes).min(),
            sampler=SobolQMCNormalSampler(torch.Size([_SAMPLES]), seed=seed),
            objective=GenericMCObjective(lambda outcomes, **_: -_measure(outcomes)),
        )
        bounds = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, self._seen.shape[-1])
        try:
            fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))
            found: Tensor = optimize_acqf(gain, bounds, self._solver.batch, _RESTARTS, _CANDIDATES)[0]
        except (ModelFittingError, RuntimeError):  # NaN, or a matrix without a Cholesky factor
            return None
        return found.detach()


def _measure(outcomes: Tensor) -> Tensor:
    """The miss in tolerances, `(..., n_outcomes)` -> `(...)`."""
    return outcomes.abs().amax(-1)
