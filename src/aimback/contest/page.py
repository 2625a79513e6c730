"""The results page in Markdown: what was run, who keeps which promise, and every number behind it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aimback.contest.records import Clock, Contest
from aimback.contest.summary import ADJOINT, DIRECT, Spread, over_seeds, per_target, quality_law, repaid_at, spread
from aimback.contest.text import over, power
from aimback.contest.verdicts import GRID_SCORED, Verdict, hits, verdicts
from aimback.report.tables import Row
from aimback.report.text import DASH, NEVER, environment, number, percent

BOUNDARIES = (ADJOINT, "no_boundary", "hard_box")


@dataclass(frozen=True)
class Configuration:
    """What made the page, as a reader needs it to make it again.

    Attributes:
        profile: the name of the contest's size.
        commit: of the source.
        device: as people call it.
        threads: CPU threads.
        versions: of what computes, by name.
        remarks: what the profile changes against the published protocol, a sentence each.
    """

    profile: str
    commit: str
    device: str
    threads: int
    versions: Mapping[str, str]
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Shot:
    """One shot of the trebuchet with its gradient.

    Attributes:
        distance: in m.
        by_wind: in m per m/s.
        by_angle: in m per `angle_unit`.
        by_weight: in m per lb.
        angle_unit: of the release angle in the gradient.
    """

    distance: float
    by_wind: float
    by_angle: float
    by_weight: float
    angle_unit: str = "rad"


@dataclass(frozen=True)
class Trebuchet:
    """The same shot twice: by the published program, and by the physics solved to convergence."""

    shot: str
    program: Shot
    converged: Shot


def results_page(
    contest: Contest,
    configuration: Configuration,
    *,
    clocks: Sequence[Clock],
    trebuchet: Trebuchet | None,
    figures: Mapping[str, str],
) -> str:
    """The whole page in Markdown.

    Args:
        contest: everything measured and published.
        clocks: stages' times, any number a task and stage (seeds); empty leaves the table out.
        trebuchet: its two shots; None leaves the paragraph out.
        figures: links by figure: "r_t", "quality", "ledger"; one that is not there is left out.
    """
    judged = verdicts(contest)
    page = (
        environment(autoescape=False)
        .get_template("contest.md")
        .render(
            configuration=configuration,
            seeds=sorted({run.seed for run in contest.runs}),
            sizes=size_table(contest),
            claims=[
                {"rule": claim, "lines": [_line(verdict) for verdict in judged if verdict.claim == claim]}
                for claim in dict.fromkeys(verdict.claim for verdict in judged)
            ],
            tasks=contest.tasks,
            table=r_table(contest),
            sources=list(dict.fromkeys(row.source for row in contest.published)),
            laws=law_lines(contest),
            ledger=ledger_table(contest),
            boundaries=boundary_table(contest),
            boundary_missing=not any(contest.entries(task, BOUNDARIES[1]) for task in contest.tasks),
            grid=[
                {
                    "task": task,
                    "r_1": over(over_seeds(contest, task, DIRECT, "r_1")),
                    "r_50": over(over_seeds(contest, task, DIRECT, "r_50")),
                }
                for task in contest.tasks
                if task in GRID_SCORED and hits(contest, task).holds
            ],
            trebuchet=trebuchet,
            off=None if trebuchet is None else _off(trebuchet),
            times=times_table(clocks),
            stages=_stages(clocks),
            clocked=[f"{device}, {threads} thread{'' if threads == 1 else 's'}" for device, threads in _on(clocks)],
            figures=figures,
        )
    )
    # What is left out must not leave its empty lines.
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def size_table(contest: Contest) -> list[Row]:
    """Methods by targets, starts and candidates of a target, and examples: equal sizes of a task share a line."""
    rows = []
    for task in contest.tasks:
        sized: dict[tuple[str, ...], list[str]] = {}
        for method in contest.methods:
            if contest.entries(task, method):
                names = ("targets", "starts", "candidates", "training_examples")
                sizes = tuple(over(over_seeds(contest, task, method, name), number) for name in names)
                sized.setdefault(sizes, []).append(method)
        rows += [Row(task, [", ".join(methods), *sizes]) for sizes, methods in sized.items()]
    return rows


def r_table(contest: Contest) -> list[Row]:
    """Published, then measured methods; r_1 and r_50 of each task side by side."""
    rows = []
    known = {(row.task, row.method): row for row in contest.published}
    for method in dict.fromkeys(row.method for row in contest.published):
        cells = []
        for task in contest.tasks:
            row = known.get((task, method))
            cells += [power(row.r_1, 3), power(row.r_50, 3)] if row else [DASH, DASH]
        if any(cell != DASH for cell in cells):
            rows.append(Row(method, ["published", *cells]))
    for method in contest.methods:
        cells = [over(over_seeds(contest, task, method, name)) for task in contest.tasks for name in ("r_1", "r_50")]
        rows.append(Row(method, ["measured", *cells]))
    return rows


def ledger_table(contest: Contest) -> list[Row]:
    """A line a task and method: what a target costs, what the network costs once, and when it is repaid."""
    rows = []
    for task in contest.tasks:
        for method in contest.methods:
            if not contest.entries(task, method):
                continue
            solved = over_seeds(contest, task, method, "solved_fraction")
            cells = [
                method,
                over(over_seeds(contest, task, method, "training_examples"), number),
                *(
                    over(over_seeds(contest, task, method, f"simulations_per_{what}"), number)
                    for what in ("target", "start")
                ),
                *(
                    over(per_target(contest, task, method, name), number)
                    for name in ("evaluations", "gradients", "resimulations")
                ),
                over(solved, percent),
                over(over_seeds(contest, task, method, "miss_median")),
                _repaid(repaid_at(contest, task, method)),
            ]
            rows.append(Row(task, cells))
    return rows


def boundary_table(contest: Contest) -> list[Row]:
    """A line a task and treatment of the box: r_1, r_50 and the share of answers outside of it."""
    rows = []
    for task in contest.tasks:
        for method in BOUNDARIES:
            if contest.entries(task, method):
                errors = [over(over_seeds(contest, task, method, name)) for name in ("r_1", "r_50")]
                outside = over(over_seeds(contest, task, method, "outside_fraction"), percent)
                rows.append(Row(task, [method, *errors, outside]))
    return rows


def law_lines(contest: Contest) -> list[str]:
    """A sentence a task: the fitted slope; tasks without a sweep have none."""
    lines = []
    for task in contest.tasks:
        fitted = quality_law(contest, task)
        if fitted is not None:
            lines.append(f"{task}: r_1 grows as MSE to the power {fitted.slope:.2f} ({fitted.points} networks)")
    return lines


def times_table(clocks: Sequence[Clock]) -> list[Row]:
    """A line a task, a column a stage, then all stages of all seeds together; in seconds."""
    rows = []
    for task in dict.fromkeys(clock.task for clock in clocks):
        cells = []
        for stage in _stages(clocks):
            cells.append(over(_seconds(clocks, task, stage), number))
        rows.append(Row(task, [*cells, number(sum(clock.seconds for clock in clocks if clock.task == task))]))
    return rows


def _seconds(clocks: Sequence[Clock], task: str, stage: str) -> Spread:
    return spread([clock.seconds for clock in clocks if (clock.task, clock.stage) == (task, stage)])


def _stages(clocks: Sequence[Clock]) -> list[str]:
    return list(dict.fromkeys(clock.stage for clock in clocks))


def _on(clocks: Sequence[Clock]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((clock.device, clock.threads) for clock in clocks))


def _off(trebuchet: Trebuchet) -> dict[str, str]:
    """By how much the program differs from the physics, as shares of the physics."""
    pairs = {
        "distance": (trebuchet.program.distance, trebuchet.converged.distance),
        "by_weight": (trebuchet.program.by_weight, trebuchet.converged.by_weight),
    }
    return {name: f"{100 * abs(program / physics - 1):.2g} %" for name, (program, physics) in pairs.items()}


def _line(verdict: Verdict) -> Row:
    words = {True: "holds", False: "does not hold", None: "not measured"}
    return Row(verdict.task, [words[verdict.holds], verdict.numbers])


def _repaid(targets: Sequence[float]) -> str:
    return over(spread(targets), number) if all(map(_finite, targets)) else NEVER


def _finite(value: float) -> bool:
    return value < float("inf")
