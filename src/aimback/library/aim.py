"""A function or a task made ready once, to be asked for targets again and again."""

import functools
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aimback.compile.compiler import Compiler
from aimback.core.checks import quote
from aimback.core.errors import UserError
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem
from aimback.core.randomness import make_generator
from aimback.evaluate.judge import judge, resimulate
from aimback.library.answer import Answer
from aimback.library.wish import Wish
from aimback.solve.cma_es import CmaEs
from aimback.solve.handle import Believed, Handle
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import make_program, solve
from aimback.solve.program import Program
from aimback.solve.solver import Solver
from aimback.solve.starts import draw_evenly
from aimback.solve.step import Iteration, NotCompilable


class Aim:
    """A question made ready: the function is known, the program compiled, and what is left to say is the target.

    Each call draws the same starts, so that an answer depends on its own target alone and on the seed. Where it is
    compiled, threads may share it; else only as far as the function lets itself be called by several.

    Attributes:
        wish: the task, and what was found out about it; `wish.probing` is how many simulations that took.
    """

    def __init__(
        self, wish: Wish, solver: Solver | None = None, starts: int = 8, seed: int = 0, compile: bool = False
    ) -> None:
        self.wish = wish
        self._solver = solver or (LevenbergMarquardt() if wish.has_derivatives else CmaEs())
        generator = self._generator = functools.partial(make_generator, seed, wish.name)
        # The next call seldom asks for another number of targets.
        self._draw = functools.lru_cache(maxsize=1)(
            lambda targets: draw_evenly(targets, starts, len(wish.task.box), generator("starts"))
        )
        self._lower = wish.task.box.lower.numpy()
        self._width = wish.task.box.upper.numpy() - self._lower
        self._compiler: Callable[[Iteration], Program] | None = None
        self._handle: Handle | None = None
        if compile:
            iteration, program = _compile_task(wish, self._solver)
            self._compiler = lambda _: program
            self._handle = Handle(iteration, program)

    def __call__(self, target: Any, conditions: Mapping[str, Any] | None = None, starts: Any = None) -> Answer:
        """Find the controls for a target or for many, and simulate them again.

        Args:
            target: as for `invert`.
            conditions: by name, a number, or an array with a value for each target.
            starts: where to begin instead, `(n_targets, n_starts, n_controls)`, in the units of the controls.

        Returns:
            As `invert`; its ledger has what this call took.
        """
        return self.answer(self.wish.ask(target, conditions), Ledger(), starts)

    def answer(self, wish: Wish, ledger: Ledger, starts: Any = None) -> Answer:
        """Answer this wish, of the same task."""
        assert wish.targets is not None
        targets, again = wish.targets.only_valid(), None
        if starts is None:
            targets, again = targets.once()
            unit = self._draw(len(targets))
        else:
            unit = wish.task.box.to_unit(torch.as_tensor(starts, dtype=torch.float64)[wish.targets.valid])
        problem = InverseProblem(targets.targets, targets.conditions, wish.task.box, wish.task.distance, unit)
        stream = self._generator("search from starts")
        began = time.perf_counter()
        forward = Counted(wish.task, ledger, simulates=True)
        solution = solve(forward, problem, self._solver, stream, compiler=self._compiler, paths=0)
        seconds = time.perf_counter() - began
        if again is not None:
            solution = solution.of(again)
        # The best answer of each target, simulated again, decides what became of it.
        truth = resimulate(wish.task, wish.targets, solution, candidates=1, ledger=ledger)
        judged = judge(wish.task, wish.targets, solution, truth)
        return Answer(wish, wish.targets, solution, judged, ledger, seconds)

    def believe(self, targets: Any, conditions: Any = None, starts: Any = None) -> Believed:
        """Find controls as a call does, but from arrays to arrays, and without simulating them again: the program's
        own word, in microseconds. Nothing is entered into a ledger.

        Args:
            targets: `(n_targets, n_outcomes)`, or `(n_targets,)` of one outcome. What is not finite is `invalid_input`.
            conditions: `(n_targets, n_conditions)` in the order of the task, or `(n_targets,)` of a single one.
            starts: where to begin instead, `(n_targets, n_starts, n_controls)`, in the units of the controls.

        Raises:
            UserError: it is not compiled, shapes do not fit, or something is no number.
        """
        if self._handle is None:
            raise UserError("believe: only a program is so quick; prepare with compile=True")
        try:
            targets = np.asarray(targets, dtype=np.float64)
        except (TypeError, ValueError):
            raise UserError(f"targets: must be numbers, got {quote(targets)}") from None
        if targets.ndim == 0:
            targets = targets[None]
        if starts is None:
            unit = self._draw(len(targets)).numpy()
        else:
            unit = (np.asarray(starts, dtype=np.float64) - self._lower) / self._width
        return self._handle.believe(targets, conditions, unit)


def _compile_task(wish: Wish, solver: Solver) -> tuple[Iteration, Program]:
    """For this process alone: a user's function may be another one in the next, and nobody could tell."""
    task = wish.task
    if not task.compiles:
        reasons = () if wish.findings is None else wish.findings.reasons
        raise NotCompilable("; ".join(["compile: only code in torch's operations can be written out", *reasons]))
    nothing = torch.zeros(1, len(task.outcomes) + len(task.conditions), dtype=torch.float64)
    asked = nothing[:, : len(task.outcomes)], nothing[:, len(task.outcomes) :]
    problem = InverseProblem(*asked, task.box, task.distance, task.box.to_unit(task.box.lower)[None, None])
    # Once it is loaded its file is needed no more.
    with tempfile.TemporaryDirectory() as folder:
        return make_program(task, problem, solver, Compiler(Path(folder), ""))
