"""What a user would rather have, where several answers hit a target."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from pydantic import model_validator
from torch import Tensor

from aimback.core.box import Box
from aimback.core.checks import quote
from aimback.core.errors import UserError
from aimback.core.section import Section
from aimback.simulators.function import find_function
from aimback.simulators.quantity import Quantity, name_cases


class Preference(Section):
    """The section `preference` of a described task: of the answers that hit, the one of least cost is taken.

    A target that gets further starts only while none has hit it has hardly a choice, see `Starts.until_solved`.

    Attributes:
        reference: controls by name; the cost is the distance from there, see `Preference.make`.
        weights: how much a control of the reference counts, by name, 0 or more; 1 where nothing is said.
        cost: in place of both a function of the named controls, pinned ones too, "package.module:function", which
            returns a number.
    """

    reference: dict[str, float] | None = None
    weights: dict[str, float] | None = None
    cost: str | None = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.reference is None) == (self.cost is None):
            raise ValueError("give either a reference, {speed: 5.0}, or a cost, 'package.module:function'")
        if self.weights is not None and self.reference is None:
            raise ValueError("weights: are those of a reference, and there is none")
        if self.reference is not None and not self.reference:
            raise ValueError("reference: name at least one control")
        for name, weight in (self.weights or {}).items():
            if name not in (self.reference or {}):
                raise ValueError(f"weights.{name}: is not in the reference")
            if weight < 0:
                raise ValueError(f"weights.{name}: must be at least 0, got {weight:g}")
        return self

    def make(self, box: Box, controls: Sequence[Quantity]) -> Callable[[Tensor], Tensor]:
        """Make the function from controls `(n, n_controls)` to their costs `(n,)`, float64.

        From a reference it is the root of the sum of squares of `weight (control - reference) / length`, over the
        controls that it names, each over the length of its range. A cost that is no number counts as infinite.

        Args:
            controls: the quantities that the box was made of, and pinned ones.

        Raises:
            UserError: the reference names what is no control with a range. The function raises it where the user's
                own one fails.
        """
        if self.cost is not None:
            return lambda rows: _call(str(self.cost), controls, rows)
        reference = self.reference or {}
        if strange := next((name for name in reference if name not in box.names), None):
            raise UserError(
                f"preference.reference.{strange}: is no control with a range; these are {', '.join(box.names)}"
            )
        columns = [box.names.index(name) for name in reference]
        weights = torch.tensor([(self.weights or {}).get(name, 1.0) for name in reference], dtype=torch.float64)
        weights = weights / (box.upper - box.lower)[columns]
        wanted = torch.tensor(list(reference.values()), dtype=torch.float64)
        return lambda rows: torch.linalg.vector_norm((rows[:, columns].double() - wanted) * weights, dim=-1)


def _call(cost: str, controls: Sequence[Quantity], rows: Tensor) -> Tensor:
    """What a function of the user's says of each row."""
    function = find_function(cost)
    costs = []
    for case in name_cases(controls, rows.double().cpu().numpy()):
        costs.append(_read_cost(cost, function, case))
    return torch.tensor(costs, dtype=torch.float64)


def _read_cost(cost: str, function: Callable[..., Any], case: dict[str, Any]) -> float:
    try:
        found = float(function(**case))
    except Exception as error:  # whatever stands in the function is run
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"preference.cost: {cost} gave no number at {quote(case)} ({reason}); it must return one"
        ) from error
    return math.inf if math.isnan(found) else found
