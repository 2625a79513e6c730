"""C1: does a surrogate that believes it hit hit?"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from aimback.core.problem import Linearised, Solution
from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim, estimate
from aimback.diagnose.comparison import measure_miss
from aimback.diagnose.statistics import share
from aimback.solve.solver import Solver
from aimback.solve.starts import Starts
from aimback.tasks.base import TOLERANCES

_TOO_OFTEN = 0.01


def examine(case: Case) -> tuple[Claim, Pictures]:
    """How often, and by how much, the surrogate route's answers miss where it believes in a hit."""
    settings, tolerance = case.settings, case.task.tolerance

    def invert(network: Linearised, solver: Solver, starts: Starts) -> Solution:
        return case.solve(network, case.targets, solver, "misbelief starts", starts)

    answers = [_answers(case, case.solutions["surrogate"])]
    answers += [_answers(case, invert(network, case.solver, case.starts)) for network in case.networks[1:]]
    trusted = [miss[believed <= tolerance] for believed, miss in answers]
    number = estimate(
        [(miss > tolerance).double() for miss in trusted],
        lambda missed: missed.mean(-1),
        case.generator("misbelief"),
        settings.resamples,
    )
    believed, miss = answers[0]
    over = trusted[0][trusted[0] > tolerance].sort().values
    # As the article went about it: one descent a target, which is believed as soon as it comes within the tolerance.
    naive = replace(case.solver, precision=case.task.distance.share)
    single = case.starts.model_copy(update={"number": 1})
    naive_believed, naive_miss = _answers(case, invert(case.networks[0], naive, single))
    rank = {"median": 0.5, "p90": 0.9, "greatest": 1.0}
    sizes = {name: _pick_rank(over, place) for name, place in rank.items()}
    details = {
        "believed_share": float((believed <= tolerance).double().mean()),
        **{f"miss_{name}": size for name, size in sizes.items()},
        **{f"miss_{name}_tolerances": None if size is None else size / tolerance for name, size in sizes.items()},
        "share_of_single_descents": share(naive_miss > tolerance, naive_believed <= tolerance),
    }
    return Claim(
        key="C1",
        says="A surrogate that believes it hit can still miss.",
        question="Does a surrogate that believes it hit still miss?",
        unit="of the hits that the surrogate believes in",
        is_share=True,
        bound=_TOO_OFTEN,
        measure="share of the targets whose true miss is over the tolerance, among those that the surrogate "
        "route believes to have hit; over all targets, with the solver as configured",
        number=number,
        rule="supported where the share, its interval over targets and that of every network lie above "
        f"{100 * _TOO_OFTEN:g} %",
        because=_because(case, number.value, len(trusted[0]), sizes),
        details=details,
    ), {"believed": believed.numpy(), "miss": miss.numpy()}


def _answers(case: Case, solution: Solution) -> tuple[Tensor, Tensor]:
    """Believed and true miss of the start that the route itself ranks first, `(n_targets,)` each."""
    best = solution.best()[:, None]
    believed = solution.believed_miss.gather(1, best)[:, 0].to("cpu", torch.float64)
    controls = solution.controls.take_along_dim(best[:, :, None], 1)
    return believed, measure_miss(case, case.targets, controls)[:, 0]


def _pick_rank(ordered: Tensor, place: float) -> float | None:
    """The nearest rank: a miss that was measured; None where there is none, or it has no size."""
    if len(ordered) == 0:
        return None
    miss = float(ordered[round(place * (len(ordered) - 1))])
    return miss if math.isfinite(miss) else None


def _because(case: Case, missed: float | None, trusted: int, sizes: dict[str, float | None]) -> str:
    if missed is None:
        return "The surrogate route believes in no hit at all."
    text = f"Of {trusted} targets that the surrogate route believes to have hit, {100 * missed:.1f} % are missed"
    unit = f" {case.task.miss_unit}".rstrip()
    if sizes["median"] is not None:
        text += f", half of these by more than {sizes['median']:.2g}{unit}"
    if sizes["greatest"] is not None:
        text += f", the worst by {sizes['greatest']:.2g}{unit}"
        if case.task.miss_unit != TOLERANCES:
            text += f", {sizes['greatest'] / case.task.tolerance:.1f} times the tolerance"
    return text + "."
