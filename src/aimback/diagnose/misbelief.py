"""C1: does a surrogate that believes it hit hit?"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from aimback.core.problem import Linearised, Solution
from aimback.diagnose.case import Pictures, Subject
from aimback.diagnose.claim import Claim, estimate
from aimback.diagnose.descents import true_miss
from aimback.diagnose.summary import share
from aimback.solve.solver import Solver
from aimback.solve.starts import Starts

_TOO_OFTEN = 0.01


def examine(subject: Subject) -> tuple[Claim, Pictures]:
    """How often, and by how much, the surrogate route's answers miss where it believes in a hit."""
    settings, tolerance = subject.settings, subject.task.tolerance

    def invert(network: Linearised, solver: Solver, starts: Starts) -> Solution:
        return subject.solve(network, subject.targets, solver, "misbelief starts", starts)

    answers = [_answers(subject, subject.solutions["surrogate"])]
    answers += [_answers(subject, invert(network, subject.solver, subject.starts)) for network in subject.networks[1:]]
    trusted = [miss[believed <= tolerance] for believed, miss in answers]
    number = estimate(
        [(miss > tolerance).double() for miss in trusted],
        lambda missed: missed.mean(-1),
        subject.generator("misbelief"),
        settings.resamples,
    )
    believed, miss = answers[0]
    over = trusted[0][trusted[0] > tolerance].sort().values
    # As the article went about it: one descent a target, which is believed as soon as it comes within the tolerance.
    naive = replace(subject.solver, precision=tolerance / subject.task.outcomes.span)
    single = subject.starts.model_copy(update={"number": 1})
    naive_believed, naive_miss = _answers(subject, invert(subject.networks[0], naive, single))
    rank = {"median": 0.5, "p90": 0.9, "greatest": 1.0}
    sizes = {name: _ranked(over, place) for name, place in rank.items()}
    details = {
        "believed_share": float((believed <= tolerance).double().mean()),
        **{f"miss_{name}": size for name, size in sizes.items()},
        **{f"miss_{name}_tolerances": None if size is None else size / tolerance for name, size in sizes.items()},
        "share_of_single_descents": share(naive_miss > tolerance, naive_believed <= tolerance),
    }
    return Claim(
        key="C1",
        says="A surrogate that believes it hit can still miss.",
        measure="share of the targets whose true miss is over the tolerance, among those that the surrogate "
        "route believes to have hit; over all targets, with the solver as configured",
        number=number,
        rule="holds where the share, its interval over targets and that of every network lie above "
        f"{100 * _TOO_OFTEN:g} %",
        verdict=number.against(_TOO_OFTEN),
        because=_because(subject, number.value, len(trusted[0]), sizes),
        details=details,
    ), {"believed": believed.numpy(), "miss": miss.numpy()}


def _answers(subject: Subject, solution: Solution) -> tuple[Tensor, Tensor]:
    """Believed and true miss of the start that the route itself ranks first, `(n_targets,)` each."""
    best = solution.best()[:, None]
    believed = solution.believed_miss.gather(1, best)[:, 0].to("cpu", torch.float64)
    controls = solution.controls.take_along_dim(best[:, :, None], 1)
    return believed, true_miss(subject, subject.targets, controls)[:, 0]


def _ranked(ordered: Tensor, place: float) -> float | None:
    """The nearest rank: a miss that was measured; None where there is none, or it has no size."""
    if len(ordered) == 0:
        return None
    miss = float(ordered[round(place * (len(ordered) - 1))])
    return miss if math.isfinite(miss) else None


def _because(subject: Subject, missed: float | None, trusted: int, sizes: dict[str, float | None]) -> str:
    if missed is None:
        return "The surrogate route believes in no hit at all."
    text = f"Of {trusted} targets that the surrogate route believes to have hit, {100 * missed:.1f} % are missed"
    unit = f" {subject.task.outcomes.axes[0].unit}".rstrip()
    tolerance = subject.task.tolerance
    if sizes["median"] is not None:
        text += f", half of these by more than {sizes['median']:.2g}{unit}"
    if sizes["greatest"] is not None:
        text += f", the worst by {sizes['greatest']:.2g}{unit}, {sizes['greatest'] / tolerance:.1f} times the tolerance"
    return text + "."
