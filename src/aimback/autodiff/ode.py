"""Batched integration of ordinary differential equations up to an event, differentiable through it.

A state is a tuple of its components (struct of arrays), each a tensor over the batch or a `Dual`:
every sample has its own duration and its own steps, and the components need no stacking. The
method is the classical fourth-order Runge-Kutta scheme (Kutta 1901) on a grid that the caller
chooses; nothing in it branches on a value, except for the one question whether all samples have
settled on their event.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aimback.autodiff.dual import Dual, record_nothing, unify, value_of
from aimback.autodiff.loop import loop
from aimback.core.tracing import is_traced

# A component is a Tensor or a Dual; the arithmetic that both share is all that is used of it.
State = tuple[Any, ...]
Derivative = Callable[[State], State]
TimeToEvent = Callable[[State, State], Any]
Measure = Callable[[State], Any]
Motion = Callable[..., tuple[Derivative, Measure]]

_COARSE_STEPS = 6
_MOST_PASSES = 12  # of the fine grid; one is the rule
_FINEST_STEPS = 32 * _COARSE_STEPS
_SETTLED = 0.1  # of the duration: how far the closing steps are trusted to carry
_NEWTON_STEPS = 2
_GRADING = 16.0  # of the decay: half of it bends the grid half as far as it can be bent


def step_rk4(derivative: Derivative, state: State, step: Any) -> State:
    """One step of length `step`; fourth-order accurate, and differentiable by `step` too."""
    half, third, sixth = step * (1 / 2), step * (1 / 3), step * (1 / 6)  # a division takes as long as ten products
    k1 = derivative(state)
    k2 = derivative(_move(state, half, k1))
    k3 = derivative(_move(state, half, k2))
    k4 = derivative(_move(state, step, k3))
    for share, slope in ((sixth, k1), (third, k2), (third, k3), (sixth, k4)):
        state = _move(state, share, slope)
    return state


@dataclass(frozen=True)
class Grid:
    """`steps + 1` times from 0 to `duration`, at shares of it that `s - bend s (1 - s)`, applied twice, makes of
    even ones.

    Args:
        steps: a number, or in a traced loop a tensor of one.
        duration: `(...)`.
        bend: in [0, 1), `(...)`: the first steps are shorter by up to (1 - bend)^2, the last ones longer by up to
            (1 + bend)^2; None for even steps.
    """

    steps: Any
    duration: Tensor
    bend: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(self.steps + 1))

    def __getitem__(self, index: Any) -> Tensor:
        """The time of a number, or in a traced loop of a tensor of one."""
        # In even steps; all that is divided is the same for every index.
        gone: Any = index.to(torch.float64) if isinstance(index, Tensor) else index
        if self.bend is not None:
            bend = self.bend / self.steps
            for _ in range(2):
                gone = gone - bend * (gone * (self.steps - gone))
        time: Tensor = self.duration / self.steps * gone
        return time


def follow_steps(derivative: Derivative, state: State, times: Grid) -> Iterator[State]:
    """The states at all `times`, the start among them, one RK4 step between each two."""
    yield state
    for before, time in itertools.pairwise(times):
        state = step_rk4(derivative, state, time - before)
        yield state


def integrate(derivative: Derivative, state: State, times: Grid) -> State:
    """The state at the last of `times`; see `follow_steps`.

    Memory does not grow with the number of steps: a `Dual` carries its value and a tangent a control,
    (1 + n_controls) states a sample in all, where a backward pass would keep every step.
    """

    def turn(index: Any, before: Tensor, *state: Any) -> tuple[Any, ...]:
        time = times[index + 1]
        return index + 1, time, *step_rk4(derivative, state, time - before)

    if is_traced():  # where what is carried cannot become a Dual on the way
        state = unify((*state, *derivative(state)))[: len(state)]
    _, _, *reached = loop(lambda index, *_: index < times.steps, turn, (0, times[0], *state))
    return tuple(reached)


def grade_times(duration: Tensor, steps: Any, rate: Tensor) -> Grid:
    """A grid from 0 to `duration` that is the finer at its start, the faster the motion decays there.

    Even where nothing decays; where the motion has lost almost all of its speed at the end, the last steps
    are four times as long as the mean. A geometric grid, which gives each step the same share of the decay,
    is as accurate at its start, but its last steps grow beyond what an explicit method bears once the
    motion has settled to its terminal speed.

    Args:
        duration: `(...)`; rate: the initial relative decay of the speed per unit of time, `(...)`.
    """
    decay = rate * duration
    return Grid(steps, duration, decay / (_GRADING + decay))


def integrate_to_event(
    derivative: Derivative,
    state: State,
    time_to_event: TimeToEvent,
    guess: Tensor,
    *,
    steps: int,
    rate: Tensor,
    longest: float = 1.0,
) -> tuple[State, Any]:
    """Follow the motion until an event, each sample to its own time.

    The event time is found without derivatives on a coarse grid, then the motion is integrated to
    that time on the fine one, again if that shows the event to be further away than the closing step may
    be long, and that last step, whose *length* is differentiable, closes the gap that is left. Its length carries the
    implicit-function gradient of the event time, so the final state has the exact derivative of the
    discrete motion, the moving event included.

    Args:
        derivative: state -> rate of change, autonomous.
        state: at time 0.
        time_to_event: (state, rate of change) -> signed time to the event, second-order accurate
            near it and of the right sign and size far from it.
        guess: of the event time, `(...)`; a good one saves passes, a bad one costs some.
        steps: of the fine grid.
        rate: grading of the grid, see `grade_times`.
        longest: closing step, in mean steps of the fine grid. Its own error does not fall with their number,
            so where two numbers of steps are compared, the finer one must close next to nothing.

    Returns:
        The state at the event and the event time. Where no event was found, both are infinite.
    """
    start: State = tuple(value_of(component) for component in state)
    with record_nothing():
        duration, settled = _event_time(derivative, start, time_to_event, guess, rate)
        # Where the coarse grids are too coarse for any answer, the fine one may still find its way from the guess.
        duration = torch.where(settled, duration, guess)
        found = settled | torch.isfinite(guess)

    def goes_on(passes: Any, _: Tensor, far: Tensor, *__: Any) -> Any:
        return (passes == 0) | ((passes < _MOST_PASSES) & far.any())

    def follow(passes: Any, duration: Tensor, far: Tensor, gap: Any, *_: Any) -> tuple[Any, ...]:
        duration = torch.where(far, (duration + value_of(gap)).clamp(min=0), duration)
        reached = integrate(derivative, state, grade_times(duration, steps, rate))
        gap = time_to_event(reached, derivative(reached))
        # A gap longer than that is more than one step can close: the coarse search was wrong there. Who is not
        # far keeps its time, and so its bits.
        far = found & (value_of(gap).abs() * steps > duration * longest)
        return passes + 1, duration, far, gap, *reached

    carried = (torch.zeros_like(duration), *state)
    if is_traced():  # where what is carried cannot become a Dual on the way
        carried = unify(carried)
    _, duration, far, gap, *reached = loop(goes_on, follow, (0, duration, torch.zeros_like(found), *carried))
    end = step_rk4(derivative, tuple(reached), gap)
    found = found & ~far & (settled | torch.isfinite(value_of(gap)))
    never = torch.full_like(duration, torch.inf)
    return tuple(torch.where(found, part, never) for part in end), torch.where(found, duration + gap, never)


def integrate_to_crossing(
    motion: Motion,
    parameters: Sequence[Any],
    state: State,
    *,
    steps: int,
    pace: float,
    horizon: float,
    closings: int = 1,
) -> tuple[State, Any, Tensor]:
    """Follow the motion until a function of its state falls from above zero to zero, each sample to its own time.

    For events whose time cannot be guessed: `integrate_to_event` is cheaper where it can. The first
    crossing is searched for without derivatives in steps of `pace`, then the motion is integrated to
    it in `steps` steps. Of the closing steps the first ones remove what the search left over and the
    last one, nought long, carries the implicit-function gradient of the crossing time,
    `dt/dp = -(dc/dp) / (dc/dt)`, so the final state has the exact derivative of the discrete motion.

    Args:
        motion: parameters -> (state -> rate of change, state -> the function c that crosses); called
            with the parameters' bare values too. Two crossings within one `pace` are not seen.
        parameters: what the motion depends on and is differentiated by, `(...)` each.
        state: at time 0, of the shape of the batch.
        steps: of the integration, at least 1.
        pace: step of the search.
        horizon: time after which the search gives up.
        closings: steps that remove what the search left over; each squares it. One is enough where the motion crosses
            and does not graze.

    Returns:
        The state at the crossing, its time, and what is missing, `(...)`: 0 where the crossing was
        found, infinity where it never came, NaN where the arithmetic failed before; there the state
        and the time are of no use.
    """
    derivative, crossing = motion(*parameters)
    with record_nothing():
        alone = [value_of(parameter) for parameter in parameters]
        derivative_alone, crossing_alone = motion(*alone)
        start: State = tuple(value_of(component) for component in state)
        duration, missing = _crossing_time(derivative_alone, crossing_alone, start, pace, horizon)
    reached = integrate(derivative, state, Grid(steps, duration))

    def gap(at: State) -> tuple[Any, Tensor]:
        with record_nothing():
            slope = _slope(derivative_alone, crossing_alone, tuple(value_of(component) for component in at))
        # The slope needs no derivative of its own: it multiplies what is nought at the crossing.
        length = -crossing(at) / slope
        return length, value_of(length)

    for _ in range(closings):
        _, left_over = gap(reached)
        reached = step_rk4(derivative, reached, left_over)
        duration = duration + left_over
    carrier, _ = gap(reached)
    return step_rk4(derivative, reached, carrier), duration + carrier, missing


def _crossing_time(
    derivative: Derivative, crossing: Measure, state: State, pace: float, horizon: float
) -> tuple[Tensor, Tensor]:
    """The time of the first crossing to the accuracy of steps of `pace`, and what is missing there."""
    looks = math.ceil(horizon / pace)

    def goes_on(look: Any, settled: Tensor, *_: Tensor) -> Any:
        return (look < looks) & ~settled.all()

    def further(
        look: Any, settled: Tensor, before: Tensor, missing: Tensor, time: Tensor, gap: Tensor, *state: Tensor
    ) -> tuple[Any, ...]:
        after = step_rk4(derivative, state, torch.full_like(time, pace))
        value = crossing(after)
        crosses, fails = value <= 0, ~torch.isfinite(value)
        gap = torch.where(~settled & crosses, pace * before / (before - value), gap)
        missing = torch.where(~settled & crosses, 0.0, torch.where(~settled & fails, torch.nan, missing))
        settled = settled | crosses | fails
        # A sample that has settled stays before its crossing: how long others take changes no bit of it.
        state = tuple(torch.where(settled, old, new) for old, new in zip(state, after, strict=True))
        return look + 1, settled, value, missing, torch.where(settled, time, time + pace), gap, *state

    value = crossing(state)
    missing = torch.where(torch.isfinite(value), torch.inf, torch.nan).to(value)
    settled = ~(value > 0)  # a crossing needs a side to come from
    nought = torch.zeros_like(value)
    _, _, _, missing, time, gap, *before = loop(goes_on, further, (0, settled, value, missing, nought, nought, *state))
    for _ in range(_NEWTON_STEPS):
        end = step_rk4(derivative, tuple(before), gap)
        gap = (gap - crossing(end) / _slope(derivative, crossing, end)).nan_to_num().clamp(0, pace)
    return time + gap, missing


def _slope(derivative: Derivative, crossing: Measure, state: State) -> Tensor:
    """The rate of change of a function of the state along the motion."""
    moving = tuple(Dual(part, rate[None]) for part, rate in zip(state, derivative(state), strict=True))
    slope: Tensor = crossing(moving).tangent[0]
    return slope


def _event_time(
    derivative: Derivative, state: State, time_to_event: TimeToEvent, guess: Tensor, rate: Tensor
) -> tuple[Tensor, Tensor]:
    """The event time to coarse-grid accuracy, from a guess, and where one was found."""

    def goes_on(steps: Any, _: Tensor, found: Tensor) -> Any:
        return (steps <= _FINEST_STEPS) & ~found.all()

    def attempt(steps: Any, duration: Tensor, found: Tensor) -> tuple[Any, ...]:
        reached = integrate(derivative, state, grade_times(duration, steps, rate))
        gap = time_to_event(reached, derivative(reached))
        end = step_rk4(derivative, reached, gap)
        candidate = (duration + gap + time_to_event(end, derivative(end))).clamp(min=0)
        settles = torch.isfinite(candidate) & ((candidate - duration).abs() <= _SETTLED * candidate)
        candidate = torch.where(torch.isfinite(candidate), candidate, guess)
        # A sample that has settled keeps its time: how long others take changes no bit of it.
        duration = torch.where(found, duration, candidate)
        # Who has not settled yet may need a finer grid.
        return 2 * steps, duration, found | settles

    nowhere = torch.zeros_like(guess, dtype=torch.bool)
    _, duration, found = loop(goes_on, attempt, (_COARSE_STEPS, guess, nowhere))
    return duration, found


def _move(state: State, step: Any, rate: State) -> State:
    return tuple(torch.addcmul(component, step, slope) for component, slope in zip(state, rate, strict=True))
