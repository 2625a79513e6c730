"""C8: does a proposed start need far fewer steps than random ones?"""

import torch
from torch import Tensor

from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim, Estimate, estimate
from aimback.diagnose.comparison import (
    cap,
    choose_rows,
    choose_size,
    count_steps,
    descend_ladder,
    draw_even_starts,
    limit_steps,
)
from aimback.diagnose.statistics import figure, sureness
from aimback.solve.derivative_free import DerivativeFree
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.solver import Solver

_FAR_FEWER = 2.0


def examine(case: Case) -> tuple[Claim, Pictures]:
    """Descents on the true loss from the hybrid route's proposals, against those from starts all over the box."""
    limit = case.settings.max_steps
    hybrid = case.solutions.get("hybrid")
    # A hybrid solution's paths begin at its proposals, one a target; those of a derivative-free solver a round later.
    if hybrid is None or isinstance(case.solver, DerivativeFree):
        return _claim(Estimate(None, None, None, (None,)), "There are no proposals to start from.", limit, {}), {}
    proposals = hybrid.history.controls[0, :, :1].to(torch.float64)
    rows = choose_rows(case)
    kept = rows < len(proposals)
    targets, proposals = case.targets.of(rows[kept]), proposals[rows[kept]]
    starts = draw_even_starts(case, len(rows))[kept]
    ladder = descend_ladder(case)
    size = choose_size(ladder.direct, limit)

    def steps(solver: Solver, starts: Tensor) -> Tensor:
        return count_steps(case, case.task, targets, limit_steps(case, solver), starts)

    descent = GradientDescent(step_size=float(case.settings.step_sizes[int(size)]))
    warm, cold = steps(descent, proposals)[:, 0], ladder.direct[size][kept]
    solver_warm, solver_cold = steps(case.solver, proposals)[:, 0], steps(case.solver, starts)
    number, configured = _ratio(case, warm, cold), _ratio(case, solver_warm, solver_cold)
    details = {
        "simulations_proposal": float(_simulations(warm, limit).mean()),
        "simulations_random": float(_simulations(cold, limit).mean()),
        "hit_proposal": float((warm >= 0).double().mean()),
        "hit_random": float((cold >= 0).double().mean()),
        "instant_share": float((warm == 0).double().mean()),
        "solver_ratio": configured.value,
        "solver_low": configured.low,
        "solver_high": configured.high,
        "size": descent.step_size,
        "limit": float(limit),
    }
    because = (
        f"{100 * float((warm == 0).double().mean()):.1f} % of the proposals are hits at once. Gradient descent takes "
        f"{figure(details['simulations_random'])} simulations from random starts and "
        f"{figure(details['simulations_proposal'])} from the proposals, {figure(number.value)} times as many "
        f"({sureness(number)}); with the configured solver it is {figure(configured.value)} times "
        f"({sureness(configured)})."
    )
    return _claim(number, because, limit, details), {}


def _claim(number: Estimate, because: str, limit: int, details: dict[str, float | None]) -> Claim:
    return Claim(
        key="C8",
        says="From a proposed start gradient descent needs far fewer iterations than from random starts.",
        question="Does a proposed start save most of the simulations?",
        unit="times as many simulations from random starts",
        bound=_FAR_FEWER,
        measure="simulations of gradient descent through the true loss until the miss is within the tolerance, the "
        "first look included, from random starts over from the hybrid route's proposal: the ratio of the means over "
        f"the same targets, in which a start that never hits counts with the limit of {limit} steps",
        number=number,
        rule=f"supported where the ratio and its interval over targets lie above {_FAR_FEWER:g}",
        because=because,
        details=details,
    )


def _ratio(case: Case, warm: Tensor, cold: Tensor) -> Estimate:
    """Of the mean simulations, random starts `(n_targets, n_starts)` over proposals `(n_targets,)`."""
    limit = case.settings.max_steps
    pairs = torch.stack([_simulations(warm, limit), _simulations(cold, limit).mean(1)], dim=-1)

    def ratio(pairs: Tensor) -> Tensor:
        mean = pairs.mean(-2)
        # Where no start hits there is nothing to compare.
        return torch.where((mean == limit + 1).all(-1), torch.nan, mean[..., 1] / mean[..., 0])

    return estimate([pairs], ratio, case.generator("warm start"), case.settings.resamples)


def _simulations(steps: Tensor, limit: int) -> Tensor:
    """A hit at once takes one, to see that it is one."""
    return cap(steps, limit) + 1
