"""Functions of named arguments as maps of rows, in the arrays that they were written for."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aimback.autodiff import any_torch, dual
from aimback.core.errors import UserError, is_out_of_memory
from aimback.simulators.quantity import Quantity, list_parts, name_cases, pin, split_columns
from aimback.simulators.reasons import Failure, describe_error


class RowMap(Protocol):
    """A simulator of many cases at once; each row is a case of its own."""

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """`(n, n_controls)`, `(n, n_conditions)` -> `(n, n_outcomes)`; NaN where a case has failed."""
        ...

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The same and its Jacobian by the controls, `(n, n_outcomes, n_controls)`."""
        ...


@dataclass(frozen=True)
class Named:
    """A function with the names of what it takes and returns.

    Attributes:
        inputs: the controls, then the conditions, with those that are pinned.
        who: what to call it in messages.
        make_array: of a pinned array.
    """

    function: Callable[..., Any]
    inputs: Sequence[Quantity]
    outcomes: Sequence[Quantity]
    who: str
    make_array: Callable[[Sequence[float]], Any] = np.array

    def __call__(self, columns: Any) -> list[tuple[Quantity, Any]]:
        """Call it on `(..., n_inputs)`, anything that is indexed like an array; what it returns for each outcome."""
        value = self.function(**split_columns(self.inputs, columns), **pin(self.inputs, self.make_array))
        parts = list_parts(value, [outcome.name for outcome in self.outcomes], self.who)
        return list(zip(self.outcomes, parts, strict=True))


class TensorRows:
    """A function in torch's operations.

    Args:
        cases: "batch", "vmap" or "one", see `Description`.
        mode: how it is differentiated, see `MODES`.
    """

    def __init__(self, named: Named, cases: str, mode: str) -> None:
        self._named, self._cases, self._mode = named, cases, mode

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        inputs = torch.cat([controls, conditions], dim=-1) if conditions.shape[-1] else controls
        if self._cases == "batch":
            return self._call(inputs)
        if self._cases == "vmap":
            return torch.func.vmap(self._call)(inputs)
        return torch.stack([self._call(row) for row in inputs])

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return MODES[self._mode](self, controls, conditions)

    def _call(self, inputs: Any) -> Any:
        if isinstance(module := self._named.function, torch.nn.Module):
            return module.to(inputs.device, inputs.dtype)(inputs)
        columns: list[Any] = []
        for outcome, part in self._named(inputs):
            if not hasattr(part, "unbind"):
                raise UserError(f"{self._named.who} returned {type(part).__name__} as {outcome.name}, and no tensor")
            columns += [part] if outcome.size is None else part.unbind(-1)
        return torch.stack(columns, dim=-1)


MODES: dict[str, any_torch.Linearise] = {
    "dual": dual.linearise,
    "jvp": any_torch.linearise_by_jvp,
    "autograd": any_torch.linearise_by_autograd,
}


class ArrayRows:
    """A function of whole arrays of NumPy; it has no derivatives of its own.

    Args:
        strict: whether what it raises is raised; otherwise its rows are tried one by one, and those that fail marked.

    Attributes:
        failures: the rows that have failed so far.
    """

    def __init__(self, named: Named, *, strict: bool) -> None:
        self._named, self._strict = named, strict
        self.failures: list[Failure] = []

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        inputs = torch.cat([controls, conditions], dim=-1).to("cpu", torch.float64).numpy()
        return torch.from_numpy(self._call(inputs)).to(controls)

    def _call(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        try:
            with contextlib.chdir("."):  # it may go elsewhere
                return self._call_at_once(inputs)
        except Exception as error:
            if self._strict or is_out_of_memory(error):
                raise
            if len(inputs) > 1:
                return np.concatenate([self._call(row) for row in inputs[:, None]])
            (case,) = name_cases(self._named.inputs, inputs)
            self.failures.append(Failure(case, describe_error(error)))
            return np.full((1, sum(outcome.columns for outcome in self._named.outcomes)), np.nan)

    def _call_at_once(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        columns = []
        for outcome, part in self._named(inputs):
            array = np.asarray(part, dtype=np.float64)
            columns.append(np.broadcast_to(array, len(inputs))[:, None] if outcome.size is None else array)
        return np.concatenate(columns, axis=-1)


class JaxRows:
    """A function in JAX's operations, of one case; compiled, in float64."""

    def __init__(self, named: Named) -> None:
        try:
            import jax
        except ImportError:
            raise UserError(f"{named.who}: needs JAX; install it by `pip install 'aimback[jax]'`") from None
        jax.config.update("jax_enable_x64", True)

        def simulate(controls: Any, conditions: Any) -> Any:
            parts = named(jax.numpy.concatenate([controls, conditions]))
            return jax.numpy.concatenate([jax.numpy.reshape(part, -1) for _, part in parts])

        def simulate_twice(controls: Any, conditions: Any) -> Any:
            outcome = simulate(controls, conditions)
            return outcome, outcome

        few_controls = sum(quantity.columns for quantity in named.inputs) <= sum(one.columns for one in named.outcomes)
        differentiate = jax.jacfwd if few_controls else jax.jacrev
        self._simulate = jax.jit(jax.vmap(simulate))
        self._linearise = jax.jit(jax.vmap(differentiate(simulate_twice, has_aux=True)))

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return _to_tensor(self._simulate(*_to_arrays(controls, conditions)), controls)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        jacobian, outcome = self._linearise(*_to_arrays(controls, conditions))
        return _to_tensor(outcome, controls), _to_tensor(jacobian, controls)


def _to_arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().to("cpu", torch.float64).numpy() for tensor in tensors]


def _to_tensor(array: Any, like: Tensor) -> Tensor:
    return torch.from_numpy(np.array(array)).to(like)


class DifferenceRows:
    """Rows with derivatives by differences: a simulation more for each control.

    A one-sided difference, towards the inside of the box: with the outcome that has to be simulated anyway it costs
    half of a central one. Its error is about the square root of the noise's, which the descent corrects as it goes on.

    Args:
        inner: what simulates.
        lower, upper: bounds of the controls, `(n_controls,)`.
        step: a share of each control's range.
    """

    def __init__(self, inner: Callable[[Tensor, Tensor], Tensor], lower: Tensor, upper: Tensor, step: float) -> None:
        self.inner, self._lower, self._upper, self._step = inner, lower, upper, step

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self.inner(controls, conditions)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self._lower.to(controls), self._upper.to(controls)
        step = self._step * (upper - lower)
        step = torch.where(controls + step > upper, -step, step)
        moved = controls[:, None] + torch.diag_embed(step)
        # What was added is not to the last bit what was to be added.
        step = (moved - controls[:, None]).diagonal(dim1=-2, dim2=-1)
        everything = torch.cat([controls[:, None], moved], dim=1)
        given = conditions[:, None].expand(-1, everything.shape[1], -1)
        outcomes = self.inner(everything.flatten(0, 1), given.flatten(0, 1)).unflatten(0, everything.shape[:2])
        jacobian = (outcomes[:, 1:] - outcomes[:, :1]) / step[..., None]
        return outcomes[:, 0], jacobian.transpose(-2, -1)


class WithoutDerivatives:
    """Rows for solvers that need no derivatives.

    Args:
        who: what to call the simulator in messages.
    """

    def __init__(self, inner: Callable[[Tensor, Tensor], Tensor], who: str) -> None:
        self.inner, self._who = inner, who

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self.inner(controls, conditions)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        raise UserError(f"{self._who}: has no derivatives; choose routes=[surrogate,cma_es], or solver=cma_es")
