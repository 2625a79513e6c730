"""Simulators of one case as maps of rows: worker processes run the cases, and a case that fails is one marked row."""

import functools
import math
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aimback.core.errors import UserError
from aimback.simulators.contract import CaseSimulator
from aimback.simulators.description import Description
from aimback.simulators.executor import Crew, Executor, Local, Runner
from aimback.simulators.journal import Journal
from aimback.simulators.pool import Result
from aimback.simulators.quantity import Quantity, name_cases, read_outcome
from aimback.simulators.reasons import Failure, describe_error

_MOST_FAILURES = 0.95


class CaseRows:
    """Rows of cases that are run one by one, by worker processes or by this one.

    Args:
        simulate: runs a case.
        controls, conditions: with those that are pinned.

    Attributes:
        failures: the runs that have failed so far.
        is_sample: whether the cases are a sample of the box, so that the share of those that fail is the simulator's.
            Others may lie together where most fail; all the same, hardly any that works means that it is gone.
    """

    def __init__(
        self,
        simulate: CaseSimulator,
        controls: Sequence[Quantity],
        conditions: Sequence[Quantity],
        outcomes: Sequence[Quantity],
        description: Description,
    ) -> None:
        self._simulate, self._description = simulate, description
        self._inputs, self._outcomes = [*controls, *conditions], outcomes
        self._controls = [control for control in controls if control.value is None]
        self._columns = sum(outcome.columns for outcome in outcomes)
        self._journal: Journal | None = None
        self._executor: Executor = Local()
        self.failures: list[Failure] = []
        self.is_sample = False

    def keep(self, path: Path, identity: str) -> None:
        """Enter finished runs in a journal, and take from it those that a process before this one has finished."""
        self._journal = Journal(path, identity)
        weakref.finalize(self, self._journal.close)

    def give_to(self, executor: Executor) -> None:
        """Have all cases from now on run by another executor than this machine's own workers."""
        self._executor = executor
        vars(self).pop("_runner", None)

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        outcomes: Tensor = torch.from_numpy(self._run(controls, conditions, "__call__", self._columns)).to(controls)
        return outcomes

    def differentiate(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """The Jacobians that the simulator itself gives, `(n, n_outcomes, n_controls)`."""
        shape = self._columns, controls.shape[-1]
        rows = self._run(controls, conditions, "jacobian", math.prod(shape))
        jacobians: Tensor = torch.from_numpy(rows).to(controls)
        by_control: Tensor = jacobians.unflatten(-1, shape)
        return by_control

    def _run(self, controls: Tensor, conditions: Tensor, method: str, columns: int) -> NDArray[np.float64]:
        """What the cases give, `(n, columns)`; NaN where they fail."""
        cases = name_cases(self._inputs, torch.cat([controls, conditions], dim=-1).to("cpu", torch.float64).numpy())
        rows = np.full((len(cases), columns), math.nan)
        journal = self._journal if method == "__call__" else None
        known = {} if journal is None else {row: done for row, case in enumerate(cases) if (done := journal.find(case))}
        waiting = [row for row in range(len(cases)) if row not in known]

        def note(place: int, result: Result) -> None:
            outcome = self._read(result, method)
            if journal is not None:
                journal.enter(cases[waiting[place]], outcome)
            known[waiting[place]] = outcome

        allowed = self._description.failures if self.is_sample else max(self._description.failures, _MOST_FAILURES)
        if waiting:
            self._runner.run([cases[row] for row in waiting], note, method, allowed)
        for row, outcome in sorted(known.items()):  # they have come in any order
            if isinstance(outcome, str):
                self.failures.append(Failure(cases[row], outcome))
            else:
                rows[row] = outcome
        return rows

    def _read(self, result: Result, method: str) -> Any:
        """The numbers of an answer, or the reason why there are none."""
        if result.reason is not None:
            return result.reason
        try:
            if method == "__call__":
                return read_outcome(result.value, self._outcomes, self._description.place)
            return self._read_jacobian(result.value)
        except UserError as error:
            return str(error)
        except (KeyError, TypeError, ValueError) as error:
            return f"its Jacobian cannot be read: {describe_error(error)}"

    def _read_jacobian(self, value: Any) -> NDArray[np.float64]:
        """A Jacobian that was given as a block for each outcome and, below it, each control; all in one row."""

        def read_block(outcome: Quantity, control: Quantity) -> NDArray[np.float64]:
            block = np.asarray(value[outcome.name][control.name], dtype=np.float64)
            return block.reshape(outcome.columns, control.columns)

        blocks = [[read_block(outcome, control) for control in self._controls] for outcome in self._outcomes]
        return np.block(blocks).reshape(-1)

    @functools.cached_property
    def _runner(self) -> Runner:
        about = self._description
        # A command watches its runs itself, and ends all that they have started.
        timeout = math.inf if about.timeout is None or about.kind == "command" else about.timeout
        runner = self._executor.make_runner(Crew(self._simulate, about.workers, timeout, about.retries))
        weakref.finalize(self, runner.close)
        return runner


class OwnRows:
    """The same with the Jacobians that the simulator brings along."""

    def __init__(self, inner: CaseRows) -> None:
        self.inner = inner

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self.inner(controls, conditions)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(controls, conditions), self.inner.differentiate(controls, conditions)


def find_inner(rows: Any) -> Any:
    """The map of rows that others are made around."""
    while hasattr(rows, "inner"):
        rows = rows.inner
    return rows
