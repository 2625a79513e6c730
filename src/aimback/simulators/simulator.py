"""A simulator as a config describes it, made callable."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aimback.core.box import Box
from aimback.core.errors import UserError
from aimback.runtime.project import ROOT
from aimback.simulators.cases import CaseRows, OwnRows
from aimback.simulators.command import Command
from aimback.simulators.description import Description
from aimback.simulators.fmu import FmuFile
from aimback.simulators.function import Function, check_arguments, find_function
from aimback.simulators.maps import ArrayRows, DifferenceRows, JaxRows, Named, RowMap, TensorRows, WithoutDerivatives
from aimback.simulators.probe import Candidate, Findings, Prober
from aimback.simulators.quantity import Quantity, spread_arrays
from aimback.simulators.tesseract import TesseractFile
from aimback.simulators.umbridge import UmbridgeModel

# Reverse mode takes a pass an outcome, forward mode a batch of passes, one a control; see any_torch.
_MANY_OUTCOMES = 16
_RUNS = "outputs/runs"  # of commands, a folder each


@dataclass(frozen=True)
class Simulator:
    """What a `Description` names.

    Args:
        description: where it is, and how it is called.
        controls, conditions: with those that are pinned.
        outcomes: what it returns.
        box: of the controls that vary.
        function: in the place of what `description.call` names; None: that is imported.
    """

    description: Description
    controls: Sequence[Quantity]
    conditions: Sequence[Quantity]
    outcomes: Sequence[Quantity]
    box: Box
    function: Callable[..., Any] | None = None

    def make(self) -> RowMap:
        """Make the map of rows that the description fixes.

        Raises:
            UserError: the description leaves open how it is called, or it cannot be.
        """
        description = self.description
        if "auto" in (description.arrays, description.cases, description.derivatives):
            raise UserError(f"{description.place}: how it is called was not found out yet")
        fitting = [
            one for one in self._list_candidates() if (one.arrays, one.cases) == (description.arrays, description.cases)
        ]
        if not fitting:
            raise UserError(f"{description.place}: cannot be called as {description.arrays}, {description.cases}")
        if description.derivatives == "none":
            return WithoutDerivatives(fitting[-1].make(""), description.place)
        if description.derivatives == "finite_differences":
            if description.step is None:
                raise UserError("simulator.step: is missing; finite differences need one, e.g. 1e-6")
            return DifferenceRows(fitting[-1].make(""), self.box.lower, self.box.upper, description.step)
        return fitting[0].make(description.derivatives)

    def probe(self, conditions: Box) -> Findings:
        """Find out what the description leaves open; see `Prober`."""
        description = self.description
        candidates = [
            candidate
            for candidate in self._list_candidates(probing=True)
            if description.arrays in ("auto", candidate.arrays) and description.cases in ("auto", candidate.cases)
        ]
        if not candidates:
            raise UserError(f"{description.place}: cannot be called as {description.arrays}, {description.cases}")
        timeout = math.inf if description.timeout is None else description.timeout
        prober = Prober(description.place, self.box, conditions, candidates, description.derivatives, timeout)
        found = prober.find()
        return found if description.step is None else replace(found, step=description.step)

    def _list_candidates(self, *, probing: bool = False) -> list[Candidate]:
        if self.description.kind == "call":
            return self._list_calls(probing)
        if self.description.kind == "module":
            return [self._call_tensors(_load_module(ROOT / self.description.place), "batch", probing)]
        modes = ["own"] if hasattr(self._runner, "jacobian") else []
        return [Candidate("numpy", "one", modes, self._make_cases, is_limited=True)]

    def _list_calls(self, probing: bool) -> list[Candidate]:
        function = self.function or find_function(self.description.place)
        if isinstance(function, type) and issubclass(function, torch.nn.Module):
            function = function()
        if isinstance(function, torch.nn.Module):
            return [self._call_tensors(function.eval().requires_grad_(False), "batch", probing)]
        check_arguments(function, [quantity.name for quantity in self.inputs], self.description.place)
        knows = _find_libraries(function)
        named = Named(function, self.inputs, self.outcomes, self.description.place)
        calls = [self._call_tensors(function, cases, probing) for cases in ("batch", "vmap")]
        if "torch" in knows:
            calls.append(self._call_tensors(function, "one", probing))
        if "jax" in knows:
            calls.insert(0, Candidate("jax", "one", ["jax"], lambda _: JaxRows(named)))
        calls.append(Candidate("numpy", "batch", [], lambda _: ArrayRows(named, strict=probing)))  # type: ignore[arg-type, return-value]
        calls.append(Candidate("numpy", "one", [], self._make_cases, is_limited=True))
        if "torch" in knows:  # tensors without a gradient
            calls += [self._call_tensors(function, cases, False, modes=[]) for cases in ("batch", "one")]
        return calls

    def _call_tensors(self, function: Any, cases: str, probing: bool, modes: Sequence[str] | None = None) -> Candidate:
        named = Named(function, self.inputs, self.outcomes, self.description.place, torch.tensor)
        many = sum(outcome.columns for outcome in self.outcomes) > _MANY_OUTCOMES
        by_torch = ["jvp", "autograd"] if many else ["autograd", "jvp"]
        own = ["dual", *by_torch] if cases == "batch" and not isinstance(function, torch.nn.Module) else by_torch

        def make(mode: str) -> RowMap:
            rows = TensorRows(named, cases, mode)
            return _Demanding(rows) if probing and not mode else rows  # type: ignore[return-value]

        return Candidate("torch", cases, own if modes is None else modes, make)

    def _make_cases(self, mode: str) -> RowMap:
        controls, conditions, outcomes = self.controls, self.conditions, self.outcomes
        if self.description.kind == "umbridge":  # which knows vectors of numbers without names
            controls, conditions, outcomes = spread_arrays(controls), spread_arrays(conditions), spread_arrays(outcomes)
        rows = CaseRows(self._runner, controls, conditions, outcomes, self.description)
        return OwnRows(rows) if mode else rows  # type: ignore[return-value]

    @property
    def inputs(self) -> list[Quantity]:
        """The controls, then the conditions, with those that are pinned."""
        return [*self.controls, *self.conditions]

    @property
    def _runner(self) -> Any:
        """What runs one case in a worker process."""
        about = self.description
        if about.kind == "call":
            return Function(about.place, self.function)
        names = [one.name for one in self.inputs]
        if about.kind == "command":
            timeout = math.inf if about.timeout is None else about.timeout
            template = None if about.template is None else Path(about.template)
            command = Command(about.place, ROOT, ROOT / _RUNS, timeout, template, about.answer)
            command.check_names(names)
            return command
        results = tuple(one.name for one in self.outcomes)
        try:
            if about.kind == "fmu":
                fmu = FmuFile(ROOT / about.place, ROOT / _RUNS / "fmu", results, **about.options)
                fmu.check_names(names)
                return fmu
            if about.kind == "umbridge":
                options = {
                    "model": "forward",
                    "inputs": [[one.name for one in spread_arrays(self.inputs)]],
                    **about.options,
                }
                inputs = tuple(tuple(vector) for vector in options.pop("inputs"))
                results = tuple(one.name for one in spread_arrays(self.outcomes))
                return UmbridgeModel(about.place, inputs=inputs, outcomes=results, **options)
            varying = tuple(one.name for one in self.controls if one.value is None)
            place = ROOT / about.place
            file = place / "tesseract_api.py" if place.is_dir() else place
            return TesseractFile(file, results, varying, **about.options)
        except TypeError as error:
            raise UserError(f"simulator.options: {str(error).partition(' ')[2]}") from error


@dataclass(frozen=True)
class _Demanding:
    """Rows of tensors that must carry a gradient: code of NumPy takes tensors too, and loses it without a word."""

    rows: TensorRows

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        with torch.enable_grad():
            outcomes = self.rows(controls.detach().requires_grad_(), conditions)
        if not outcomes.requires_grad:
            raise UserError("what it returns carries no gradient")
        detached: Tensor = outcomes.detach()
        return detached


def _find_libraries(function: Any) -> set[str]:
    """Of which of PyTorch and JAX the module of a function has imported something."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    values = [] if module is None else list(vars(module).values())
    homes = [getattr(value, "__name__", "") or "" for value in values if hasattr(value, "__spec__")]
    homes += [getattr(value, "__module__", "") or "" for value in values if callable(value)]
    return {str(home).partition(".")[0] for home in homes} & {"torch", "jax"}


def _load_module(path: Path) -> Any:
    """A file of `torch.export` (.pt2) or of TorchScript.

    Raises:
        UserError: it is neither.
    """
    try:
        loaded = torch.export.load(path).module() if path.suffix == ".pt2" else torch.jit.load(path).eval()
    except Exception as error:  # of a file that it does not know, torch raises many kinds
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path}: is no file of torch.export (.pt2) or TorchScript ({reason})") from error
    return loaded
