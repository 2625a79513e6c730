"""What is found out about a simulator before the first stage: what it takes, what derivatives it has, what it spans."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimback.core.box import Box
from aimback.core.errors import UserError, is_out_of_memory
from aimback.simulators.apart import TooSlowError, limit_time
from aimback.simulators.maps import DifferenceRows, RowMap
from aimback.simulators.noise import MOST_NOISE, choose_step, estimate_noise

# Cases that are simulated for the range of the outcomes; the first of them tell what the function takes.
SAMPLES = 32
_TRIED = 5
# Between a simulation in company and the same alone; more than rounding, and less than any mistake.
_ALIKE = 1e-6
# Of a derivative, against differences, beyond what these are uncertain by.
_RIGHT = 1e-3
_STEP = 1e-4


@dataclass(frozen=True)
class Findings:
    """What was found out, as it stands in a config.

    Attributes:
        arrays, cases, derivatives, step: see `Description`.
        ranges: the least and the greatest of each outcome, `(2, n_outcomes)`, over a sample of the box.
        calls: simulations that finding out has taken.
        reasons: why derivatives that were tried before are not used.
    """

    arrays: str
    cases: str
    derivatives: str
    step: float | None
    ranges: Tensor
    calls: int
    reasons: tuple[str, ...] = ()

    def tell(self) -> str:
        """What was found out, in words."""
        called = {"batch": "is called with all cases at once", "vmap": "is mapped over cases by torch.func.vmap"}
        derivatives = {
            "none": "it has no derivatives that can be used",
            "finite_differences": f"differences give its derivatives, in steps of {self.step or 0:.1g} of a range",
            "own": "it brings its derivatives along",
        }
        how = derivatives.get(
            self.derivatives, f"its derivatives come by {self.derivatives}, and agree with differences"
        )
        why = (
            f" ({'; '.join(self.reasons)})"
            if self.reasons and self.derivatives in ("none", "finite_differences")
            else ""
        )
        return (
            f"{called.get(self.cases, 'is called case by case')} ({self.arrays}); {how}{why}; {self.calls} runs told so"
        )


@dataclass(frozen=True)
class Candidate:
    """A way to call a simulator.

    Attributes:
        arrays, cases: see `Description`.
        modes: how it can be differentiated when it is called so, best first.
        make: of a mode, "" for none, the map of rows.
        is_limited: whether its map of rows itself ends what takes too long.
    """

    arrays: str
    cases: str
    modes: Sequence[str]
    make: Callable[[str], RowMap]
    is_limited: bool = False


class _Tally:
    """A map of rows that counts them, and gives each so many seconds."""

    def __init__(self, rows: Callable[[Tensor, Tensor], Tensor], timeout: float) -> None:
        self._rows, self._timeout, self.calls = rows, timeout, 0

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        self.calls += len(controls)
        if math.isinf(self._timeout):
            return self._rows(controls, conditions)
        with limit_time(self._timeout * len(controls)):
            return self._rows(controls, conditions)

    def tell_failures(self) -> str:
        """The most frequent reason why runs have failed, to be put behind a sentence."""
        failed = Counter(failure.reason for failure in getattr(self._rows, "failures", ()))
        return "".join(f"; {count} failed: {reason}" for reason, count in failed.most_common(1))


@dataclass(frozen=True)
class Prober:
    """Finds out how a simulator is to be called and differentiated.

    Args:
        who: what to call it in messages.
        box, conditions: where it is tried.
        candidates: ways to call it, best first.
        wanted: the derivatives that the config asks for; "auto" for the best.
        timeout: seconds that a run may take.
    """

    who: str
    box: Box
    conditions: Box
    candidates: Sequence[Candidate]
    wanted: str
    timeout: float = math.inf

    def find(self) -> Findings:
        """Try it.

        Raises:
            UserError: no way to call it works, or not the derivatives that are asked for.
        """
        generator = torch.Generator().manual_seed(0)
        controls, conditions = self.box.sample(SAMPLES, generator), self.conditions.sample(SAMPLES, generator)
        calls, plain = 0, None
        failure: str | None = None
        reasons: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is tried and then not used
            for candidate in self.candidates:
                rows = _Tally(candidate.make(""), math.inf if candidate.is_limited else self.timeout)
                reason = self._try_calling(rows, candidate, controls[:_TRIED], conditions[:_TRIED])
                if reason is None:
                    try:
                        found = self._examine(candidate, rows, controls, conditions)
                    except Exception as error:  # one case may fail in any way, and with it all beside it
                        if _is_final(error):
                            raise
                        failure = _first_line(error)
                        continue
                    finally:
                        calls += rows.calls
                    found = replace(found, calls=calls)
                    if found.derivatives in candidate.modes:
                        return found
                    if not candidate.modes:
                        if plain is None or found.derivatives != "none":
                            plain = replace(found, reasons=(*(plain.reasons if plain else ()), *found.reasons))
                        break
                    # Tensors of which the gradient is of no use are only slower than arrays.
                    plain = plain or found
                else:
                    calls += rows.calls
                    reasons.append(f"{candidate.arrays}, {candidate.cases}: {reason}")
        if plain is None and failure is not None:
            raise UserError(f"{self.who}: {failure}")
        if plain is None:
            raise UserError(f"{self.who}: cannot be called with {self._show(controls[0])}: {reasons[-1]}")
        if self.wanted not in ("auto", "none", plain.derivatives):
            raise UserError(f"{self.who}: derivatives: {'; '.join(plain.reasons)}")
        return replace(plain, calls=calls)

    def _try_calling(self, rows: "_Tally", candidate: Candidate, controls: Tensor, conditions: Tensor) -> str | None:
        """Why it cannot be called so; None where it can."""
        singly = list(zip(controls.split(1), conditions.split(1), strict=True))
        try:
            if not candidate.is_limited:
                # By itself first: where that fails, no more cases are counted than the code has seen.
                rows(*singly[0])
            together = rows(controls, conditions)
            if together.shape[:1] != controls.shape[:1] or together.ndim != 2:
                return f"{len(controls)} cases at once gave numbers of shape {tuple(together.shape)}"
            if candidate.cases == "one":
                return None
            alone = torch.cat([rows(*one) for one in singly])
        except Exception as error:  # code that was not written for these arrays can fail in any way
            if _is_final(error):
                raise
            return _first_line(error)
        scale = together.nan_to_num().abs().amax(0)
        alike = ((together - alone).abs() <= _ALIKE * scale) | (together.isnan() & alone.isnan())
        return None if bool(alike.all()) else "a case depends on those beside it"

    def _examine(self, candidate: Candidate, rows: "_Tally", controls: Tensor, conditions: Tensor) -> Findings:
        """What it is like when it is called so.

        Raises:
            UserError: no run gives a finite outcome.
        """
        outcomes = rows(controls, conditions)
        (finite,) = torch.isfinite(outcomes).all(-1).nonzero(as_tuple=True)
        if len(finite) == 0:
            raise UserError(f"none of {len(controls)} runs gave a finite outcome{rows.tell_failures()}")
        low, high = outcomes[finite].amin(0), outcomes[finite].amax(0)
        span = torch.where(high > low, high - low, torch.ones_like(low))
        found = Findings(candidate.arrays, candidate.cases, "none", None, torch.stack([low, high]), 0)
        if self.wanted == "none":
            return found
        tried, given = controls[finite[:3]], conditions[finite[:3]]
        reasons: list[str] = []
        for mode in candidate.modes if self.wanted == "auto" else [self.wanted]:
            if mode == "finite_differences":
                break
            if mode not in candidate.modes:
                return replace(found, reasons=(f"{mode}: does not fit {candidate.arrays}, {candidate.cases}",))
            reason = self._compare(candidate.make(mode), rows, tried, given, span)
            if reason is None:
                return replace(found, derivatives=mode, reasons=tuple(reasons))
            reasons.append(f"{mode}: {reason}")
        if self.wanted in ("auto", "finite_differences"):
            noise = float((self._measure_noise(rows, tried[0], given[0]) / span.numpy()).max())
            if noise <= MOST_NOISE:
                found = replace(found, derivatives="finite_differences", step=choose_step(noise))
            else:
                reasons.append(f"finite_differences: its noise is {noise:.1%} of the range of an outcome")
        return replace(found, reasons=tuple(reasons))

    def _compare(
        self, differentiated: RowMap, rows: _Tally, controls: Tensor, conditions: Tensor, span: Tensor
    ) -> str | None:
        """Why a derivative is not right; None where differences agree with it."""
        try:
            _, jacobian = differentiated.linearise(controls, conditions)
        except Exception as error:  # torch fails in many ways on what it cannot differentiate
            if _is_final(error):
                raise
            return _first_line(error)
        finally:
            rows.calls += len(controls)
        width = self.box.upper - self.box.lower
        coarse, fine = (
            DifferenceRows(rows, self.box.lower, self.box.upper, step).linearise(controls, conditions)[1]
            for step in (_STEP, _STEP / 4)
        )
        # Halving a one-sided step halves its error: so much may be left of it.
        scaled, doubt = (part * width / span[:, None] for part in (jacobian - fine, coarse - fine))
        size = (fine * width / span[:, None]).abs().amax()
        wrong = scaled.abs() > _RIGHT * (1 + size) + 2 * doubt.abs()
        if not bool(torch.isfinite(jacobian).all()):
            return "it is not finite where the outcome is"
        # At a kink differences disagree with themselves; most of the places are none.
        if wrong.flatten(1).any(1).sum() * 2 > len(controls):
            row, outcome, control = (int(index) for index in wrong.nonzero()[0])
            mine, theirs = float(jacobian[row, outcome, control]), float(fine[row, outcome, control])
            return f"by {self.box.names[control]} it is {mine:.4g}, differences say {theirs:.4g}"
        return None

    def _measure_noise(self, rows: _Tally, controls: Tensor, conditions: Tensor) -> Any:
        width = self.box.upper - self.box.lower
        inwards = torch.where(controls > (self.box.lower + self.box.upper) / 2, -1.0, 1.0)

        def along(places: Tensor) -> Tensor:
            points = controls + places[:, None] * inwards * width
            return rows(points.clamp(self.box.lower, self.box.upper), conditions.expand(len(places), -1))

        again = rows(controls.expand(2, -1), conditions.expand(2, -1))
        return np.maximum(estimate_noise(along), (again[0] - again[1]).abs().numpy())

    def _show(self, controls: Tensor) -> str:
        pairs = [f"{name}={value:.6g}" for name, value in zip(self.box.names, controls.tolist(), strict=True)]
        return ", ".join(pairs[:4] + ["..."] * (len(pairs) > 4))


def _is_final(error: Exception) -> bool:
    """Whether no other way to call it is to be tried."""
    return isinstance(error, TooSlowError) or is_out_of_memory(error)


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
