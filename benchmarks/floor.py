"""Where the time of a solve goes: against the simulator alone, fused into one program, and operation by operation."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aimback.compile.compiler import Compiler
from aimback.core.distance import Distance
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.program import Buffers
from aimback.solve.starts import draw_evenly
from aimback.solve.step import Iteration
from aimback.tasks.cannon_drag import CannonDrag
from benchmarks.cannon import COARSE_STEPS, FINE_STEPS
from benchmarks.peers import numba_lanes
from benchmarks.peers.aimback_direct import PRECISION, OneSpeed
from benchmarks.peers.scipy_brentq import prepare
from benchmarks.rounds import in_turns, one_core, spread
from benchmarks.rows import columns_of, fused
from benchmarks.tables import number, table
from benchmarks.work import default_cannon, draw_work

FEW, MANY = 16, 10_000
_LOOPED = 10  # targets that the loop is given
_ROUNDS = 11
_ASKED = 1.5  # whole solve over evaluations times a fused shot
# Runge-Kutta steps: of Numba's five turns; of an evaluation with the one that closes its gap; and to find the landing.
_BY_HAND, _OF_A_SHOT, _TO_LAND = 3 * COARSE_STEPS + 2 * FINE_STEPS, FINE_STEPS + 1, 7


class _Operations(TorchDispatchMode):
    """Counts the operations that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


class _Work:
    """The same aim as in the tables of the peers, one start a target."""

    def __init__(self) -> None:
        cannon = default_cannon()
        self.loop, self.by_hand = prepare(cannon), numba_lanes.prepare(cannon)
        self.task = CannonDrag(steps=FINE_STEPS)
        self.forward = OneSpeed(self.task, cannon.speed)
        targets, wind = draw_work(cannon, MANY)
        self.span = float(self.task.outcomes.upper - self.task.outcomes.lower)
        self.targets, self.wind = torch.from_numpy(targets)[:, None], torch.from_numpy(wind)[:, None]
        self.solver = LevenbergMarquardt(precision=PRECISION)

    def problem(self, count: int) -> InverseProblem:
        targets, wind = self.targets[:count], self.wind[:count]
        box = self.forward.box
        starts = draw_evenly(count, 1, len(box), torch.Generator().manual_seed(1))
        tolerance = 2 * PRECISION * self.span
        return InverseProblem(targets, wind, box, Distance((tolerance,), tolerance, self.span), starts)

    def solve(self, count: int, compiler: Any = None, ledger: Ledger | None = None) -> None:
        forward = self.forward if ledger is None else Counted(self.forward, ledger, simulates=True)
        solve(forward, self.problem(count), self.solver, torch.Generator().manual_seed(1), compiler=compiler)


def time_by_part() -> str:
    """Markdown: two tables."""
    with one_core(), tempfile.TemporaryDirectory() as folder:
        work = _Work()
        return "\n\n".join([_compiled_parts(work, Compiler(Path(folder), "cannon_drag")), _eager_parts(work)])


def _compiled_parts(work: _Work, compiler: Compiler) -> str:
    ledger = Ledger()
    work.solve(MANY, compiler, ledger)
    evaluations = ledger.evaluations / MANY
    program = compiler(Iteration(work.forward, work.problem(MANY), work.solver))
    unit = torch.rand(MANY, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    columns = columns_of(work.forward.box.from_unit(unit), work.wind)
    shot = fused(work.forward.linearise, work.forward.box.from_unit(unit), work.wind)

    def alone(count: int) -> Callable[[], object]:
        starts = unit[:count, None]
        buffers = Buffers.allocate(work.targets[:count], work.wind[:count], starts, work.solver.max_steps, 0)
        return program(buffers)

    columns_by_hand = work.targets[:, 0].numpy(), work.wind[:, 0].numpy()
    work.by_hand(*columns_by_hand)  # compiles it
    seconds = in_turns(
        {
            "many": lambda: work.solve(MANY, compiler),
            "by hand": lambda: work.by_hand(*columns_by_hand),
            "few": lambda: work.solve(FEW, compiler),
            "shot": lambda: shot(columns),
            "many alone": alone(MANY),
            "few alone": alone(FEW),
            "loop": lambda: work.loop(work.targets[:_LOOPED, 0].numpy(), work.wind[:_LOOPED, 0].numpy()),
        },
        _ROUNDS,
    )
    each = {name: [one / MANY for one in seconds[name]] for name in ("many", "shot", "many alone", "by hand")}
    floor = [evaluations * one for one in each["shot"]]
    ratios = [a / b for a, b in zip(each["many"], floor, strict=True)]
    looped = [one / _LOOPED / whole for one, whole in zip(seconds["loop"], each["many"], strict=True)]
    few, few_alone = (1e6 * statistics.median(seconds[name]) for name in ("few", "few alone"))
    rows = [
        ["evaluations", f"{evaluations:.2f}", ""],
        ["a fused shot with its derivative", _micro(each["shot"]), ""],
        ["**the floor**: their product", _micro(floor), "1"],
        ["what else the program does: steps, lanes that wait", _less(each["many alone"], floor), ""],
        ["what is left: checks, starts, paths, Python", _less(each["many"], each["many alone"]), ""],
        ["**the whole solve**", _micro(each["many"]), f"{spread(ratios)}; asked: at most {_ASKED}"],
        ["Numba, joint Newton by hand, 16 in step", _micro(each["by hand"]), ""],
    ]
    # Without its derivative, a step takes half of the arithmetic.
    steps = evaluations * (_OF_A_SHOT + _TO_LAND / 2)
    by_hand, own = 1e9 * statistics.median(each["by hand"]) / _BY_HAND, 1e9 * statistics.median(floor) / steps
    return "\n\n".join(
        [
            f"Drag cannon, one start, {MANY} targets, compiled; everything in one run, in turns.",
            table(["", "us a target", "over the floor"], rows),
            f"The program by hand takes {_BY_HAND} Runge-Kutta steps with their derivatives a target, {by_hand:.1f} ns "
            "each: it finds the landing time along with the angle, flies three times in coarse steps, and looks at no "
            f"answer. The evaluations here take as much as {steps:.0f}, {own:.1f} ns each: every one searches for its "
            "landing, and the last one is the look at the answer.",
            f"SciPy's brentq loop took {spread(looped)} times as long as the whole solve in this run; 8000 was asked.",
            f"Few targets: {FEW} take {few:.0f} us, of which the program takes {few_alone:.0f} us.",
        ]
    )


def _eager_parts(work: _Work) -> str:
    rows = []
    for count in (1, MANY):
        ledger, operations = Ledger(), _Operations()
        with operations:
            work.solve(count, ledger=ledger)
        column = torch.rand(count, 1, dtype=torch.float64)
        each = {
            "solve": lambda count=count: work.solve(count),
            "add": lambda column=column: [torch.add(column, column) for _ in range(100)],
        }
        seconds = in_turns(each, 5)
        whole, add = statistics.median(seconds["solve"]), statistics.median(seconds["add"]) / 100
        rows.append(
            [
                number(count),
                f"{ledger.evaluations / count:.2f}",
                number(operations.count),
                number(1e3 * whole),
                number(1e6 * whole / operations.count),
                number(1e6 * add),
            ]
        )
        if count == 1:
            least = 1e3 * add * operations.count
    head = ["targets", "evaluations a target", "operations", "solve [ms]", "us an operation", "us an addition"]
    return "\n\n".join(
        [
            "The same, interpreted: the operations that torch is asked for, and what the addition of two columns of so "
            "many numbers takes (many operations are views, or are on the fewer rows still on their way).",
            table(head, rows, words=0),
            "One aim in at most 8 ms was asked: as many operations, were each as cheap as an addition, take "
            f"{least:.0f} ms.",
        ]
    )


def _micro(seconds: Any) -> str:
    return number(1e6 * statistics.median(seconds))


def _less(a: list[float], b: list[float]) -> str:
    return _micro(x - y for x, y in zip(a, b, strict=True))
