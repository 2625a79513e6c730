"""C2: does the true loss need fewer iterations?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim, Estimate, estimate
from aimback.diagnose.comparison import (
    cap,
    choose_size,
    choose_targets,
    count_steps,
    descend_ladder,
    draw_even_starts,
    limit_steps,
)
from aimback.diagnose.statistics import figure, sureness

_MARGIN = 1.05


def examine(case: Case) -> tuple[Claim, Pictures]:
    """Steps until the true miss is within the tolerance, by gradient descent and by the configured solver."""
    settings, limit = case.settings, case.settings.max_steps
    ladder = descend_ladder(case)
    direct, *through = (_at_best_size(steps, limit) for steps in (ladder.direct, *ladder.networks))
    number = _ratios(case, direct, through)
    # Both at one step size, the one that suits the surrogate.
    same = choose_size(ladder.networks[0], limit)
    at_same = _ratios(case, ladder.direct[same], [ladder.networks[0][same]])

    targets, solver = choose_targets(case), limit_steps(case, case.solver)
    starts = draw_even_starts(case, len(targets))
    solver_direct, *solver_through = (
        count_steps(case, forward, targets, solver, starts) for forward in (case.task, *case.networks)
    )
    configured = _ratios(case, solver_direct, solver_through)

    sizes = torch.tensor(settings.step_sizes, dtype=torch.float64)
    details = {
        "steps_direct": float(cap(direct, limit).mean()),
        "steps_surrogate": float(cap(through[0], limit).mean()),
        "hit_direct": _hit_share(direct),
        "hit_surrogate": _hit_share(through[0]),
        "ratio_where_both_hit": _ratio_where_both_hit(direct, through[0]),
        "size_direct": float(sizes[choose_size(ladder.direct, limit)]),
        "size_surrogate": float(sizes[same]),
        "same_size_ratio": at_same.value,
        "same_size_low": at_same.low,
        "same_size_high": at_same.high,
        "solver_ratio": configured.value,
        "solver_low": configured.low,
        "solver_high": configured.high,
        "solver_ratio_where_both_hit": _ratio_where_both_hit(solver_direct, solver_through[0]),
        "solver_hit_direct": _hit_share(solver_direct),
        "solver_hit_surrogate": _hit_share(solver_through[0]),
        "limit": float(limit),
    }
    claim = Claim(
        key="C2",
        says="Through the true loss gradient descent needs fewer iterations.",
        question="Does gradient descent need fewer steps through the simulator?",
        unit="times as many steps through the network",
        bound=_MARGIN,
        measure="steps of gradient descent until the true miss is within the tolerance for the first time, be it in "
        "passing, through the network over through the simulator, each at its own best step size: the ratio of the "
        f"means over the same starts, in which a start that never hits counts with the limit of {limit} steps. A "
        "target's step size is chosen on the other half of the targets",
        number=number,
        rule=f"supported where the ratio, its interval over targets and that of every network lie above {_MARGIN:g}",
        because=_because(number, configured, details),
        details=details,
    )
    return claim, {
        "sizes": sizes.numpy(),
        "hit_direct": (ladder.direct >= 0).double().mean((1, 2)).numpy(),
        "hit_surrogate": (ladder.networks[0] >= 0).double().mean((1, 2)).numpy(),
        "curve_direct": _curve(direct, limit).numpy(),
        "curve_surrogate": _curve(through[0], limit).numpy(),
    }


def _at_best_size(steps: Tensor, limit: int) -> Tensor:
    """Of `(k, n_targets, n_starts)` the steps at the best size, `(n_targets, n_starts)`.

    Every other target is measured at the size that is best for the rest, so no size is chosen by what it is
    then measured on; a single target has no rest.
    """
    if steps.shape[1] == 1:
        return steps[choose_size(steps, limit)]
    even, odd = steps[:, 0::2], steps[:, 1::2]
    chosen = torch.empty_like(steps[0])
    chosen[0::2], chosen[1::2] = even[choose_size(odd, limit)], odd[choose_size(even, limit)]
    return chosen


def _ratios(case: Case, direct: Tensor, through: Sequence[Tensor]) -> Estimate:
    """Of the mean steps, through each network over direct, for steps `(n_targets, n_starts)` from the same starts."""
    limit = case.settings.max_steps

    def ratio(pairs: Tensor) -> Tensor:
        mean = pairs.mean((-3, -2))
        # Where no start hits on either route there is nothing to compare.
        return torch.where((mean == limit).all(-1), torch.nan, mean[..., 1] / mean[..., 0])

    pairs = [torch.stack([cap(direct, limit), cap(steps, limit)], dim=-1) for steps in through]
    return estimate(pairs, ratio, case.generator("iterations"), case.settings.resamples)


def _hit_share(steps: Tensor) -> float:
    return float((steps >= 0).double().mean())


def _ratio_where_both_hit(direct: Tensor, through: Tensor) -> float | None:
    """What is left of the ratio without the starts that one route or both never bring there."""
    both = (direct >= 0) & (through >= 0)
    steps = float(direct[both].sum())
    return float(through[both].sum()) / steps if steps > 0 else None


def _curve(steps: Tensor, limit: int) -> Tensor:
    """Share of the starts that have been within the tolerance by each step, `(limit + 1,)`."""
    return steps[steps >= 0].bincount(minlength=limit + 1).cumsum(0).double() / steps.numel()


def _because(number: Estimate, configured: Estimate, details: dict[str, float | None]) -> str:
    def times(ratio: Estimate, before: str = "") -> str:
        apart = figure(details[f"{before}ratio_where_both_hit"])
        hits = [100 * (details[f"{before}hit_{route}"] or 0.0) for route in ("surrogate", "direct")]
        return (
            f"{figure(ratio.value)} times as many ({sureness(ratio)}; {hits[0]:.1f} and {hits[1]:.1f} % of the "
            f"starts truly hit, and where both do it is {apart} times)"
        )

    if number.value is None:
        return "Gradient descent brings no start within the tolerance, through neither loss."
    return (
        f"Gradient descent takes {figure(details['steps_surrogate'])} steps through the network's loss and "
        f"{figure(details['steps_direct'])} through the true one, {times(number)}. With the configured solver it is "
        f"{times(configured, 'solver_')}."
    )
