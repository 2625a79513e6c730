"""What all routes share: the same targets, the same starts, one ledger."""

import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from aimback.compile.compiler import Compiler
from aimback.core.errors import UserError
from aimback.core.files import write_text
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import Linearised, Solution
from aimback.data.solution import save_solution
from aimback.data.targets import Targets, load_targets
from aimback.runtime.project import ROOT
from aimback.settings.posing import Proposals, pose_for_route, search
from aimback.settings.tree import Inversion, Optimisation, Refinement
from aimback.solve.multistart import solve
from aimback.solve.step import NotCompilable
from aimback.workflow.progress import progress_bar
from aimback.workflow.stage import Job

log = logging.getLogger(__name__)
_T = TypeVar("_T")


def solve_targets(
    job: Job,
    route: Inversion | Optimisation | Refinement,
    forward: Counted,
    ledger: Ledger,
    about: str | None = None,
    propose: Proposals | None = None,
    before: Sequence[Linearised] = (),
) -> None:
    """Invert `forward` at every valid target and write the solution and the ledger into the route's folder.

    Args:
        about: what `forward` computes, in words that differ where it does; None where it is not to be compiled.
        propose: where a refinement begins.
        before: easier maps to descend through first, see `solve_by_continuation`; with any, nothing is compiled.
    """
    folder = f"routes/{job.route}"
    targets, again = load_targets(job.find("data/targets.npz"), job.task).only_valid().once()
    with job.meter(f"{folder}/solution.npz"):
        solution = _solve(job, route, targets, forward, about, propose, before)
    # Who asks twice gets one answer twice.
    save_solution(job.outputs / folder / "solution.npz", solution.of(again.to(solution.steps.device)), job.task)
    write_text(job.outputs / folder / "ledger.json", json.dumps(dataclasses.asdict(ledger), indent=1) + "\n")


def _solve(
    job: Job,
    route: Inversion | Optimisation | Refinement,
    targets: Targets,
    forward: Counted,
    about: str | None,
    propose: Proposals | None,
    before: Sequence[Linearised],
) -> Solution:
    problem, generator = pose_for_route(job.task, route, targets, job.generator, job.device, propose)
    # What is searched for in several parts, or may have to stop, is left to the interpreter.
    in_parts = bool(before) or forward.limit is not None
    in_parts |= not isinstance(route, Refinement) and route.starts.until_solved
    with progress_bar(f"{job.name}: solving", len(targets), "within the tolerance") as bar:
        if not in_parts:
            starts = problem.starts.shape[:2].numel()
            run = functools.partial(solve, forward, problem, route.solver, generator, bar.tell)
            solution = compile_for(job, about, starts, run)
            if solution is not None:
                return solution
        return search(route, [*before, forward], problem, generator, bar.tell)


def compile_for(job: Job, about: str | None, starts: int, work: Callable[[Compiler], _T]) -> _T | None:
    """Do some work by a compiled program where that pays; None where it is left to the interpreter.

    Args:
        about: see `solve_targets`.
        starts: of descents, so many that the work is worth.

    Raises:
        UserError: `hardware.compile=on`, and it cannot be compiled.
    """
    hardware = job.settings.hardware
    if about is None or not hardware.compiles(starts, job.device):
        return None
    try:
        return work(Compiler(ROOT / "outputs" / "compiled", about))
    except NotCompilable as error:
        if hardware.compile != "auto":
            told = f"hardware.compile: {job.name}: {error}; hardware.compile=off goes without"
            raise UserError(told) from error
        log.info("%s: not compiled: %s", job.name, error)
        return None
