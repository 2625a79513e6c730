"""What the default run says of `heat`: how its routes fare, and its claims."""

import json
from pathlib import Path

from benchmarks.extent import pick
from benchmarks.sweeps import run_sweep
from benchmarks.tables import number, table

_WORDS = pick(
    (), ("data.targets=4", "hybrid.targets=256", "diagnose.targets=2", "diagnose.starts=1", "diagnose.points=21")
)


def decided_by_default() -> str:
    """Markdown: two tables."""
    with run_sweep(_WORDS, ["heat"], 1, ("tracking=off",)) as (sweep, _):
        return tell_files(next(sweep.glob("*/project/outputs/heat")) / "evaluate")


def tell_files(made: Path) -> str:
    """The same of what the stage `evaluate` and the claims have written."""
    routes, claims, texts = (
        json.loads((made / name).read_text(encoding="utf-8"))
        for name in ("metrics.json", "claims/metrics.json", "claims/claims.json")
    )
    shown = ("miss_median", "believed_miss_median", "simulations")
    rows = [
        [name, f"{one['solved_fraction']:.1%}", *(number(one[key]) for key in shown)] for name, one in routes.items()
    ]
    head = ["route", "solved", "median miss", "median believed miss", "simulations"]
    verdicts = [[key, texts[key]["says"], one["verdict"], texts[key]["because"]] for key, one in claims.items()]
    return "\n\n".join(
        [
            f"`aimback 'task=[heat]'`: {routes['direct']['targets']} targets, every cell drawn by itself.",
            table(head, rows),
            table(["", "claim", "verdict", "because"], verdicts, words=4),
        ]
    )
