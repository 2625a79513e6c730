"""Where the time of a solve goes: against the simulator alone, fused into one program, and operation by operation."""

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aimback.compiled import TILE, Compiler
from aimback.ledger import Counted, Ledger
from aimback.problem import InverseProblem
from aimback.solve.advance import Advance, Front
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.cannon_drag import CannonDrag
from benchmarks.cannon import FINE_STEPS
from benchmarks.jacobian import compiled
from benchmarks.peers.aimback_direct import PRECISION, OneSpeed
from benchmarks.peers.scipy_brentq import prepare
from benchmarks.rounds import in_turns, one_core, spread
from benchmarks.tables import number, table
from benchmarks.work import default_cannon, draw_work

FEW, MANY = 16, 10_000
_LOOPED = 10  # targets that the loop is given
_ROUNDS = 11
_ASKED = 1.5  # whole solve over evaluations times a fused shot


class _Counting:
    """A compiler whose programs are counted as they are called."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self.steps = 0

    def __call__(self, advance: Advance) -> Any:
        step_by = self._compiler(advance)

        def counted(step: int, front: Front) -> tuple[Front, Tensor, Tensor]:
            self.steps += 1
            return step_by(step, front)

        return counted


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
        self.loop = prepare(cannon)
        self.task = CannonDrag(steps=FINE_STEPS)
        self.forward = OneSpeed(self.task, cannon.speed)
        targets, wind = draw_work(cannon, MANY)
        self.span = float(self.task.outcomes.upper - self.task.outcomes.lower)
        self.targets, self.wind = torch.from_numpy(targets)[:, None], torch.from_numpy(wind)[:, None]
        self.solver = LevenbergMarquardt(starts=1, precision=PRECISION)

    def problem(self, count: int) -> InverseProblem:
        targets, wind = self.targets[:count], self.wind[:count]
        return InverseProblem(targets, wind, self.forward.box, 2 * PRECISION * self.span, self.span)

    def solve(self, count: int, compiler: Any = None, ledger: Ledger | None = None) -> None:
        forward = self.forward if ledger is None else Counted(self.forward, ledger, simulates=True)
        solve(forward, self.problem(count), self.solver, torch.Generator().manual_seed(1), compiler=compiler)


def time_by_part() -> str:
    """Markdown: two tables."""
    with one_core(), _compiler() as compiler:
        work = _Work()
        return "\n\n".join([_compiled_parts(work, compiler), _eager_parts(work)])


@contextmanager
def _compiler() -> Iterator[Compiler]:
    with tempfile.TemporaryDirectory() as folder:
        yield Compiler(Path(folder), "cannon_drag")


def _compiled_parts(work: _Work, compiler: Compiler) -> str:
    ledgers = {count: Ledger() for count in (FEW, MANY)}
    calls = {}
    for count, ledger in ledgers.items():
        counting = _Counting(compiler)
        work.solve(count, counting, ledger)
        calls[count] = counting.steps
    # A shot and a step of a whole tile, as the first steps of many targets are.
    advance = Advance(work.forward, work.problem(MANY), work.solver)
    step_by = compiler(advance)
    unit = torch.rand(TILE, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    begun = advance.begin(work.targets[:TILE], work.wind[:TILE], unit)
    front, _, _ = step_by(0, begun)
    little, _, _ = step_by(0, begun[:FEW])
    controls, wind = work.forward.box.from_unit(unit), work.wind[:TILE]
    shot = compiled(work.forward.linearise, controls, wind)
    rows_last = controls.T.contiguous(), wind.T.contiguous()
    seconds = in_turns(
        {
            "many": lambda: work.solve(MANY, compiler),
            "few": lambda: work.solve(FEW, compiler),
            "shot": lambda: shot(*rows_last),
            "step": lambda: step_by(1, front),
            "little": lambda: step_by(1, little),
            "loop": lambda: work.loop(work.targets[:_LOOPED, 0].numpy(), work.wind[:_LOOPED, 0].numpy()),
        },
        _ROUNDS,
    )
    evaluations = ledgers[MANY].evaluations / MANY
    floor = [evaluations * one / TILE for one in seconds["shot"]]
    whole = [one / MANY for one in seconds["many"]]
    stepped = [evaluations * one / TILE for one in seconds["step"]]
    ratios = [a / b for a, b in zip(whole, floor, strict=True)]
    looped = [one / _LOOPED / least for one, least in zip(seconds["loop"], floor, strict=True)]
    few = statistics.median(seconds["few"])
    programs = calls[FEW] * statistics.median(seconds["little"])
    alone = 1e6 * FEW * statistics.median(seconds["shot"]) / TILE
    rows = [
        ["evaluations", f"{evaluations:.2f}", ""],
        [f"a fused shot with its derivative, {TILE} at once", _micro(one / TILE for one in seconds["shot"]), ""],
        ["**the floor**: their product", _micro(floor), "1"],
        ["what else a step does: propose, compare, judge, remember", _less(stepped, floor), _share(stepped, floor)],
        ["what is left: short tiles, rows put together, Python", _less(whole, stepped), _share(whole, stepped, floor)],
        ["**the whole solve**", _micro(whole), f"{spread(ratios)}; asked: at most {_ASKED}"],
    ]
    return "\n\n".join(
        [
            f"Drag cannon, one start, {MANY} targets, compiled; everything in one run, in turns.",
            table(["", "us a target", "over the floor"], rows),
            f"SciPy's brentq loop took {spread(looped)} times as long as the floor in this run; 8000 times as long as "
            "the whole solve was asked. No solver that follows every evaluation to the ground in all steps can reach "
            "that where this is less.",
            f"Few targets: {FEW} take {1e3 * few:.2f} ms, {calls[FEW]} steps for the slowest of them. The program's "
            f"calls are {programs / few:.0%} of it, {1e6 * programs / calls[FEW]:.0f} us each, where {FEW} of the "
            f"shots in a full tile take {alone:.0f} us.",
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


def _share(a: list[float], b: list[float], floor: list[float] | None = None) -> str:
    return f"{statistics.median((x - y) / z for x, y, z in zip(a, b, floor or b, strict=True)):.2f}"
