"""`aimback check`: what can be told of a simulator, and of what a run will take, in some seconds.

`aimback check` looks at all configured tasks, `aimback check drop` at one; settings are typed as for a run. The exit
code is 0 where nothing is wrong, and 1 where something should be changed.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from omegaconf import OmegaConf

from aimback.core.duration import duration
from aimback.core.randomness import make_generator
from aimback.diagnose.checkup import Checkup, check_up
from aimback.report.text import number, percent
from aimback.runtime.exits import report_errors
from aimback.settings.tree import Settings, read_settings
from aimback.simulators.apart import run_apart
from aimback.solve.derivative_free import DerivativeFree
from aimback.tasks.base import Task
from aimback.tasks.described import DescribedTask
from aimback.workflow.compose import compose_conf, fill_in_known
from aimback.workflow.entry import check_input, explain_composing
from aimback.workflow.forecast import forecast, list_trials

SECONDS = 5.0  # of a simulator's own time
_LONG = 3600.0  # seconds of a stage
_PROBING = 400  # simulations that finding out takes, at most about
_OFTEN = 0.2  # a share of failing runs that is too much to be left out
_DEPENDS = 1e-6  # of an outcome on the company, a share of its range; more than rounding
_COARSE = 0.5  # a tolerance, as a share of the range
_NOISES = 4.0  # that a tolerance should be, for a hit to be told from chance

# What helps where a stage takes too long.
_CURES = {
    "generate": "fewer examples, e.g. data.examples=1000, or leave out the surrogate: routes=[direct]",
    "train": "fewer replicas: diagnose=none",
    "optimise": "fewer targets or starts, e.g. data.targets=100 starts.number=4, or leave out this route",
    "amortise": "leave out the hybrid: routes=[surrogate,direct]",
    "refine": "fewer targets, e.g. data.targets=100",
    "evaluate": "fewer targets, e.g. data.targets=100",
    "diagnose": "leave out the claims: diagnose=none",
    "report": "fewer targets, e.g. data.targets=100",
}


@dataclass(frozen=True)
class Examined:
    """One task, looked at.

    Attributes:
        simulations, seconds: by stage, what a run will take.
    """

    checkup: Checkup
    simulations: dict[str, int]
    seconds: dict[str, float]


def check_task(settings: Settings, name: str) -> Examined:
    """Look at a task for `SECONDS` of its simulator's time, and foretell what a run asks of it.

    Raises:
        UserError: it cannot be simulated.
    """
    task = settings.tasks[name]
    workers = max(1, task.description.workers) if isinstance(task, DescribedTask) and _is_of_one(task) else 1
    workers = min(workers, len(os.sched_getaffinity(0)))
    trials = list_trials(settings, name)
    found = check_up(task, SECONDS, make_generator(settings.seed, name, "check"), trials, workers)
    counts = forecast(settings, name, found.pilots)
    # Fewer cases than workers were simulated together: the others would have stood idle.
    each = found.a_case if found.cases >= workers else found.alone[1] / workers
    return Examined(found, counts, {stage: count * each for stage, count in counts.items()})


def _is_of_one(task: DescribedTask) -> bool:
    return task.description.cases == "one" and task.description.arrays == "numpy"


def _tell_how(task: Task, found: Checkup) -> Iterator[str]:
    """How it is called and differentiated, and why where that can be told in a second."""
    if not isinstance(task, DescribedTask):
        mode = "by torch, since dual numbers do not know all of its operations" if "_mode" in vars(task) else "dual"
        yield f"called       torch, batch, derivatives: {mode}"
        return
    how = task.description
    yield f"called       {how.arrays}, {how.cases}, derivatives: {how.derivatives}"
    if _PROBING * found.alone[1] < 1:
        yield f"found anew   it {task.probe(anew=True).tell()}"


def tell(task: Task, examined: Examined) -> Iterator[str]:
    """What was found out, a line each."""
    found, axes = examined.checkup, task.outcomes.axes
    low, middle, high = found.alone
    yield f"outcomes     {len(axes)} a case, {found.dtype}, of {found.cases} cases"
    where = f", the others at {found.where}" if found.where else ""
    reasons = "; ".join(f"{count} failed: {reason}" for reason, count in found.reasons.most_common(3))
    yield f"finite       {percent(found.finite)} of them{where}" + (f"; {reasons}" if reasons else "")
    yield f"in company   an outcome differs by {number(found.company)} of its range from the same alone"
    if found.noise is not None:
        pairs = zip(axes, found.noise.tolist(), strict=True)
        told = ", ".join(f"{axis.name} {value:.2g} {axis.unit}".rstrip() for axis, value in pairs)
        yield f"noise        {told}"
    if found.jacobian_error is not None:
        yield (
            f"Jacobian     off by {number(found.jacobian_error)} in the median from differences, by more than these "
            f"are uncertain at {percent(found.wrong)} of the points"
        )
    if found.condition is not None:
        yield f"condition    {number(found.condition[0])} in the median, {number(found.condition[1])} at most"
    alone = f"{duration(middle)} alone ({duration(low)} to {duration(high)})"
    yield f"a call       {alone}, {duration(found.a_case)} a case among many"
    for place, axis in enumerate(axes):
        span = float(found.ranges[1, place] - found.ranges[0, place])
        share = number(task.tolerances[place] / span) if span > 0 else "all"
        bounds = f"{number(float(found.ranges[0, place]))} to {number(float(found.ranges[1, place]))} {axis.unit}"
        yield f"{axis.name:<12} {bounds.rstrip()}; the tolerance is {share} of that"
    for stage, count in examined.simulations.items():
        yield f"{stage:<20} {count:>14,} simulations, {duration(examined.seconds[stage])}"
    total, seconds = sum(examined.simulations.values()), sum(examined.seconds.values())
    yield f"{'in all':<20} {total:>14,} simulations, {duration(seconds)}, and the training of networks"
    yield f"(this took {found.simulations:,} simulations, {duration(found.seconds)})"


def advise(settings: Settings, name: str, examined: Examined) -> Iterator[str]:
    """What to change, a line each; none where nothing is wrong."""
    task, found = settings.tasks[name], examined.checkup
    if found.dtype != "float64":
        yield f"its outcomes are {found.dtype} where its controls are float64: keep what it is given"
    if 1 - found.finite > _OFTEN:
        where = f", all of them at {found.where}" if found.where else ""
        share = percent(1 - found.finite)
        yield f"{share} of the runs have no finite outcome{where}: narrow the ranges of the controls"
    if found.company > _DEPENDS:
        yield "a case depends on those beside it: simulate each by itself, e.g. simulator.cases: one"
    for place, axis in enumerate(task.outcomes.axes):
        tolerance, span = task.tolerances[place], float(found.ranges[1, place] - found.ranges[0, place])
        if found.noise is not None and tolerance < _NOISES * (noise := float(found.noise[place])):
            yield (
                f"the tolerance of {axis.name}, {tolerance:g}, is not above {_NOISES:g} times its noise, "
                f"{noise:.2g}: take at least {_NOISES * noise:.1g}"
            )
        if tolerance > _COARSE * span:
            part = number(tolerance / span) if span else "all"
            yield f"the tolerance of {axis.name} is {part} of its range: lower it"
    if found.wrong > 0.5:
        yield f"its Jacobian is wrong at {percent(found.wrong)} of the points: correct it, or derivatives: auto"
    none = isinstance(task, DescribedTask) and task.description.derivatives == "none"
    needing = [route for route, how in settings.optimise.items() if none and not isinstance(how.solver, DerivativeFree)]
    needing += list(settings.refine) if none else []
    if needing:
        yield f"it has no derivatives, which the routes {', '.join(needing)} need: routes=[surrogate,cma_es]"
    for stage, seconds in examined.seconds.items():
        if seconds > _LONG:
            count, cure = examined.simulations[stage], _CURES[stage.partition("-")[0]]
            yield f"{stage} would take {count:,} simulations, {duration(seconds)}: {cure}"


def _report(settings: Settings, name: str) -> tuple[list[str], list[str]]:
    """The lines on one task and the advice, made in a process of its own."""
    examined = check_task(settings, name)
    task, advice = settings.tasks[name], list(advise(settings, name, examined))
    return [*_tell_how(task, examined.checkup), *tell(task, examined)], advice


def read_arguments(arguments: Sequence[str]) -> list[str]:
    """Names of tasks become an override; what else is typed is one already."""
    names = [argument for argument in arguments if "=" not in argument and not argument.startswith(("-", "+", "~"))]
    others = [argument for argument in arguments if argument not in names]
    return [*others, *([f"task=[{','.join(names)}]"] if names else [])]


def main(arguments: Sequence[str]) -> None:
    """Report on the terminal, and exit."""
    wrong = False
    with report_errors("check", explain_composing):
        overrides = read_arguments(arguments)
        check_input(overrides)
        tree: Any = OmegaConf.to_container(compose_conf(*overrides), resolve=True)
        settings = read_settings(fill_in_known(tree))
        for name in settings.tasks:
            lines, advice = run_apart(partial(_report, settings), name, who=f"task.{name}")
            print(f"{name}", *(f"  {line}" for line in lines), sep="\n")
            print("  to change:" if advice else "  nothing to change", *(f"  - {line}" for line in advice), sep="\n")
            wrong = wrong or bool(advice)
    sys.exit(int(wrong))
