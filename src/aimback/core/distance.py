"""How far an outcome is from what is wanted, where each outcome has a tolerance of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from aimback.core.checks import check_positive


class Distance:
    """Measures differences between outcomes by the tolerances of the outcomes.

    A target is hit when every outcome is within its own tolerance. So the *miss* is the greatest of the differences,
    each over its tolerance, times `tolerance`. With tolerances of 0.01 and 500 and a `tolerance` of 1 it is counted in
    tolerances; where all of them are 0.01 it is the greatest difference itself, in the unit of the outcomes.

    What solvers descend is smooth: the sum of squares of the differences over `scales`.

    Args:
        tolerances: how far each outcome may be from what is wanted, in its unit, one an outcome.
        tolerance: the miss at which a target counts as hit.
        span: a typical miss, which makes losses of different tasks comparable.

    Attributes:
        units: how much of each outcome counts as a miss of 1, `(n_outcomes,)`, float64 on the CPU.
        scales: how much of each outcome counts as a miss of `span`, likewise.

    Raises:
        UserError: a number that is not positive and finite.
    """

    def __init__(self, tolerances: Sequence[float], tolerance: float, span: float) -> None:
        self.tolerances = tuple(check_positive("tolerances", one) for one in tolerances)
        self.tolerance = check_positive("tolerance", tolerance)
        self.span = check_positive("span", span)
        self.units = torch.tensor(self.tolerances, dtype=torch.float64) / self.tolerance
        self.scales = self.span * self.units

    def __repr__(self) -> str:
        return f"Distance({self.tolerances}, {self.tolerance}, {self.span})"

    @property
    def share(self) -> float:
        """The tolerance as a share of the span."""
        return self.tolerance / self.span

    def measure(self, differences: Tensor) -> Tensor:
        """The miss of differences between outcomes, `(..., n_outcomes)` -> `(...)`; NaN where one is."""
        return (differences / self.units.to(differences)).abs().amax(-1)
