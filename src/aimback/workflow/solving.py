"""What all routes share: the same targets, the same starts, one ledger."""

import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from aimback.compile.compiler import Compiler
from aimback.core.errors import UserError
from aimback.core.files import write_text
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import History, InverseProblem, Linearised, Solution
from aimback.data.archive import count_parts
from aimback.data.solution import save_solution
from aimback.data.targets import Targets, load_targets
from aimback.runtime.project import ROOT
from aimback.settings.posing import Proposals, pose_for_route, search
from aimback.settings.tree import Inversion, Optimisation, Refinement
from aimback.solve.multistart import solve
from aimback.solve.solver import Progress
from aimback.solve.step import NotCompilable
from aimback.workflow.progress import Bar, progress_bar
from aimback.workflow.stage import Job

log = logging.getLogger(__name__)

Answerer = Callable[[Targets, InverseProblem, torch.Generator, Progress], Solution]


def solve_targets(
    job: Job,
    route: Inversion | Optimisation | Refinement,
    forward: Counted,
    ledger: Ledger,
    about: str | None = None,
    propose: Proposals | None = None,
    before: Sequence[Linearised] = (),
    instead: Answerer | None = None,
) -> None:
    """Invert `forward` at every valid target and write the solution and the ledger into the route's folder.

    Part by part, and the answers are those of all targets at once: each target has the starts of its number.

    Args:
        about: what `forward` computes, in words that differ where it does; None where it is not to be compiled.
        propose: where a refinement begins.
        before: easier maps to descend through first, see `solve_by_continuation`; with any, nothing is compiled.
        instead: what searches in the place of the solver alone, told the targets of the problem too; for files of one
            part whose solves are not compiled.
    """
    folder, file = f"routes/{job.route}", job.find("data/targets.npz")
    parts, compiles = count_parts(file), about is not None and not before and forward.limit is None

    @functools.lru_cache(maxsize=1)  # a file of one part is read once
    def load(part: int) -> tuple[Targets, Tensor]:
        return load_targets(file, job.task, part).only_valid().once()

    total = sum(len(load(part)[0]) for part in range(parts))
    starts, streams = total, functools.cache(job.generator)
    if not isinstance(route, Refinement):
        starts *= route.starts.number
        # What is searched for in rounds, or may have to stop, is left to the interpreter.
        compiles &= not route.starts.until_solved
    compiler = make_compiler(job, about if compiles else None, starts)

    def search_part(problem: InverseProblem, generator: torch.Generator, progress: Progress) -> Solution:
        nonlocal compiler
        if compiler is not None:
            try:
                return solve(forward, problem, route.solver, generator, progress, compiler)
            except NotCompilable as error:
                leave_to_interpreter(job, error)
                compiler = None
        return search(route, [*before, forward], problem, generator, progress)

    def solve_parts(bar: Bar) -> Iterator[Solution]:
        first = 0
        for part in range(parts):
            targets, again = load(part)
            problem, generator = pose_for_route(job.task, route, targets, streams, job.device, propose, first)
            first += len(targets)
            if instead is None:
                solution = search_part(problem, generator, bar.tell_part())
            else:
                solution = instead(targets, problem, generator, bar.tell_part())
            # Who asks twice gets one answer twice.
            solution = solution.of(again.to(solution.steps.device))
            if part:  # the paths of the very first targets are enough
                paths, misses = solution.history.controls, solution.history.believed_miss
                solution = dataclasses.replace(solution, history=History(paths[:1, :1], misses[:1, :1]))
            yield solution

    bars = progress_bar(f"{job.name}: solving", total, "within the tolerance")
    with job.meter(f"{folder}/solution.npz"), bars as bar:
        save_solution(job.outputs / folder / "solution.npz", solve_parts(bar), job.task)
    write_text(job.outputs / folder / "ledger.json", json.dumps(dataclasses.asdict(ledger), indent=1) + "\n")


def make_compiler(job: Job, about: str | None, starts: int) -> Compiler | None:
    """What compiles for a stage, where that pays; None where its work is left to the interpreter.

    Args:
        about: see `solve_targets`.
        starts: of descents, so many that the work is worth.
    """
    if about is None or not job.settings.hardware.compiles(starts, job.device):
        return None
    return Compiler(ROOT / "outputs" / "compiled", about)


def leave_to_interpreter(job: Job, error: NotCompilable) -> None:
    """Go without a program, unless one was asked for.

    Raises:
        UserError: `hardware.compile=on`.
    """
    if job.settings.hardware.compile != "auto":
        raise UserError(f"hardware.compile: {job.name}: {error}; hardware.compile=off goes without") from error
    log.info("%s: not compiled: %s", job.name, error)
