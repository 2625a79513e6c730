"""aimback's direct route through its public door, `solve`; start to finish, the problem's checks included."""

import atexit
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aimback.autodiff import dual
from aimback.compile.compiler import Compiler
from aimback.core.box import Box
from aimback.core.distance import Distance
from aimback.core.problem import InverseProblem
from aimback.library.inversion import prepare
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.quadratic import Quadratic
from aimback.solve.solver import Solver
from aimback.solve.starts import draw_evenly
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from benchmarks.cannon import FINE_STEPS, Aim, Array, Cannon

PRECISION = 5e-7  # of the span


class OneSpeed(Task):
    """The cannon fired at one speed: what is left to choose is the angle."""

    def __init__(self, task: CannonDrag, speed: float) -> None:
        self.task, self.speed = task, speed
        self.conditions, self.outcomes = task.conditions, task.outcomes
        self.tolerance = 2 * PRECISION * float(task.outcomes.upper - task.outcomes.lower)
        self.box = Box([axis for axis in task.box.axes if axis.name == "angle"])

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        speed = torch.full_like(dual.value_of(controls), self.speed)
        return self.task(torch.cat([speed, controls], dim=-1), conditions)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return dual.linearise(self, controls, conditions)


def one_start(cannon: Cannon) -> Aim:
    task = CannonDrag(steps=FINE_STEPS)
    return partial(_aim, OneSpeed(task, cannon.speed), task, 1)


def two_starts(cannon: Cannon) -> Aim:
    task = CannonDrag(steps=FINE_STEPS)
    return partial(_aim, OneSpeed(task, cannon.speed), task, 2)


def compiled(cannon: Cannon) -> Aim:
    """One start, its step compiled, anew for each process: what is kept between them is not used."""
    task = CannonDrag(steps=FINE_STEPS)
    return partial(_aim, OneSpeed(task, cannon.speed), task, 1, compiler=_fresh_compiler())


def guided(cannon: Cannon) -> Aim:
    """From the guess that the others start from, by the solver for a single outcome."""
    task = CannonDrag(steps=FINE_STEPS)
    return partial(_aim_from_guess, cannon, OneSpeed(task, cannon.speed), task, None)


def compiled_guided(cannon: Cannon) -> Aim:
    task = CannonDrag(steps=FINE_STEPS)
    return partial(_aim_from_guess, cannon, OneSpeed(task, cannon.speed), task, _fresh_compiler())


def prepared_guided(cannon: Cannon) -> Aim:
    """The same by a handle that is made ready once: what it takes from arrays to arrays."""
    forward = OneSpeed(CannonDrag(steps=FINE_STEPS), cannon.speed)
    aim = prepare(forward, solver=Quadratic(precision=PRECISION), starts=1, compile=True)

    def answer(targets: Array, wind: Array) -> Array:
        believed = aim.believe(targets, wind, cannon.first_angle(targets)[:, None, None])
        return np.asarray(believed.controls[:, 0])

    return answer


def compiled_both_controls(_: Cannon) -> Aim:
    task = CannonDrag(steps=FINE_STEPS)
    return partial(_aim, task, task, 1, compiler=_fresh_compiler())


def both_controls(_: Cannon) -> Aim:
    """The pipeline's own problem: speed and angle are both free. Answers are `(n, 2)`."""
    task = CannonDrag(steps=FINE_STEPS)
    return partial(_aim, task, task, 1)


def _fresh_compiler() -> Compiler:
    folder = tempfile.mkdtemp(prefix="aimback-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Compiler(Path(folder), "cannon_drag")


def _aim_from_guess(
    cannon: Cannon, forward: OneSpeed, task: CannonDrag, compiler: Compiler | None, targets: Array, wind: Array
) -> Array:
    starts = forward.box.to_unit(torch.from_numpy(cannon.first_angle(targets))[:, None, None])
    solver = Quadratic(precision=PRECISION)
    return _solved(forward, task, solver, targets, wind, compiler, starts)


def _aim(
    forward: OneSpeed | CannonDrag,
    task: CannonDrag,
    starts: int,
    targets: Array,
    wind: Array,
    compiler: Compiler | None = None,
) -> Array:
    generator = torch.Generator().manual_seed(1)
    unit = draw_evenly(len(targets), starts, len(forward.box), generator)
    return _solved(forward, task, LevenbergMarquardt(precision=PRECISION), targets, wind, compiler, unit)


def _solved(
    forward: OneSpeed | CannonDrag,
    task: CannonDrag,
    solver: Solver,
    targets: Array,
    wind: Array,
    compiler: Compiler | None,
    starts: Tensor,
) -> Array:
    span = float(task.outcomes.upper - task.outcomes.lower)
    wanted, given = torch.from_numpy(targets)[:, None], torch.from_numpy(wind)[:, None]
    tolerance = 2 * PRECISION * span
    problem = InverseProblem(wanted, given, forward.box, Distance((tolerance,), tolerance, span), starts)
    # Nobody else keeps paths either.
    solution = solve(forward, problem, solver, torch.Generator().manual_seed(1), compiler=compiler, paths=0)
    answers = solution.controls[torch.arange(len(wanted)), solution.best()].numpy()
    return np.asarray(answers[:, 0] if answers.shape[1] == 1 else answers)
