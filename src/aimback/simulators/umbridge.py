"""A simulator behind a UM-Bridge server."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aimback.core.errors import UserError
from aimback.core.extras import check_installed
from aimback.simulators.reasons import FailedRunError


@dataclass(frozen=True)
class UmbridgeModel:
    """A model that a server offers. Some 2 ms a call.

    Args:
        url: of the server.
        model: which of its models.
        inputs: the names of the numbers in its input vectors, one sequence of names a vector.
        outcomes: the names of the numbers in its output vectors, all in one row.
        config: what the model gets as its configuration.

    Raises:
        UserError: umbridge is not installed.
    """

    url: str
    model: str
    inputs: tuple[tuple[str, ...], ...]
    outcomes: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_installed("umbridge", "umbridge")

    def __call__(self, case: Mapping[str, float | np.ndarray]) -> object:
        """-> the outcomes by name."""
        try:
            output = _connect(self.url, self.model)(self._split(case), dict(self.config))
        except json.JSONDecodeError as error:  # what a server says whose model has raised
            raise FailedRunError("the server gave no answer; its own log says why") from error
        numbers = [number for vector in output for number in vector]
        if len(numbers) != len(self.outcomes):
            raise FailedRunError(f"the server gave {len(numbers)} numbers for {len(self.outcomes)} outcomes")
        return dict(zip(self.outcomes, numbers, strict=True))

    def jacobian(self, case: Mapping[str, float | np.ndarray]) -> object:
        """-> derivatives, by the outcome's name and below it the input's; a gradient an outcome and input vector.

        Raises:
            NotImplementedError: the model offers no gradients.
        """
        model, config = _connect(self.url, self.model), dict(self.config)
        if not model.supports_gradient():
            raise NotImplementedError(f"{self.model} at {self.url} offers no gradients")
        point = self._split(case)
        units = [
            (vector, row) for vector, size in enumerate(model.get_output_sizes(config)) for row in np.eye(size).tolist()
        ]
        return {
            outcome: {
                name: number
                for place, names in enumerate(self.inputs)
                for name, number in zip(names, model.gradient(vector, place, point, unit, config), strict=True)
            }
            for outcome, (vector, unit) in zip(self.outcomes, units, strict=True)
        }

    def _split(self, case: Mapping[str, float | np.ndarray]) -> list[list[float]]:
        return [[float(case[name]) for name in names] for names in self.inputs]


@functools.cache
def _connect(url: str, model: str) -> Any:
    import requests
    from umbridge import HTTPModel

    try:
        return HTTPModel(url, model)
    except requests.RequestException as error:
        raise UserError(f"umbridge: no server answers at {url}; start it, then run again") from error
