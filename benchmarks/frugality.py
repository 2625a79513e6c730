"""How many simulations a target takes until it is solved: without derivatives, with them, and by a data set."""

import torch

from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem, StartStatus
from aimback.data.targets import draw_targets
from aimback.solve.bayesian import Bayesian
from aimback.solve.cma_es import CmaEs
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.rounds import solve_in_rounds
from aimback.solve.solver import Solver
from aimback.solve.starts import draw_evenly
from aimback.tasks.ballistics import Ballistics
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.robotic_arm import RoboticArm
from benchmarks.break_even import settings_of
from benchmarks.tables import number, table

_TASKS = {
    "cannon_vacuum": CannonVacuum,
    "cannon_drag": CannonDrag,
    "ballistics": Ballistics,
    "robotic_arm": RoboticArm,
}
_TARGETS, _STARTS = 10, 8


def counted_until_solved() -> str:
    """Markdown: a table."""
    examples, rows = settings_of("mlp").data.examples, []
    for name, make in _TASKS.items():
        task = make()
        finest = task.distance.share  # nobody goes on within the tolerance
        bayesian, by_bayesian = _solve(task, Bayesian())
        evolution, by_evolution = _solve(task, CmaEs(precision=finest))
        direct, by_direct = _solve(task, LevenbergMarquardt(precision=finest))
        controls = len(task.box)
        rows.append(
            [
                name,
                str(controls),
                *(number(count) for count in (bayesian, evolution, direct, (controls + 1) * direct)),
                " / ".join(str(solved) for solved in (by_bayesian, by_evolution, by_direct)),
                number(evolution / bayesian),
                number(examples / bayesian),
            ]
        )
    head = [
        "task",
        "controls",
        "bayesian",
        "CMA-ES",
        "direct",
        "direct by differences",
        "solved",
        "CMA-ES over bayesian",
    ]
    return (
        f"Simulations a target, {_TARGETS} targets, one start after the other of at most {_STARTS}, each stopped "
        "within the tolerance; solved: by bayesian, CMA-ES and direct. `direct` is Levenberg-Marquardt, whose "
        "simulations come with exact Jacobians; by forward differences each takes one more a control. A surrogate has "
        f"its {examples:,} examples to share among all targets; from so many on, in the last column, that is less "
        "a target than bayesian takes.\n\n" + table(head, rows)
    )


def _solve(task: Task, solver: Solver) -> tuple[float, int]:
    """-> simulations a target, targets solved."""
    ledger, generator = Ledger(), torch.Generator().manual_seed(0)
    wanted = draw_targets(task, _TARGETS, torch.Generator().manual_seed(1))
    starts = draw_evenly(_TARGETS, _STARTS, len(task.box), torch.Generator().manual_seed(2))
    problem = InverseProblem(wanted.targets, wanted.conditions, task.box, task.distance, starts)
    solution = solve_in_rounds([Counted(task, ledger, simulates=True)], problem, solver, generator)
    return ledger.simulations / _TARGETS, int((solution.start_status == StartStatus.ARRIVED).any(-1).sum())
