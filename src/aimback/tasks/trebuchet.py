"""The trebuchet: a counterweight swings an arm, the arm a sling, the sling lets a projectile fly."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from aimback.autodiff import ode
from aimback.autodiff.dual import value_of
from aimback.core.box import Axis, Box, make_axis
from aimback.core.checks import check_positive
from aimback.core.errors import UserError
from aimback.tasks.accuracy import choose_steps, spread_points
from aimback.tasks.base import Task
from aimback.tasks.reach import search_reach
from aimback.tasks.trebuchet_motion import (
    ARM_INERTIA,
    PIVOT_HEIGHT,
    POUND,
    WEIGHT_INERTIA,
    Machine,
    Stage,
    flying,
    projectile,
    pull,
    rest,
    sliding,
    swinging,
)
from aimback.tasks.trebuchet_program import EulerProgram

Integrator = Literal["exact", "euler60"]
Inertias = Literal["interchanged", "own"]
_STEPS = 48
_MOST_STEPS = 96  # that an accuracy may take: beyond, the fine grid that it is measured by takes seconds
_BESIDE_THE_KINK = (0.0, -0.003, 0.003, -0.01, 0.01, -0.03, 0.03)  # of the speed along the ground
_LOOKS = 200  # for the end of a stage, before giving up
_GRID = 17  # shots a control to see what distances the box spans
_MARGIN = 0.01  # of that span, for what lies between the shots


class StageSolver(Protocol):
    """Follows a stage to the event that ends it, and draws it."""

    def to_event(
        self, motion: Callable[..., Stage], parameters: Sequence[Any], state: ode.State
    ) -> tuple[ode.State, Any, Tensor]:
        """The state at the event, its time in s and what is missing; see `ode.integrate_to_crossing`."""
        ...

    def path(
        self, motion: Callable[..., Stage], parameters: Sequence[Any], state: ode.State, points: int
    ) -> Iterator[tuple[Any, ode.State]]:
        """`points` times and states on the way to the event, which is the last; the start is not among them."""
        ...


class Trebuchet(Task):
    """The machine of FluxML/Trebuchet.jl; equations of motion as documented at virtualtrebuchet.com.

    Three stages: the projectile slides on the ground until the sling carries its weight, swings until
    its velocity has turned down to the release angle, and flies with quadratic drag relative to a
    horizontal wind until it is on the ground again. The outcome is the distance from the pivot.
    Where a stage never ends (a counterweight too light, an angle that is not met) it is infinite.

    The condition is the wind along x in m/s, `(..., 1)`. The box ends at 70 degrees because near 80,
    with more than some 265 lb, the projectile's velocity turns down, up and down again: three
    moments have the same angle, two of which vanish at a fold, where the distance jumps. The
    machine's sling is a rod; with such weights it pushes for a moment, as in the published program.

    Args:
        release_angle: `[lower, upper]` in rad, of the projectile's velocity above the horizontal, in (0, pi/2).
        weight: `[lower, upper]` of the counterweight in lb, positive.
        wind: `[lower, upper]` in m/s that the wind is drawn from.
        tolerance: the miss in m at which a target counts as solved, positive.
        integrator: "exact": solved to convergence by Runge-Kutta steps; "euler60": as the published
            program does, explicit Euler at 60 steps a second. That one is the program itself, so it has no finer
            one and no error of its own: what it solves is solved for the program, not for the machine.
        inertias: "interchanged": arm and counterweight have each other's moment of inertia, as in the
            published program; "own": each has its own, as it is stated there.
        steps: Runge-Kutta steps of the swing, at least 12; the ground takes a third of them, the flight
            half; not used by "euler60". None is 48, or as many as `accuracy` takes.
        accuracy: how far a distance may be off in m, anywhere in the box and under any of its winds, for
            want of steps; None asks for nothing. See `choose_steps`; the number is the attribute `steps`.

    Raises:
        UserError: a value outside these ranges, named.
    """

    def __init__(
        self,
        release_angle: Sequence[float] = (math.radians(10), math.radians(70)),
        weight: Sequence[float] = (50.0, 400.0),
        wind: Sequence[float] = (-10.0, 10.0),
        tolerance: float = 0.05,
        integrator: Integrator = "exact",
        inertias: Inertias = "interchanged",
        steps: int | None = None,
        accuracy: float | None = None,
    ) -> None:
        self.box = Box([make_axis("release_angle", "rad", release_angle), make_axis("weight", "lb", weight)])
        self.conditions = Box([make_axis("wind", "m/s", wind, fixed=True)])
        self.tolerance = check_positive("tolerance", tolerance)
        angle_axis, weight_axis = self.box.axes
        if not 0 < angle_axis.lower < angle_axis.upper < math.pi / 2:
            raise UserError(
                f"release_angle: must lie within (0, pi/2) rad, got [{angle_axis.lower:g}, {angle_axis.upper:g}]"
            )
        if weight_axis.lower <= 0:
            raise UserError(f"weight: must be positive, got a lower bound of {weight_axis.lower:g} lb")
        for name, value, allowed in (("integrator", integrator, Integrator), ("inertias", inertias, Inertias)):
            if value not in get_args(allowed):
                raise UserError(f"{name}: must be one of {', '.join(get_args(allowed))}, got {value!r}")
        if accuracy is not None and integrator != "exact":
            raise UserError(f"accuracy: {integrator} has its own steps; give integrator: exact, or accuracy: null")
        self.integrator = integrator
        self.inertias = inertias
        self.steps = choose_steps(
            steps,
            accuracy,
            self._in_steps,
            self._in_steps,  # for the truth too: where a stage ends is found to some 1e-8 m by any number of steps
            self._sample,
            default=_STEPS,
            least=12,
            most=_MOST_STEPS,
            unit="m",
            axes=(*self.box.axes, *self.conditions.axes),
        )
        self._coarse: Trebuchet | None = None
        self._solver: StageSolver = _RungeKutta(self.steps) if integrator == "exact" else EulerProgram()
        self.outcomes = Box([self._span()])

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        """The distance in m, `(..., 1)`, of `(release_angle, weight)` in `(..., 2)`."""
        wind = conditions[..., 0]
        thrown, no_throw = self._throw(controls)
        (x, *_), time, no_landing = self._solver.to_event(flying, (), _launch_flight(thrown, wind))
        missing = _first(no_throw, no_landing)
        return torch.stack([torch.where(missing == 0, x + wind * time, missing)], dim=-1)

    def reach(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest distance, `(..., 1)` each, found by search: some 9000 shots a condition."""
        return search_reach(self, conditions, self._coarse)

    def finer(self, factor: int) -> "Trebuchet | None":
        """The same machine in `factor` times as many steps, which also looks for the events that much closer."""
        if self.integrator != "exact":
            return None
        other = copy.copy(self)
        other.steps = factor * self.steps
        other._solver = _RungeKutta(other.steps, looks=factor)
        other._coarse = self
        return other

    def settings_of_accuracy(self) -> Mapping[str, str]:
        """An accuracy of a tenth of the tolerance."""
        return {"steps": "null", "accuracy": f"{self.tolerance / 10:g}"} if self.integrator == "exact" else {}

    @torch.no_grad()
    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> Tensor:
        """The projectile from rest to landing, `(..., points, 2)`, y against the pivot.

        A fifth of the points on the ground and a fifth in the sling, even by their own clocks.
        """
        release_angle, weight = controls.unbind(-1)
        wind, mass = conditions[..., 0], weight * POUND
        state = rest(weight)
        path = [projectile(state)[:2]]
        swings = ((self._sliding, (mass,)), (self._swinging, (mass, release_angle)))
        for motion, parameters in swings:
            reached = self._solver.path(motion, parameters, state, (points - 1) // 5)
            path += [projectile(part)[:2] for _, part in reached]
            state, _, _ = self._solver.to_event(motion, parameters, state)
        flight = self._solver.path(flying, (), _launch_flight(state, wind), points - len(path))
        path += [(x + wind * time, height - PIVOT_HEIGHT) for time, (x, height, *_) in flight]
        return torch.stack([torch.stack(pair, dim=-1) for pair in path], dim=-2)

    def _throw(self, controls: Any) -> tuple[ode.State, Tensor]:
        """The machine as it lets the projectile go, and what is missing of that; see `ode.integrate_to_crossing`."""
        release_angle, weight = controls.unbind(-1)
        mass = weight * POUND
        cocked = rest(value_of(weight))
        lifted, _, no_lift = self._solver.to_event(self._sliding, (mass,), cocked)
        thrown, _, no_release = self._solver.to_event(self._swinging, (mass, release_angle), lifted)
        return thrown, _first(self._slack(value_of(mass), cocked), no_lift, no_release)

    def _in_steps(self, steps: int) -> "Trebuchet":
        """The same machine, its stages in so many steps."""
        other = copy.copy(self)
        other._solver = _RungeKutta(steps)
        return other

    @torch.no_grad()
    def _sample(self) -> tuple[Tensor, Tensor]:
        """Controls and wind where the error of the steps is looked for.

        A grid, and shots under a wind as fast as they, or nearly so: at their apex the projectile stands
        still in the air, where the drag, k |V| V, has a kink and the method is of third order only.
        """
        controls, wind = spread_points(self.box, self.conditions, counts=(7, 7, 5))
        (shots,) = spread_points(self.box, counts=(7, 7))
        thrown, missing = self._in_steps(_STEPS)._throw(shots)
        _check_thrown(shots, missing == 0)
        _, _, along, _ = projectile(thrown)
        beside = along[:, None] * (1 + torch.tensor(_BESIDE_THE_KINK, dtype=along.dtype))
        with_it = beside.clamp(*self.conditions.bounds(along))
        again = shots[:, None].expand(-1, with_it.shape[1], -1)
        return torch.cat([controls, again.flatten(0, 1)]), torch.cat([wind, with_it.reshape(-1, 1)])

    def _span(self) -> Axis:
        """What a grid of shots spans at the ends of the wind, widened a little."""
        unit = torch.linspace(0, 1, _GRID, dtype=torch.float64)
        controls = self.box.from_unit(torch.cartesian_prod(unit, unit))
        wind = torch.stack(self.conditions.bounds(unit))
        with torch.no_grad():
            shots = self(controls.expand(2, -1, -1), wind[:, None].expand(-1, len(controls), -1))
        _check_thrown(controls, torch.isfinite(shots).all(0)[:, 0])
        low, high = float(shots.min()), float(shots.max())
        margin = _MARGIN * (high - low)
        return Axis("distance", "m", low - margin, high + margin)

    def _machine(self, mass: Any) -> Machine:
        inertias = (ARM_INERTIA, WEIGHT_INERTIA)
        return Machine(mass, *(inertias if self.inertias == "own" else reversed(inertias)))

    def _sliding(self, mass: Any) -> Stage:
        return sliding(self._machine(mass))

    def _swinging(self, mass: Any, release_angle: Any) -> Stage:
        return swinging(self._machine(mass), release_angle)

    def _slack(self, mass: Tensor, cocked: ode.State) -> Tensor:
        """Infinity where the counterweight is too light to draw the sling, else 0."""
        draws = pull(cocked, self._machine(mass).on_ground(cocked)) < 0
        return torch.where(draws & (mass > 0), 0.0, torch.where(mass.isnan(), torch.nan, torch.inf)).to(mass)


class _RungeKutta:
    """Each stage solved to convergence, in even steps of its own clock; the time is part of the state.

    Args:
        steps: of the swing.
        looks: for the end of a stage, a pace of its clock.
    """

    def __init__(self, steps: int, looks: int = 1) -> None:
        self._full = steps
        self._looks = looks

    def to_event(
        self, motion: Callable[..., Stage], parameters: Sequence[Any], state: ode.State
    ) -> tuple[ode.State, Any, Tensor]:
        (*reached, time), _, missing = self._solve(motion, parameters, state)
        return tuple(reached), time, missing

    def path(
        self, motion: Callable[..., Stage], parameters: Sequence[Any], state: ode.State, points: int
    ) -> Iterator[tuple[Any, ode.State]]:
        if points == 0:
            return
        _, ticks, _ = self._solve(motion, parameters, state)
        stage = motion(*parameters)
        derivative, _ = _by_its_clock(stage)
        between = math.ceil(self._steps(stage) / points)
        times = ode.Grid(points * between, ticks)
        states = ode.follow_steps(derivative, (*state, torch.zeros_like(ticks)), times)
        for *reached, time in itertools.islice(states, between, None, between):
            yield time, tuple(reached)

    def _solve(
        self, motion: Callable[..., Stage], parameters: Sequence[Any], state: ode.State
    ) -> tuple[ode.State, Any, Tensor]:
        stage = motion(*parameters)
        return ode.integrate_to_crossing(
            lambda *values: _by_its_clock(motion(*values)),
            parameters,
            (*state, torch.zeros_like(value_of(state[0]))),
            steps=self._steps(stage),
            pace=stage.pace / self._looks,
            horizon=_LOOKS * stage.pace,
        )

    def _steps(self, stage: Stage) -> int:
        return math.ceil(self._full * stage.effort)


def _by_its_clock(stage: Stage) -> tuple[ode.Derivative, ode.Measure]:
    """The stage's motion by ticks of its clock, with the time in s as the state's last component."""

    def derivative(state: ode.State) -> ode.State:
        duration = 1 / stage.tempo(state[:-1])
        return (*(rate * duration for rate in stage.derivative(state[:-1])), duration)

    return derivative, lambda state: stage.crossing(state[:-1])


def _launch_flight(state: ode.State, wind: Tensor) -> ode.State:
    """The projectile let go, seen from the moving air."""
    x, y, along, up = projectile(state)
    return x, y + PIVOT_HEIGHT, along - wind, up


def _check_thrown(controls: Tensor, thrown: Tensor) -> None:
    if not bool(thrown.all()):
        angle, weight = controls[~thrown][0].tolist()
        raise UserError(f"weight: {weight:g} lb do not throw at release_angle {angle:g} rad; give a narrower box")


def _first(*missing: Tensor) -> Tensor:
    """What is missing first: later stages say nothing once one has not ended."""
    found = missing[0]
    for later in missing[1:]:
        found = torch.where(found == 0, later, found)
    return found
