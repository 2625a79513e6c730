"""What is asked for in a notebook: a function or a task, and targets in whatever form they come."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from aimback.core.box import Box
from aimback.core.checks import check_one_of, quote
from aimback.core.errors import UserError
from aimback.data.targets import Targets
from aimback.simulators.description import Derivatives, Description
from aimback.simulators.probe import Findings
from aimback.simulators.quantity import Quantity, read_outcomes, read_quantities
from aimback.tasks.base import Task
from aimback.tasks.described import DescribedTask, complete

_RANGES = 'give ranges by name, e.g. {"speed": (0, 10), "angle": (0.1, 1.4)}'


@dataclass(frozen=True)
class Wish:
    """A task, with what was found out about it, and what is wanted of it.

    Attributes:
        name: what to call it.
        controls, outcomes: of the task, pinned controls too; conditions: those that are given under each target.
        targets: None where none are given.
        is_single: whether one target was asked for, and not a row of them.
        findings: None of a task that was made before.
    """

    task: Task
    name: str
    controls: Sequence[Quantity]
    outcomes: Sequence[Quantity]
    conditions: Sequence[Quantity]
    targets: Targets | None
    is_single: bool
    findings: Findings | None

    @property
    def probing(self) -> int:
        """The simulations that it has taken so far."""
        return 0 if self.findings is None else self.findings.calls

    @property
    def has_derivatives(self) -> bool:
        return self.findings is None or self.findings.derivatives != "none"

    def ask(self, targets: Any, conditions: Mapping[str, Any] | None) -> "Wish":
        """The same task, asked for other targets.

        Args:
            conditions: by name, an array with a value for each target, or a number that is the same for all.

        Raises:
            UserError: what is given is no such thing, or a condition is missing.
        """
        _check_mapping(conditions)
        wanted, is_single = _read_wanted(targets, self.outcomes)
        values = {}
        for name, given in (conditions or {}).items():
            value = _to_tensor(given, f"conditions.{name}")
            values[str(name)] = value.expand(len(wanted)) if value.ndim == 0 else value
        return replace(self, targets=_join(wanted, self.conditions, values), is_single=is_single)


def read_wish(
    f: Task | Callable[..., Any],
    controls: Mapping[str, Any] | None,
    targets: Any,
    tolerance: float | None,
    conditions: Mapping[str, Any] | None,
    outcomes: Mapping[str, Any] | Sequence[str] | str | None,
    derivatives: str,
) -> Wish:
    """Make a task of a function, with some calls of it, and targets of whatever holds numbers; see `invert`.

    Raises:
        UserError: something is wrong or missing; the message names the argument.
    """
    if isinstance(f, Task):
        return _read_task(f, controls, targets, tolerance, conditions, outcomes)
    if not callable(f):
        raise UserError(f"f: must be a function or a Task, got {quote(f)}")
    if not isinstance(controls, Mapping):
        raise UserError(f"controls: {_RANGES}; got {quote(controls)}")
    check_one_of("derivatives", derivatives, get_args(Derivatives))
    values, given = _split_conditions(conditions)
    node: dict[str, Any] = {
        "simulator": {"call": _name(f), "derivatives": derivatives, "workers": 0},
        "controls": {str(name): _to_plain(section) for name, section in controls.items()},
        "outcomes": _list_outcomes(outcomes, tolerance),
        "conditions": given,
    }
    results = [one.quantity for one in read_outcomes(node["outcomes"])]
    # What is wrong with the targets is said before the first call, which may take long.
    wanted, is_single = _read_wanted(targets, results) if targets is not None else (None, False)
    varied = [one for one in read_quantities(given, "conditions") if one.value is None]
    asked = None if wanted is None else _join(wanted, varied, values)
    # A network is evaluated, and in float64: of a copy, so that the user's own stays as it is.
    function = copy.deepcopy(f) if isinstance(f, nn.Module) else f
    findings = _make(node, function).probe()
    task = _make(complete(node, findings), function)
    own = read_quantities(node["controls"], "controls")
    return Wish(task, _name(f), own, results, varied, asked, is_single, findings)


def _make(node: Mapping[str, Any], function: Callable[..., Any]) -> DescribedTask:
    description = Description.model_validate(node["simulator"])
    return DescribedTask(description, node["controls"], node["outcomes"], node["conditions"], function=function)


def _read_task(task: Task, *arguments: Any) -> Wish:
    controls, targets, tolerance, conditions, outcomes = arguments
    for name, value in (("controls", controls), ("tolerance", tolerance), ("outcomes", outcomes)):
        if value is not None:
            raise UserError(f"{name}: is the task's own; leave it out")
    own, results, given = (_list_quantities(box) for box in (task.box, task.outcomes, task.conditions))
    wish = Wish(task, type(task).__name__, own, results, given, None, False, None)
    return wish if targets is None else wish.ask(targets, conditions)


def _list_quantities(box: Box) -> list[Quantity]:
    return [Quantity(axis.name, axis.unit, None, (axis.lower, axis.upper)) for axis in box.axes]


def _name(f: Callable[..., Any]) -> str:
    name = str(getattr(f, "__name__", type(f).__name__))
    return name if name.isidentifier() else "the function"  # of a lambda


def _list_outcomes(
    outcomes: Mapping[str, Any] | Sequence[str] | str | None, tolerance: float | None
) -> dict[str, dict[str, Any]]:
    """As a config has them; a tolerance is that of every outcome without one of its own."""
    if outcomes is None:
        outcomes = "outcome"
    if isinstance(outcomes, str):
        outcomes = [outcomes]
    named = outcomes if isinstance(outcomes, Mapping) else {name: {} for name in outcomes}
    if tolerance is None and not all(isinstance(node, Mapping) and "tolerance" in node for node in named.values()):
        raise UserError("tolerance: say how far an outcome may be from its target, e.g. tolerance=0.01")
    if wrong := next((name for name, node in named.items() if not isinstance(node, Mapping)), None):
        raise UserError(f"outcomes.{wrong}: give {{'unit': ..., 'tolerance': ...}}, got {quote(named[wrong])}")
    common = {} if tolerance is None else {"tolerance": _to_plain(tolerance)}
    return {str(name): {**common, **_to_plain(node)} for name, node in named.items()}


def _split_conditions(conditions: Mapping[str, Any] | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Values under each target by name, and all conditions as a config has them: one range for all the values."""
    _check_mapping(conditions)
    values, described = {}, {}
    for name, given in (conditions or {}).items():
        node = dict(given) if isinstance(given, Mapping) else {}
        listed = node.pop("values", None) if node else None if _is_range(given) or np.ndim(given) == 0 else given
        if listed is None:
            described[str(name)] = _to_plain(given)
            continue
        value = values[str(name)] = _to_tensor(listed, f"conditions.{name}")
        low, high = float(value.min()), float(value.max())
        if low == high and "range" not in node:  # it does not vary
            del values[str(name)]
            node["value"] = low if value.ndim == 1 else [low] * value.shape[1]
        else:
            node = {"range": [low, high], **({} if value.ndim == 1 else {"size": value.shape[1]}), **_to_plain(node)}
            lower, upper = node["range"]
            if not lower <= low <= high <= upper:
                raise UserError(f"conditions.{name}: values from {low:g} to {high:g}, the range is {node['range']}")
        described[str(name)] = node
    return values, described


def _check_mapping(conditions: Any) -> None:
    if conditions is not None and not isinstance(conditions, Mapping):
        raise UserError(f"conditions: {_RANGES}, or values; got {quote(conditions)}")


def _is_range(given: Any) -> bool:
    """Of plain lists and tuples, those of two numbers, and perhaps a unit: [lower, upper, unit]."""
    return isinstance(given, list | tuple) and (len(given) == 2 or (len(given) == 3 and isinstance(given[2], str)))


def _read_wanted(targets: Any, outcomes: Sequence[Quantity]) -> tuple[Tensor, bool]:
    """Targets `(n, n_outcomes)`, and whether it is one that was asked for."""
    columns = sum(one.columns for one in outcomes)
    if isinstance(targets, Mapping):
        names = [one.name for one in outcomes]
        if sorted(map(str, targets)) != sorted(names):
            raise UserError(f"target: name {', '.join(names)}, got {', '.join(map(str, targets)) or 'nothing'}")
        parts = [_to_tensor(targets[one.name], f"target.{one.name}") for one in outcomes]
        single = all(part.ndim == (one.size is not None) for part, one in zip(parts, outcomes, strict=True))
        rows = [part.reshape(1 if single else len(part), -1) for part in map(torch.atleast_1d, parts)]
        if len({len(part) for part in rows}) > 1:
            raise UserError(f"target: as many of each outcome, got {', '.join(str(len(part)) for part in rows)}")
        wanted = torch.cat(rows, dim=1)
    else:
        wanted = _to_tensor(targets, "target")
        single = wanted.ndim == 0 or (wanted.ndim == 1 and columns > 1)
        wanted = wanted.reshape(1, -1) if single else wanted.reshape(len(wanted), -1)
    if len(wanted) == 0 or wanted.shape[1] != columns:
        many = f"{columns} numbers a target" if columns > 1 else "a number, or a row of numbers"
        raise UserError(f"target: give {many}, got an array of shape {tuple(np.shape(wanted))}")
    if not bool(torch.isfinite(wanted).all(-1).any()):
        raise UserError("target: none is finite")
    return wanted, single


def _join(wanted: Tensor, conditions: Sequence[Quantity], values: Mapping[str, Tensor]) -> Targets:
    """The targets with the conditions under each of them."""
    names = [one.name for one in conditions]
    if unknown := next((name for name in values if name not in names), None):
        raise UserError(f"conditions.{unknown}: there is none; known are {', '.join(names) or 'none'}")
    columns = []
    for one in conditions:
        if one.name not in values:
            raise UserError(f"conditions.{one.name}: give its value under each target, as an array, or one number")
        value = values[one.name]
        if len(value) != len(wanted):
            raise UserError(f"conditions.{one.name}: {len(value)} values for {len(wanted)} targets")
        columns.append(value.reshape(len(wanted), -1))
    given = torch.cat([wanted[:, :0], *columns], dim=1)
    finite = (torch.isfinite(wanted).all(-1) & torch.isfinite(given).all(-1)).tolist()
    problems = tuple("" if fine else f"row {row} is not finite" for row, fine in enumerate(finite))
    return Targets(wanted, given, torch.zeros(len(wanted), dtype=torch.int64), problems)


def _to_tensor(value: Any, place: str) -> Tensor:
    """float64, on the CPU."""
    try:
        plain = value.detach().cpu() if isinstance(value, Tensor) else value
        return torch.from_numpy(np.array(plain, dtype=np.float64))
    except (TypeError, ValueError):
        raise UserError(f"{place}: must be numbers, got {quote(value)}") from None


def _to_plain(value: Any) -> Any:
    """Arrays and numbers of NumPy and PyTorch as lists and numbers, as a config has them."""
    if isinstance(value, Mapping):
        return {str(name): _to_plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(part) for part in value]
    return value.tolist() if hasattr(value, "tolist") else value
