"""How the published trebuchet program integrates: explicit Euler, events on the interpolant.

FluxML/Trebuchet.jl with OrdinaryDiffEq.jl's `Euler()` and `ContinuousCallback`: 60 steps a second; an
event is looked for at the end of each step and, where none shows there, at eight evenly spaced
points inside it, then located on the cubic Hermite interpolant of the step. Here to reproduce its
published numbers: it is of first order, and its derivative is that of the discrete program.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from aimback.autodiff.dual import Dual, value_of
from aimback.autodiff.ode import State
from aimback.tasks.trebuchet_motion import Stage

RATE = 60  # steps a second

_STEP = 1 / RATE
_LOOKS = 9  # parts of a step between two looks for an event
_HALVINGS = 60
_LIMIT = 10 * RATE


class EulerProgram:
    """Integrates as the published program does; see this module."""

    def to_event(
        self, motion: Callable[..., Stage], parameters: Sequence[Any], state: State
    ) -> tuple[State, Any, Tensor]:
        stage = motion(*parameters)
        with torch.no_grad():
            alone = motion(*(value_of(parameter) for parameter in parameters))
            start: State = tuple(value_of(component) for component in state)
            steps, share, missing = _locate(alone, start)
        for index in range(int(steps.max())):
            # A step of length nought leaves those alone whose event comes earlier.
            step = (index < steps).to(share) * _STEP
            state = _move(state, step, stage.derivative(state))
        last = _Step(stage, state)
        # Where the event falls on the start of a step it does not move with the parameters, but jumps.
        on_start = share == 0
        inside = torch.where(on_start, 0.5, share)
        with torch.no_grad():
            values = _Step(alone, tuple(value_of(component) for component in state))
            slope = values.condition(Dual(inside, torch.ones_like(inside)[None])).tangent[0]
        share = torch.where(on_start, 0.0, inside - last.condition(inside) / slope)
        return last.state(share), (steps.to(inside) + share) * _STEP, missing

    def path(
        self, motion: Callable[..., Stage], parameters: Sequence[Any], state: State, points: int
    ) -> Iterator[tuple[Any, State]]:
        _, duration, _ = self.to_event(motion, parameters, state)
        derivative = motion(*parameters).derivative
        states = [state]
        for _ in range(int(duration.max() * RATE) + 1):
            states.append(_move(states[-1], _STEP, derivative(states[-1])))
        table = tuple(torch.stack(parts) for parts in zip(*states, strict=True))
        for point in range(1, points + 1):
            elapsed = duration * (point / points)
            index = (elapsed * RATE).long().clamp(max=len(states) - 2)
            here, there = (tuple(part.gather(0, i[None])[0] for part in table) for i in (index, index + 1))
            yield elapsed, _hermite(elapsed * RATE - index, here, there, derivative(here), derivative(there))


class _Step:
    """One step of a stage with its interpolant; shares of it run from 0 to 1."""

    def __init__(self, stage: Stage, before: State) -> None:
        self._stage = stage
        self._before = before
        self._rate = stage.derivative(before)
        self.after = _move(before, _STEP, self._rate)
        self._rate_after = stage.derivative(self.after)

    def state(self, share: Any) -> State:
        return _hermite(share, self._before, self.after, self._rate, self._rate_after)

    def condition(self, share: Any) -> Any:
        """What falls to zero at the event; a finite difference over the part of the step where the stage has one."""
        state = self.state(share)
        if self._stage.differentiate is None:
            return self._stage.crossing(state)
        return self._stage.differentiate(state, self._before, share * _STEP)


def _locate(stage: Stage, state: State) -> tuple[Tensor, Tensor, Tensor]:
    """Whole steps before the event, the share of the step in which it falls, and what is missing."""
    value = stage.crossing(state)
    missing = torch.where(torch.isfinite(value), torch.inf, torch.nan).to(value)
    settled = ~(value > 0)
    steps = torch.zeros_like(value, dtype=torch.int64)
    low, high = torch.zeros_like(value), torch.ones_like(value)
    looks = torch.linspace(0, 1, _LOOKS + 1).to(value).reshape(-1, *[1] * value.ndim)
    for _ in range(_LIMIT):
        if bool(settled.all()):
            break
        step = _Step(stage, state)
        seen = step.condition(looks[1:])
        at_end, fails = seen[-1] <= 0, ~torch.isfinite(seen[-1])
        first = (seen < 0).to(torch.int64).argmax(dim=0)
        crosses = (at_end | (seen < 0).any(dim=0)) & ~fails & ~settled
        low = torch.where(crosses & ~at_end, looks.flatten()[first], low)
        high = torch.where(crosses & ~at_end, looks.flatten()[first + 1], high)
        missing = torch.where(crosses, 0.0, torch.where(fails & ~settled, torch.nan, missing))
        settled = settled | crosses | fails
        state = tuple(torch.where(settled, old, new) for old, new in zip(state, step.after, strict=True))
        steps = torch.where(settled, steps, steps + 1)
    step = _Step(stage, state)
    # The finite difference may only see at the end of a step what was true at its start already.
    on_start = (low == 0) & (stage.crossing(state) <= 0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = step.condition(middle) > 0
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return steps, torch.where(on_start, 0.0, high), missing


def _hermite(share: Any, before: State, after: State, rate: State, rate_after: State) -> State:
    """The cubic with these ends and slopes, at a share of a step of 1/60 s."""
    rest = share - 1
    return tuple(
        y0 + share * (y1 - y0) + share * rest * ((1 - 2 * share) * (y1 - y0) + _STEP * (rest * f0 + share * f1))
        for y0, y1, f0, f1 in zip(before, after, rate, rate_after, strict=True)
    )


def _move(state: State, step: Any, rate: State) -> State:
    return tuple(component + step * slope for component, slope in zip(state, rate, strict=True))
