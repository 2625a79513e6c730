"""Simulators in too few steps: is an answer ever called solved that SciPy's DOP853 says is a miss?"""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem, Status
from aimback.data.targets import Targets, draw_targets
from aimback.evaluate.judge import judge, resimulate
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.starts import draw_evenly
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.trebuchet import Trebuchet
from aimback.tasks.trebuchet_motion import PIVOT_HEIGHT, POUND, Stage, flying, projectile, rest

_TARGETS = 6  # of a cannon; half are drawn by the task's own steps, half by finer ones
_SHOTS = 2  # of a trebuchet: a reference takes seconds
_TREBUCHETS = 20  # one in so many settings is one

Reference = Callable[[Sequence[float], Sequence[float]], float]


def own_error(count: int, folder: Path) -> list[str]:
    """So many random settings, a few targets each; of trebuchets few, which take half a minute each."""
    kinds = {"cannon_drag": count - count // _TREBUCHETS, "trebuchet": count // _TREBUCHETS}
    return [_row(name, many) for name, many in kinds.items()]


def tried(name: str, number: int) -> Counter[str]:
    """What became of the targets of the setting of this number."""
    chance = random.Random(f"{name} {number}")
    try:
        task, reference, targets = (_cannon if name == "cannon_drag" else _trebuchet)(chance)
    except UserError:
        return Counter({"refused": 1})
    asked = _asked(task, targets, number)
    generator = torch.Generator().manual_seed(number)
    starts = draw_evenly(len(asked), 4, len(task.box), generator)
    problem = InverseProblem(asked.targets, asked.conditions, task.box, task.distance, starts)
    solution = solve(task, problem, LevenbergMarquardt(), generator)
    answers = judge(task, asked, solution, resimulate(task, asked, solution))
    by_own_steps = (task(answers.controls, asked.conditions) - asked.targets)[:, 0].abs() <= task.tolerance
    truth = [reference(*shot) for shot in zip(answers.controls.tolist(), asked.conditions.tolist(), strict=True)]
    misses = ~((torch.tensor(truth, dtype=torch.float64) - asked.targets[:, 0]).abs() <= task.tolerance)
    solved = answers.status == Status.SOLVED
    counts = {
        "settings": 1,
        "targets": len(asked),
        "by own steps": int(by_own_steps.sum()),
        "false by own steps": int((by_own_steps & misses).sum()),
        "solved": int(solved.sum()),
        "false": int((solved & misses).sum()),
        "hits not called so": int((by_own_steps & ~misses & ~solved).sum()),
        "unreachable": int((answers.status == Status.UNREACHABLE).sum()),
    }
    return Counter(counts)


def _row(name: str, count: int) -> str:
    total: Counter[str] = Counter()
    for number in range(count):
        total += tried(name, number)
    return (
        f"{name}, {total['settings']} settings ({total['refused']} more were refused), {total['targets']} targets "
        f"within reach: {total['false']} false `solved` of {total['solved']}; judged by the simulator's own steps "
        f"{total['false by own steps']} of {total['by own steps']} would be; {total['hits not called so']} hits are "
        f"not called so, for doubt; {total['unreachable']} called `unreachable`"
    )


def _cannon(chance: random.Random) -> tuple[Task, Reference, int]:
    blow = chance.choice([0.0, 2.0, 50.0]) * chance.random()
    task = CannonDrag(
        speed=[0.0, 10 ** chance.uniform(0.5, 3.3)],
        drag=chance.choice([0.0, 10 ** chance.uniform(-4, 0), 10 ** chance.uniform(-4, 0)]),
        wind=[-blow, blow],
        launch_height=chance.choice([0.0, 0.0, 10 ** chance.uniform(-1, 2)]),
        steps=chance.choice([4, 8, 16, 16, 32, 64]),
        tolerance=10 ** chance.uniform(-6, 0),
    )
    return task, lambda controls, wind: _flight(task, *controls, *wind), _TARGETS


def _trebuchet(chance: random.Random) -> tuple[Task, Reference, int]:
    lightest, blow = chance.uniform(50, 200), chance.uniform(0, 15)
    task = Trebuchet(
        weight=[lightest, lightest + chance.uniform(50, 300)],
        wind=[-blow, blow],
        steps=chance.choice([12, 24, 48]),
        inertias=chance.choice(["own", "interchanged"]),
        tolerance=10 ** chance.uniform(-6, -1),
    )
    return task, lambda controls, wind: _throw(task, *controls, *wind), _SHOTS


def _asked(task: Task, count: int, number: int) -> Targets:
    """Half as the task's own steps have them, half as finer ones do; some at corners of the box, the ends of reach."""
    generator = torch.Generator().manual_seed(number)
    own = draw_targets(task, count - count // 2, generator)
    finer = task.finer(16)
    assert finer is not None
    controls, conditions = task.box.sample(count // 2, generator), task.conditions.sample(count // 2, generator)
    ends = torch.rand(controls.shape, generator=generator, dtype=controls.dtype) < 0.3
    controls = torch.where(ends, task.box.upper, controls)
    finest = finer(controls, conditions)
    sound = torch.isfinite(finest).all(-1)
    wanted = torch.cat([own.targets, finest[sound]])
    given = torch.cat([own.conditions, conditions[sound]])
    return Targets(wanted, given, torch.zeros(len(wanted), dtype=torch.int64), ("",) * len(wanted))


def _flight(task: CannonDrag, speed: float, angle: float, wind: float) -> float:
    """The landing of a cannon's ball."""

    def rate(_: float, state: np.ndarray) -> list[float]:
        along, up = state[2] - wind, state[3]
        air = math.hypot(along, up)
        return [state[2], state[3], -task.drag * air * along, -task.gravity - task.drag * air * up]

    up = speed * math.sin(angle)
    # Steps short of any flight, or SciPy sees no change of sign in a short hop; and none so long that it overflows.
    hop = 0.01 * (up + math.sqrt(task.launch_height)) / task.gravity + 1e-9
    first = min(hop, 0.1 / (task.drag * (speed + abs(wind)) + 1e-9))
    start = [0.0, task.launch_height, speed * math.cos(angle), up]
    return float(_until(rate, start, lambda state: float(state[1]), first_step=first, max_step=1000 * hop)[0])


def _throw(task: Trebuchet, release_angle: float, weight: float, wind: float) -> float:
    """The landing of a trebuchet's shot; the task's own equations of motion, without its steps."""
    mass, angle = (torch.tensor(value, dtype=torch.float64) for value in (weight * POUND, release_angle))
    state = [float(part) for part in rest(mass)]
    for stage in (task._sliding(mass), task._swinging(mass, angle)):
        state = _follow(stage, state, max_step=0.02)
    x, y, along, up = (float(part) for part in projectile(_parts(state)))
    # Seen from the moving air, whose time is counted beside: d(time)/dt = 1.
    flight = flying()
    *landed, time = _until(
        lambda _, state: [*_numbers(flight.derivative(_parts(state[:-1]))), 1.0],
        [x, y + PIVOT_HEIGHT, along - wind, up, 0.0],
        lambda state: float(state[1]),
    )
    return float(landed[0] + wind * time)


def _follow(stage: Stage, state: Sequence[float], **options: float) -> list[float]:
    """The state at the event that ends the stage."""
    return list(
        _until(
            lambda _, state: _numbers(stage.derivative(_parts(state))),
            state,
            lambda state: float(stage.crossing(_parts(state))),
            **options,
        )
    )


def _numbers(state: Sequence[Tensor]) -> list[float]:
    return [float(part) for part in state]


def _parts(state: Sequence[float]) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(float(part), dtype=torch.float64) for part in state)


def _until(
    rate: Callable[[float, np.ndarray], Sequence[float]],
    start: Sequence[float],
    crossing: Callable[[np.ndarray], float],
    **options: float,
) -> np.ndarray:
    """The state where the crossing falls through zero."""

    def event(_: float, state: np.ndarray) -> float:
        return crossing(state)

    event.terminal, event.direction = True, -1  # type: ignore[attr-defined]
    with np.errstate(all="ignore"):
        flown = solve_ivp(rate, (0, 1e5), start, method="DOP853", rtol=1e-12, atol=1e-12, events=event, **options)
    found = flown.y_events[0]
    return found[0] if len(found) else np.full(len(start), math.nan)
