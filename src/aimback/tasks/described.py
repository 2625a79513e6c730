"""A task that a config describes: a simulator that we did not write, with names, units, ranges and tolerances."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from aimback.core.box import Box
from aimback.core.constraints import read_constraints
from aimback.core.errors import OverBudgetError, UserError, is_out_of_memory
from aimback.core.tracing import is_traced
from aimback.simulators.cases import CaseRows, find_inner
from aimback.simulators.description import Description
from aimback.simulators.executor import Executor, Local
from aimback.simulators.maps import RowMap
from aimback.simulators.probe import SAMPLES, Findings
from aimback.simulators.quantity import Outcome, Quantity, read_outcomes, read_quantities, spread_arrays
from aimback.simulators.reasons import Failure, describe_error
from aimback.simulators.simulator import Simulator
from aimback.simulators.source import FOUND
from aimback.tasks.base import Task
from aimback.tasks.preference import Preference

# What says how runs are managed and differentiated, and nothing of what comes out.
_NOT_SIMULATED = {"workers", "timeout", "retries", "failures", "derivatives", "step"}


class DescribedTask(Task):
    """A described simulator as a task. Nothing of the simulator is imported before the first call.

    Args:
        simulator: where it is, and how it is called.
        controls: by name `[lower, upper, unit]`, `{range: [lower, upper], unit: ..., size: ...}` for an array, or a
            number that the control is pinned to.
        outcomes: by name `{unit: ..., tolerance: ..., sigma: ..., range: [lower, upper], size: ...}`; the range is the
            one that misses are compared with, and sigma the standard deviation of a measured target.
        conditions: as controls.
        preference: which answer is wanted where several hit; None leaves that to the least miss.
        constraints: such as "speed + 2*angle <= 9", of controls by name, in their units. They are kept by data sets,
            starts and answers; what perturbs an answer (smoothing, finite differences) may go beyond them.
        function: in the place of what `simulator.call` names.

    Raises:
        UserError: names the key that is wrong.
    """

    def __init__(
        self,
        simulator: Description,
        controls: dict[str, Any],
        outcomes: dict[str, Any],
        conditions: dict[str, Any] | None = None,
        preference: Preference | None = None,
        constraints: Sequence[str] | None = None,
        function: Callable[..., Any] | None = None,
    ) -> None:
        simulator = Description.model_validate(simulator)  # MLflow keeps it as a mapping
        axes = read_axes(controls, outcomes, conditions)
        inputs = axes.inputs
        self.box, self.conditions, self.outcomes = axes.box, axes.conditions, axes.outcomes
        self.tolerances, self.tolerance = axes.tolerances, axes.tolerance
        if axes.sigmas is not None:
            self._sigmas = axes.sigmas
        if constraints:
            ranges = {axis.name: (axis.lower, axis.upper) for axis in self.box.axes}
            numbers = [one for one in spread_arrays(inputs[0]) if isinstance(one.value, int | float)]
            pinned = {one.name: float(one.value) for one in numbers}  # type: ignore[arg-type]
            self.box = Box(self.box.axes, read_constraints(constraints, ranges, pinned))
            self.constraints = tuple(constraints)  # public, as `simulator` below
        # Public, so that a file that was made for another simulator is known by them; see `identify`.
        self.simulator = simulator.model_dump(exclude=_NOT_SIMULATED, exclude_defaults=True)
        self.pinned = {one.name: one.value for part in inputs for one in part if one.value is not None}
        if preference is not None:
            self._costs = Preference.model_validate(preference).make(self.box, inputs[0])
        self._allowed: int | None = None
        self._executor: Executor = Local()
        self._simulator = Simulator(
            simulator, inputs[0], inputs[1], [one.quantity for one in axes.results], self.box, function
        )

    @functools.cached_property
    def _rows(self) -> RowMap:
        if unknown := next((one.name for one in self._simulator.outcomes if one.bounds is None), None):
            raise UserError(f"outcomes.{unknown}.range: was not found out yet; give it, [lower, upper]")
        return self._simulator.make()

    @property
    def description(self) -> Description:
        return self._simulator.description

    @property
    def simulations_a_jacobian(self) -> int:
        return 1 + len(self.box) if self.derivatives == "finite_differences" else 1

    @property
    def derivatives(self) -> str:
        """See `Description`."""
        return self._simulator.description.derivatives

    @property
    def compiles(self) -> bool:
        return self.derivatives in ("dual", "jvp", "autograd")

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        leading, rows = _flatten(controls, conditions)
        self._spend(len(rows[0]))
        outcomes: Tensor = self._call(self._rows, rows)
        return outcomes.reshape(*leading, len(self.outcomes))

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        leading, rows = _flatten(controls, conditions)
        self._spend(len(rows[0]) * self.simulations_a_jacobian)
        outcomes, jacobians = self._call(self._rows.linearise, rows)
        shape = (*leading, len(self.outcomes))
        return outcomes.reshape(shape), jacobians.reshape(*shape, len(self.box))

    @property
    def rows_at_once(self) -> int | None:
        return None if self._simulator.description.cases != "one" else self._executor.cases_at_once

    def _call(self, work: Callable[..., Any], rows: list[Tensor]) -> Any:
        """Call what is a user's own: whatever it raises becomes one line, and its trace is in the log."""
        try:
            return work(*rows)
        except Exception as error:
            if isinstance(error, UserError) or is_out_of_memory(error) or is_traced():
                raise
            raise UserError(f"{self.description.place}: {describe_error(error)}") from error

    @contextmanager
    def watch_failures(self) -> Iterator[None]:
        if not isinstance(rows := find_inner(self._rows), CaseRows):
            yield
            return
        rows.is_sample = True
        try:
            yield
        finally:
            rows.is_sample = False

    def allow(self, simulations: int | None) -> None:
        self._allowed = simulations

    def _spend(self, simulations: int) -> None:
        if self._allowed is not None:
            if simulations > self._allowed:
                raise OverBudgetError(
                    f"budget.simulations: {simulations:,} more are needed to go on, {self._allowed:,} are left"
                )
            self._allowed -= simulations

    def keep_runs(self, path: Path, identity: str) -> None:
        if isinstance(rows := find_inner(self._rows), CaseRows):
            rows.keep(path, identity)

    def spread_runs(self, executor: Executor) -> None:
        if isinstance(rows := find_inner(self._rows), CaseRows):
            self._executor = executor
            rows.give_to(executor)

    @property
    def failures(self) -> Sequence[Failure]:
        return getattr(find_inner(self._rows), "failures", ())

    def probe(self, *, anew: bool = False) -> Findings:
        """Find out what the description leaves open, with some simulations; `anew`: also what it does not."""
        description = self.description
        if anew:
            description = description.model_copy(update=dict.fromkeys(("arrays", "cases", "derivatives"), "auto"))
        return replace(self._simulator, description=description).probe(self.conditions)


@dataclass(frozen=True)
class Axes:
    """What a config says of the controls, conditions and outcomes of a task.

    Attributes:
        inputs: the controls and the conditions, with those that are pinned.
        results: the outcomes.
        sigmas: standard deviations of measured targets, one an outcome; None where none is given.
    """

    inputs: tuple[list[Quantity], list[Quantity]]
    results: list[Outcome]
    box: Box
    conditions: Box
    outcomes: Box
    tolerances: tuple[float, ...]
    tolerance: float
    sigmas: tuple[float | None, ...] | None


def read_axes(controls: dict[str, Any], outcomes: dict[str, Any], conditions: dict[str, Any] | None) -> Axes:
    """Read what a config describes, see `DescribedTask`.

    Raises:
        UserError: names the key that is wrong.
    """
    inputs = read_quantities(controls, "controls"), read_quantities(conditions or {}, "conditions")
    results = read_outcomes(outcomes)
    box, given = (_make_box(quantities) for quantities in inputs)
    if len(box) == 0:
        raise UserError("controls: name at least one with a range, e.g. speed: [0, 10, m/s]")
    names = [one.name for part in inputs for one in part]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"conditions.{twice}: is a control too")
    tolerances = tuple(one.tolerance for one in results for _ in range(one.quantity.columns))
    sigmas = tuple(one.sigma for one in results for _ in range(one.quantity.columns))
    alike = len({(one.quantity.unit, one.tolerance) for one in results}) == 1
    return Axes(
        inputs=inputs,
        results=results,
        box=box,
        conditions=given,
        outcomes=_make_box([_span(one.quantity) for one in results]),
        tolerances=tolerances,
        tolerance=tolerances[0] if alike else 1.0,
        sigmas=None if results[0].sigma is None else sigmas,
    )


def complete(node: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """A task's section of the config with what was found out about its simulator filled in, and the names of that."""
    found: dict[str, Any] = {
        "arrays": findings.arrays,
        "cases": findings.cases,
        "derivatives": findings.derivatives,
        **({} if findings.step is None else {"step": findings.step}),
    }
    simulator = dict(node["simulator"])
    names = [f"simulator.{name}" for name in found if simulator.get(name, "auto") in ("auto", None)]
    outcomes, more = fill_ranges(node["outcomes"], findings.ranges, f"all of {SAMPLES} runs")
    return {**node, "simulator": {**simulator, **found}, "outcomes": outcomes, FOUND: [*names, *more]}


def fill_ranges(outcomes: Mapping[str, Any], ranges: Any, where: str) -> tuple[dict[str, Any], list[str]]:
    """The outcomes of a task's section of the config, those whose range was left open with the range that was found.

    Args:
        ranges: least and greatest value of each column, `(2, n_outcomes)`.
        where: it was found, for messages.

    Returns:
        The outcomes, and the names of the settings that were found.

    Raises:
        UserError: an outcome is the same everywhere.
    """
    filled, names, column = {}, [], 0
    for one in read_outcomes(outcomes):
        last = column + one.quantity.columns
        # All numbers of an array share a range, as they share a unit.
        low, high = float(ranges[0, column:last].min()), float(ranges[1, column:last].max())
        name = one.quantity.name
        if one.quantity.bounds is None and not low < high:
            raise UserError(f"outcomes.{name}: is {low:g} in {where}; no control or condition changes it")
        if one.quantity.bounds is None:
            names.append(f"outcomes.{name}.range")
        filled[name] = {"range": [low, high], **outcomes[name]}
        column = last
    return filled, names


def _make_box(quantities: Iterable[Quantity]) -> Box:
    return Box(axis for one in quantities if one.value is None for axis in one.make_axes())


def _span(outcome: Quantity) -> Quantity:
    # A range that is still to be found out.
    return outcome if outcome.bounds is not None else replace(outcome, bounds=(0.0, 1.0))


def _flatten(controls: Tensor, conditions: Tensor) -> tuple[tuple[int, ...], list[Tensor]]:
    """The common leading shape, and both as rows."""
    leading = np.broadcast_shapes(controls.shape[:-1], conditions.shape[:-1])  # torch's own imports SymPy
    rows = math.prod(leading)
    return leading, [part.expand(*leading, -1).reshape(rows, part.shape[-1]) for part in (controls, conditions)]
