"""Problems that tests share: forward maps made up for a purpose, and references of tight tolerance for real ones."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from aimback.core.box import Box
from aimback.core.distance import Distance
from aimback.core.problem import InverseProblem, Linearised
from aimback.data.exactness import Simulated
from aimback.data.targets import Targets
from aimback.evaluate.distinct import DistinctAnswers
from aimback.evaluate.judge import Answers
from aimback.evaluate.metrics import Measures
from aimback.evaluate.tables import list_answers, list_distinct, open_table
from aimback.solve.starts import draw_evenly
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.trebuchet_motion import (
    ARM,
    ARM_INERTIA,
    DRAG,
    GRAVITY,
    HANGER,
    LONG_ARM,
    PIVOT_HEIGHT,
    POUND,
    PROJECTILE,
    SHORT_ARM,
    SLING,
    WEIGHT_INERTIA,
)

DEGREE = math.pi / 180
INTERCHANGED, OWN = (WEIGHT_INERTIA, ARM_INERTIA), (ARM_INERTIA, WEIGHT_INERTIA)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Affine:
    """outcome = matrix controls."""

    matrix: Tensor

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return controls @ self.matrix.T

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return self(controls, conditions), self.matrix.expand(*controls.shape[:-1], *self.matrix.shape)


class Poisoned:
    """A task that answers NaN, or no event, in a part of the box."""

    def __init__(self, task: Linearised, poison: float, above: float) -> None:
        self.task, self.poison, self.above = task, poison, above

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return torch.where(controls[..., :1] > self.above, self.poison, self.task(controls, conditions))

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        outcome, jacobian = self.task.linearise(controls, conditions)
        return torch.where(controls[..., :1] > self.above, self.poison, outcome), jacobian


class Off:
    """Stands for a network: a task, off by a little."""

    def __init__(self, task: Linearised, by: float, factor: float = 1.0) -> None:
        self.task, self.by, self.factor = task, by, factor

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self.task(controls, conditions) * self.factor + self.by

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        outcome, jacobian = self.task.linearise(controls, conditions)
        return outcome * self.factor + self.by, jacobian * self.factor


def pose(
    targets: Tensor,
    conditions: Tensor,
    box: Box,
    tolerance: float,
    span: float,
    starts: Tensor | int = 8,
    seed: int = 0,
) -> InverseProblem:
    """A problem of one tolerance for all outcomes, with starts in the units of the box, or so many a target."""
    number = starts if isinstance(starts, int) else 0
    unit = (
        box.to_unit(starts) if isinstance(starts, Tensor) else draw_evenly(len(targets), number, len(box), seeded(seed))
    )
    distance = Distance((tolerance,) * targets.shape[-1], tolerance, span)
    return InverseProblem(targets, conditions, box, distance, unit)


# ---- references, by SciPy


def dop853(task: CannonDrag, speed: float, angle: float, wind: float) -> tuple[float, float]:
    """Landing distance and time by SciPy at a tolerance far below ours."""

    def flight(_: float, state: np.ndarray) -> list[float]:
        along, up = state[2] - wind, state[3]
        air = math.hypot(along, up)
        return [state[2], state[3], -task.drag * air * along, -task.gravity - task.drag * air * up]

    def ground(_: float, state: np.ndarray) -> float:
        return float(state[1])

    ground.terminal, ground.direction = True, -1
    start = [0.0, task.launch_height, speed * math.cos(angle), speed * math.sin(angle)]
    # Steps short of any flight, or SciPy sees no sign change of a short hop.
    hop = 0.01 * (speed * math.sin(angle) + math.sqrt(task.launch_height)) / task.gravity + 1e-9
    flown = solve_ivp(
        flight,
        (0, 100),
        start,
        method="DOP853",
        rtol=1e-13,
        atol=1e-13,
        events=ground,
        first_step=min(hop, 0.1 / (task.drag * (speed + abs(wind)) + 1e-9)),  # a longer one may overflow
        max_step=1000 * hop,
    )
    return float(flown.y_events[0][0][0]), float(flown.t_events[0][0])


# The trebuchet's equations put up another way: mass matrix and constraint force, solved by LAPACK.


def swing_rates(state: np.ndarray, weight: float, inertias: tuple[float, float], on_ground: bool) -> np.ndarray:
    (a, h, s), (da, dh, ds) = state[:3], state[3:]
    heavy, centre = weight * POUND, (LONG_ARM - SHORT_ARM) / 2
    ah, as_ = heavy * SHORT_ARM * HANGER, PROJECTILE * LONG_ARM * SLING
    mass = np.array(
        [
            [0, ah * math.cos(a - h), as_ * math.cos(a - s)],
            [ah * math.cos(a - h), inertias[1] + heavy * HANGER**2, 0],
            [as_ * math.cos(a - s), 0, PROJECTILE * SLING**2],
        ]
    )
    mass[0, 0] = inertias[0] + ARM * centre**2 + heavy * SHORT_ARM**2 + PROJECTILE * LONG_ARM**2
    turning = ARM * centre + PROJECTILE * LONG_ARM - heavy * SHORT_ARM
    force = GRAVITY * np.array(
        [turning * math.sin(a), -heavy * HANGER * math.sin(h), PROJECTILE * SLING * math.sin(s)]
    ) + np.array(
        [
            -ah * math.sin(a - h) * dh**2 - as_ * math.sin(a - s) * ds**2,
            ah * math.sin(a - h) * da**2,
            as_ * math.sin(a - s) * da**2,
        ]
    )
    if on_ground:  # one more unknown, the ground's push, keeps the projectile's height
        slope = np.array([LONG_ARM * math.sin(a), 0, SLING * math.sin(s)])
        bend = -LONG_ARM * math.cos(a) * da**2 - SLING * math.cos(s) * ds**2
        mass = np.block([[mass, slope[:, None]], [slope[None], np.zeros((1, 1))]])
        force = np.append(force, bend)
    return np.concatenate([state[3:], np.linalg.solve(mass, force)])


def until(rates: Callable[..., object], start: np.ndarray, event: Callable[..., float], **options: float) -> np.ndarray:
    def crossing(time: float, state: np.ndarray) -> float:
        return event(state)

    crossing.terminal, crossing.direction = True, -1
    solved = solve_ivp(
        lambda _, state: rates(state), (0, 60), start, "DOP853", events=crossing, rtol=1e-12, atol=1e-12, **options
    )
    found: np.ndarray = solved.y_events[0][0]
    return found


def oracle(wind: float, degrees: float, weight: float, inertias: tuple[float, float]) -> float:
    """The distance by SciPy's DOP853 at a tolerance of 1e-12, all three events located by it."""
    angle = degrees * DEGREE
    arm = math.pi / 2 + math.asin(PIVOT_HEIGHT / LONG_ARM)

    def ground_push(state: np.ndarray) -> float:
        """The constraint force: by the last unknown of the system with the ground."""
        return float(swing_rates(state, weight, inertias, on_ground=True)[-1])

    def velocity(state: np.ndarray) -> np.ndarray:
        a, _, s, da, _, ds = state
        return np.array(
            [
                -LONG_ARM * math.cos(a) * da - SLING * math.cos(s) * ds,
                -LONG_ARM * math.sin(a) * da - SLING * math.sin(s) * ds,
            ]
        )

    def turn(state: np.ndarray) -> float:
        along, up = velocity(state)
        return math.sin(math.atan2(up, along) - angle)

    def flight(state: np.ndarray) -> list[float]:
        along, up = state[2] - wind, state[3]
        air = DRAG * math.hypot(along, up)
        return [state[2], state[3], -air * along, -GRAVITY - air * up]

    start = np.array([arm, 0, 3 * math.pi / 2, 0, 0, 0])
    lifted = until(lambda s: swing_rates(s, weight, inertias, True)[:6], start, ground_push, max_step=0.02)
    thrown = until(lambda s: swing_rates(s, weight, inertias, False), lifted, turn, max_step=0.02)
    x = -LONG_ARM * math.sin(thrown[0]) - SLING * math.sin(thrown[2])
    y = LONG_ARM * math.cos(thrown[0]) + SLING * math.cos(thrown[2])
    landed = until(flight, np.array([x, y, *velocity(thrown)]), lambda state: state[1] + PIVOT_HEIGHT)
    return float(landed[0])


def compute_r_t(task: Task, targets: Targets, truth: Simulated) -> Tensor:
    """The published metric r_T of targets that are all there at once."""
    measures = Measures(task)
    measures.enter_r_t(targets, truth)
    return measures.trace_r_t()


def write_answers(path: Path, task: Task, targets: Targets, answers: Mapping[str, Answers]) -> None:
    """The table of answers, of targets that are all there at once."""
    with open_table(path) as table:
        for route, answer in answers.items():
            table.add(list_answers(task, targets, route, answer))


def write_distinct(path: Path, task: Task, distinct: Mapping[str, DistinctAnswers]) -> None:
    """The table of distinct answers, likewise."""
    with open_table(path) as table:
        for route, answers in distinct.items():
            table.add(list_distinct(task, route, answers))
