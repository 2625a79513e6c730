"""Who keeps which promise: stated rules, each with the numbers that decide it.

A verdict rests on means over seeds, and only where every seed has a finite value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aimback.contest.published import find_published
from aimback.contest.records import Contest
from aimback.contest.summary import ADJOINT, DIRECT, over_seeds, per_target
from aimback.contest.text import against, count, multiple, power

PUBLISHED_ADJOINT = "NA"
SECOND_ORDER = "second_order"

REPRODUCED = 2.0
BEATEN = 10.0
EXACT = 1e-12
# The readout that gives the last point of a time grid; what an exact impact scores by it (the page explains it).
GRID_SCORED = ("ballistics",)
GRID_FLOOR = 2e-5
GRID_ABOUT = 2.0

REPRODUCES = f"Our Neural-Adjoint is within {REPRODUCED:g} times the published r_1 and r_50, or better."
BEATS = (
    f"Our best surrogate route (`{SECOND_ORDER}`) is at least {BEATEN:g} times below the published NA r_1, "
    "with no more examples and fewer evaluations of the network than our NA."
)
HITS = (
    f"The direct route's r_1 is below {power(EXACT)}; where the published grid scores the impact, "
    f"it is about {power(GRID_FLOOR)} (within {GRID_ABOUT:g} times), which is what an exact impact scores there."
)


@dataclass(frozen=True)
class Verdict:
    """Whether a promise is kept on one task.

    Attributes:
        claim: the rule.
        task: where.
        holds: None where a number that decides is missing.
        numbers: those that decide, in words.
    """

    claim: str
    task: str
    holds: bool | None
    numbers: str


def verdicts(contest: Contest) -> list[Verdict]:
    """Every rule on every task to which it applies: the first two only where the field has published an r_1."""
    judged: list[Verdict] = []
    for rule in (reproduces, beats, hits):
        judged += [verdict for task in contest.tasks if (verdict := rule(contest, task)) is not None]
    return judged


def reproduces(contest: Contest, task: str) -> Verdict | None:
    """Rule 1: NA as strong as published, or stronger; None where nothing was published."""
    known = find_published(contest.published, task, PUBLISHED_ADJOINT)
    if known is None:
        return None
    numbers, held = [], []
    for name, published in (("r_1", known.r_1), ("r_50", known.r_50)):
        mine = over_seeds(contest, task, ADJOINT, name).whole
        if published is not None:
            numbers.append(f"{name} {against(mine, published, 'published')}")
            held.append(None if mine is None else mine <= REPRODUCED * published)
    return Verdict(REPRODUCES, task, _all(held), "; ".join(numbers))


def beats(contest: Contest, task: str) -> Verdict | None:
    """Rule 2: the better surrogate route, by accuracy and by cost; None where nothing was published."""
    known = find_published(contest.published, task, PUBLISHED_ADJOINT)
    if known is None:
        return None
    r_1 = over_seeds(contest, task, SECOND_ORDER, "r_1").whole
    held: list[bool | None] = [None if r_1 is None else r_1 <= known.r_1 / BEATEN]
    numbers = [f"r_1 {against(r_1, known.r_1, 'published')}"]
    examples, adjoint_examples = (
        over_seeds(contest, task, method, "training_examples").whole for method in (SECOND_ORDER, ADJOINT)
    )
    held.append(None if examples is None or adjoint_examples is None else examples <= adjoint_examples)
    numbers.append(f"examples {count(examples)} against {count(adjoint_examples)}")
    spent, adjoint_spent = (
        per_target(contest, task, method, "evaluations").whole for method in (SECOND_ORDER, ADJOINT)
    )
    held.append(None if spent is None or adjoint_spent is None else spent < adjoint_spent)
    fewer = f" ({multiple(spent, adjoint_spent)})" if spent and adjoint_spent else ""
    numbers.append(f"evaluations a target {count(spent)} against {count(adjoint_spent)}{fewer}")
    return Verdict(BEATS, task, _all(held), "; ".join(numbers))


def hits(contest: Contest, task: str) -> Verdict:
    """Rule 3: the direct route solves the task itself, and scores what the readout allows."""
    r_1 = over_seeds(contest, task, DIRECT, "r_1").whole
    if task in GRID_SCORED:
        holds = None if r_1 is None else GRID_FLOOR / GRID_ABOUT <= r_1 <= GRID_FLOOR * GRID_ABOUT
        return Verdict(
            HITS, task, holds, f"r_1 {power(r_1)}; the grid scores exact impacts at about {power(GRID_FLOOR)}"
        )
    return Verdict(HITS, task, None if r_1 is None else r_1 < EXACT, f"r_1 {power(r_1)}")


def _all(held: Sequence[bool | None]) -> bool | None:
    """Three-valued "and": one broken promise decides, whatever is missing."""
    if any(part is False for part in held):
        return False
    return True if held and all(held) else None
