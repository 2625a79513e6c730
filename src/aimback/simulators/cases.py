"""Simulators of one case as maps of rows: worker processes run the cases, and a case that fails is one marked row."""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimback.core.errors import UserError
from aimback.simulators.description import Description
from aimback.simulators.quantity import Quantity, name_cases, read_outcome

log = logging.getLogger(__name__)


class CaseRows:
    """Rows of cases that are run one by one.

    Args:
        simulate: runs a case, see `aimback.simulators.pool`.
        inputs: the controls, then the conditions, with those that are pinned.

    Attributes:
        failed: how many runs have failed so far, by reason.
    """

    calls_a_jacobian = 1

    def __init__(
        self, simulate: Any, inputs: Sequence[Quantity], outcomes: Sequence[Quantity], description: Description
    ) -> None:
        self.simulate, self._inputs, self._outcomes, self._description = simulate, inputs, outcomes, description
        self._columns = sum(outcome.columns for outcome in outcomes)
        self.failed: Counter[str] = Counter()

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        rows = np.full((len(controls), self._columns), math.nan)
        cases = name_cases(self._inputs, torch.cat([controls, conditions], dim=-1).to("cpu", torch.float64).numpy())
        for row, case in enumerate(cases):
            try:
                rows[row] = read_outcome(self.simulate(case), self._outcomes, self._description.place)
            except Exception as error:  # noqa: BLE001 - a run that fails is a row that is marked
                self.failed[str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"] += 1
        return torch.from_numpy(rows).to(controls)


class OwnRows:
    """The same with the Jacobians that the simulator brings along."""

    calls_a_jacobian = 1

    def __init__(self, rows: CaseRows) -> None:
        self._rows = rows

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self._rows(controls, conditions)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        raise UserError("not yet")
