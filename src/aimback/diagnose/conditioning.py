"""C6: is the true loss free of ill-conditioning?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from aimback.core.problem import Linearised
from aimback.diagnose import derivatives
from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim, estimate
from aimback.diagnose.statistics import figure, median, medians, quantile, share
from aimback.settings.claims import LEAST
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.starts import Starts

_ILL = 1e-3  # a condition number of a thousand
_SOLVER = LevenbergMarquardt()
_POINTS = 2048  # along all descents, at most
_ROUNDING = 1e-8  # what the differences in a second derivative leave uncertain, of the greatest eigenvalue


@dataclass(frozen=True)
class Curvature:
    """The loss's Hessian by the unit box, at the solutions that were found and along the descents to them.

    Attributes:
        eigenvalues: at solutions, ascending, `(targets, starts, n_controls)`; NaN where none was found.
        effective: condition number of J'J on the row space of J, at solutions, `(targets, starts)`.
        singular: the least and the greatest singular value of J at solutions, `(targets, starts, 2)`.
        on_the_way: eigenvalues along the descents, ascending, `(n, n_controls)`.
        left_out: points of the descents where outcome, Jacobian or Hessian is not finite.
    """

    eigenvalues: Tensor
    effective: Tensor
    singular: Tensor
    on_the_way: Tensor
    left_out: int

    @property
    def reciprocal_condition(self) -> Tensor:
        """The least over the greatest |eigenvalue| at solutions, `(targets, starts)`: 0 singular, 1 a bowl."""
        return _reciprocal_condition(self.eigenvalues)

    @property
    def condition_on_the_way(self) -> Tensor:
        """The greatest over the least |eigenvalue| along the descents, `(n,)`, as far as it can be told."""
        return 1 / _reciprocal_condition(self.on_the_way).clamp(min=_ROUNDING)

    @property
    def negative(self) -> float | None:
        """The share of the descents' points with an eigenvalue below zero by more than rounding."""
        least, size = self.on_the_way[:, 0], self.on_the_way.abs().amax(-1)
        return share(least < -_ROUNDING * size, least.isfinite())


def examine(case: Case) -> tuple[Claim, Pictures]:
    """Eigenvalues of the loss's Hessian, 2 (J'J + sum r_k H_k), at solutions and along descents by Levenberg-Marquardt.

    At a solution the residuals r are zero and the Hessian is 2 J'J, whose rank is at most the number of
    outcomes: with more controls than outcomes it is singular, whatever the task. What a descent meets is
    then its condition on the row space of J (greatest over least nonzero singular value, squared).
    """
    true, *learned = (_curvature(case, forward) for forward in (case.task, *case.networks))
    own = learned[0]
    number = estimate(
        [true.reciprocal_condition], medians, case.generator("conditioning: bootstrap"), case.settings.resamples
    )
    claim = Claim(
        key="C6",
        says="The true loss is not ill-conditioned.",
        question="Is the true loss well conditioned?",
        unit="least over greatest curvature at the solutions",
        bound=_ILL,
        measure=(
            "reciprocal condition number, least over greatest |eigenvalue|, of the true loss's Hessian, median over "
            "its solutions"
        ),
        number=number,
        rule=(
            f"supported where the ratio and its interval over targets lie above {_ILL:g}, a condition number below "
            f"{1 / _ILL:g}; refuted where they do not, so never where the Hessian is singular"
        ),
        because=_because(case, true) if number.value is not None else "No solution was found to look at.",
        details={
            "reciprocal_condition_surrogate": median(own.reciprocal_condition),
            "effective_condition": median(true.effective),
            "effective_condition_max": quantile(true.effective, 1),
            "effective_condition_surrogate": median(own.effective),
            "effective_condition_surrogate_max": quantile(own.effective, 1),
            "singular_value_least": median(true.singular[..., 0]),
            "singular_value_greatest": median(true.singular[..., 1]),
            "condition_on_the_way": median(true.condition_on_the_way),
            "condition_on_the_way_surrogate": median(own.condition_on_the_way),
            "negative_curvature": true.negative,
            "negative_curvature_surrogate": own.negative,
            "solutions": int(true.reciprocal_condition.isfinite().sum()),
            "starts_left_out": int((~true.reciprocal_condition.isfinite()).sum()),
            "points_left_out": true.left_out,
        },
    )
    return claim, {
        f"{name}_{route}": values.numpy()
        for route, of in (("direct", true), ("surrogate", own))
        for name, values in (
            ("hessian_condition", of.condition_on_the_way),
            ("eigenvalues", of.eigenvalues[of.reciprocal_condition.isfinite()]),
        )
    }


def _because(case: Case, true: Curvature) -> str:
    controls, outcomes = len(case.task.box), len(case.task.outcomes)
    ratio = figure(median(true.reciprocal_condition))
    effective = "1 by definition, with one outcome"
    if outcomes > 1:
        effective = f"{figure(median(true.effective))} in the median and {figure(quantile(true.effective, 1))} at most"
    if controls > outcomes:
        words = (
            f"As stated the claim is false: with {_count(controls, 'control')} and {_count(outcomes, 'outcome')} the "
            f"Hessian of the true loss is singular at every solution (least over greatest eigenvalue {ratio}). "
            f"The fair question is its effective condition number, on the row space of the Jacobian: {effective}."
        )
    else:
        words = (
            f"At a solution the least eigenvalue of the true loss's Hessian is {ratio} of the greatest; its effective "
            f"condition number is {effective}."
        )
    if true.negative is not None:
        words += f" On the way there, {100 * true.negative:.0f} % of the points have negative curvature."
    return words


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _reciprocal_condition(eigenvalues: Tensor) -> Tensor:
    sizes = eigenvalues.abs()
    return sizes.amin(-1) / sizes.amax(-1)


def _curvature(case: Case, forward: Linearised) -> Curvature:
    box, targets = case.task.box, case.few()
    starts = Starts(number=case.settings.starts, drawn_from="box", until_solved=False)
    solution = case.solve(forward, targets, _SOLVER, "conditioning: starts", starts)
    # Off the solution by a tolerance, what is singular would not look so.
    exact = (solution.believed_miss <= _SOLVER.precision * case.task.distance.span).cpu()
    rows, _ = torch.nonzero(exact, as_tuple=True)
    values, singular, effective = _spectra(case, forward, box.to_unit(solution.controls.cpu().double())[exact], rows)

    def spread(part: Tensor) -> Tensor:
        everywhere = torch.full((*exact.shape, *part.shape[1:]), torch.nan, dtype=torch.float64)
        everywhere[exact] = part
        return everywhere

    path = solution.history.controls.cpu().double()
    steps = torch.arange(len(path))[:, None, None]
    moving = steps < solution.steps.cpu()[: path.shape[1]]
    _, way_rows, _ = torch.nonzero(moving, as_tuple=True)
    points = box.to_unit(path[moving])
    some = slice(None, None, -(-len(points) // case.task.scale_down(_POINTS, LEAST)) or 1)
    on_the_way, *_ = _spectra(case, forward, points[some], way_rows[some])
    known = on_the_way.isfinite().all(-1)
    return Curvature(
        spread(values),
        spread(effective),
        spread(singular[:, [-1, 0]]),
        on_the_way[known],
        int((~known).sum()),
    )


def _spectra(case: Case, forward: Linearised, unit: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues of the Hessian `(n, n_controls)`, singular values of J `(n, k)`, effective condition number `(n,)`.

    NaN where something is not finite; the condition number also where J is zero.

    Args:
        rows: which target each point belongs to, `(n,)`.
    """
    targets = case.few()
    hessian, jacobian = derivatives.compute_hessians(
        case, forward, unit, targets.conditions[rows], targets.targets[rows]
    )
    known = hessian.flatten(1).isfinite().all(-1) & jacobian.flatten(1).isfinite().all(-1)
    values, singular = (
        torch.full((len(unit), size), torch.nan, dtype=torch.float64)
        for size in (unit.shape[1], min(jacobian.shape[1:]))
    )
    values[known] = torch.linalg.eigvalsh(hessian[known])
    singular[known] = torch.linalg.svdvals(jacobian[known])
    # As in a numerical rank: what is zero but for rounding counts as zero.
    nonzero = singular > max(jacobian.shape[1:]) * torch.finfo(singular.dtype).eps * singular[:, :1]
    least = torch.where(nonzero, singular, torch.inf).amin(-1)
    effective = (singular[:, 0] / least).square()
    return values, singular, torch.where(nonzero.any(-1), effective, torch.nan)
