"""Inverse kinematics of a Franka arm as the literature measures it: 2000 poses of random joints at once."""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from aimback.compile.compiler import Compiler
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem, StartStatus
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.program import Buffers
from aimback.solve.step import Iteration
from aimback.tasks.franka import Franka
from benchmarks.rounds import in_turns, one_core, ratio, spread
from benchmarks.tables import number, table

TARGETS = 2000
POSITION, ROTATION = 0.005, 0.05  # m and rad: within both, a target counts as solved in the literature
_ASKED = 1e-7  # m that the flange may be away here; of the rotation as much less
# So many starts at once, from so much of the box about its middle, for the targets that none has hit so far.
_TURNS = ((1, 0.0), (1, 0.5), (2, 0.75), (4, 1.0), (8, 1.0), (16, 1.0), (32, 1.0), (64, 1.0))
_ROUNDS = 11
_GOAL = 15.0  # microseconds a target


@dataclass(frozen=True)
class Published:
    """What Kim et al. (2025), "PyRoki", arXiv:2505.03728, report of 2000 targets on an RTX 4090."""

    label: str
    milliseconds: float
    solved: float
    error: float | None  # mm


PUBLISHED = (
    Published("PyRoki, RTX 4090, as published", 29.9, 1.0, 3.9e-4),
    Published("cuRobo, RTX 4090, as published", 50.3, 0.9995, None),
)


class Work:
    """The same targets and starts every time."""

    def __init__(self, device: torch.device | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.task = Franka(position=_ASKED, rotation=_ASKED * ROTATION / POSITION)
        joints = self.task.box.sample(TARGETS, generator).to(device)
        self.none = joints[:, :0]
        self.targets = self.task(joints, self.none)
        # Well within what is asked, and not to the last digit.
        precision = 0.1 * self.task.distance.share
        self.solver = LevenbergMarquardt(damping=1.0, max_steps=24, precision=precision)

    def solve(self, compiler: Compiler | None, ledger: Ledger | None = None) -> tuple[Tensor, Tensor]:
        """From targets to joints, `(targets, 7)`, everything included; and how many starts each took."""
        task, distance, generator = self.task, self.task.distance, torch.Generator().manual_seed(1)
        forward = task if ledger is None else Counted(task, ledger, simulates=True)
        joints = torch.full_like(self.targets[:, :1], torch.nan).repeat(1, len(task.box))
        taken = torch.zeros_like(joints[:, 0])
        unsolved = torch.arange(TARGETS, device=joints.device)
        for together, width in _TURNS:
            drawn = torch.rand(len(unsolved), together, len(task.box), generator=generator, dtype=torch.float64)
            starts = 0.5 + width * (drawn.to(joints) - 0.5)
            problem = InverseProblem(self.targets[unsolved], self.none[unsolved], task.box, distance, starts)
            solution = solve(forward, problem, self.solver, generator, compiler=compiler, paths=0)
            joints[unsolved] = solution.controls[torch.arange(len(unsolved), device=joints.device), solution.best()]
            taken[unsolved] += together
            unsolved = unsolved[(solution.start_status != StartStatus.ARRIVED).all(-1)]
            if len(unsolved) == 0:
                break
        return joints, taken


def solved_beside_published() -> str:
    """Markdown: a table, and what it was made of."""
    work, ledger = Work(), Ledger()
    with one_core(), tempfile.TemporaryDirectory() as folder:
        compiler = Compiler(Path(folder), "franka")
        joints, taken = work.solve(compiler, ledger)
        alone = _first_descent(work, compiler)
        seconds = in_turns(
            {
                "compiled": lambda: work.solve(compiler),
                "interpreted": lambda: work.solve(None),
                "first descents alone": alone,
            },
            _ROUNDS,
            patience=10.0,
        )
    away, turned = find_errors(work.task, work.targets, joints)
    hit = ((away <= POSITION) & (turned <= ROTATION)).double().mean()
    each = {name: 1e6 * statistics.median(spent) / TARGETS for name, spent in seconds.items()}
    errors = [f"{1e3 * float(away.mean()):.1e}", f"{1e3 * float(away.max()):.1e}"]
    rows = [
        [f"aimback, one core, {name}", number(each[name]), f"{float(hit):.2%}", *errors]
        for name in ("compiled", "interpreted")
    ]
    for one in PUBLISHED:
        error = "" if one.error is None else f"{one.error:.1e}"
        rows.append([one.label, number(1e3 * one.milliseconds / TARGETS), f"{one.solved:.2%}", error, ""])
    record = 1e3 * PUBLISHED[0].milliseconds / TARGETS
    ratios = [1e6 * spent / TARGETS / record for spent in seconds["compiled"]]
    head = ["", "us a target", "solved", "mean error of the position [mm]", "greatest [mm]"]
    return "\n\n".join(
        [
            f"{TARGETS} poses of joints drawn evenly within their limits; solved: the position within "
            f"{1e3 * POSITION:g} mm and the rotation within {ROTATION:g} rad. aimback is asked for "
            f"{1e3 * _ASKED:g} mm: `levenberg_marquardt` from the middle of the box, damping {work.solver.damping:g}, "
            f"at most {work.solver.max_steps} steps; where it has not arrived, again from one start in the middle half "
            "of every joint's range, from two in the middle three quarters, from 4, 8, ... in all of it. Time includes "
            "everything from targets to joints. The published rows are those of Kim et al. (2025), arXiv:2505.03728, "
            "on a GPU; nothing of theirs was measured here.",
            table(head, rows),
            f"Over the time of PyRoki's GPU: {spread(ratios)}; asked: at most {_GOAL / record:.2g}. The interpreter "
            f"takes {ratio(seconds, 'interpreted', 'compiled')} as long. A target takes "
            f"{ledger.evaluations / TARGETS:.1f} poses with their Jacobians, and {float(taken.mean()):.2f} "
            f"starts; {float((taken == 1).double().mean()):.1%} arrive from the first. The compiled program takes "
            f"{each['first descents alone']:.1f} us a target for the first descents; the rest is the further ones, "
            "and what surrounds the programs.",
        ]
    )


def _first_descent(work: Work, compiler: Compiler) -> Callable[[], object]:
    """The program alone, from the middle of the box, without the paths that a solution keeps."""
    task = work.task
    middle = torch.full((TARGETS, len(task.box)), 0.5, dtype=torch.float64)
    problem = InverseProblem(work.targets, work.none, task.box, task.distance, middle[:, None])
    program = compiler(Iteration(task, problem, work.solver))
    return program(Buffers.allocate(work.targets, work.none, middle[:, None], work.solver.max_steps, 0))


def find_errors(task: Franka, targets: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
    """How far the flange is from where it is wanted in m, and by how much it is turned in rad, `(targets,)` each."""
    found = task(joints, joints[:, :0])
    (here, there) = (_rotation(outcome) for outcome in (found, targets))
    # |R - S| = 2 sqrt(2) sin(angle / 2), in the root of the sum of squares.
    sine = torch.linalg.matrix_norm(here - there) / (2 * 2**0.5)
    return (found - targets)[:, :3].norm(dim=-1), 2 * torch.asin(sine.clamp(max=1.0))


def _rotation(outcome: Tensor) -> Tensor:
    """The whole matrix of the two columns that are outcomes, `(rows, 3, 3)`."""
    along, out = outcome[:, 3:6], outcome[:, 6:]
    return torch.stack([along, torch.linalg.cross(out, along), out], dim=-1)
