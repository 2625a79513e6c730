"""What a terminal shows of a run at its end."""

from collections.abc import Sequence

from aimback.core.duration import duration
from aimback.report.costs import share_seconds
from aimback.report.result import TaskResult
from aimback.report.text import DASH, align, percent, say_amount
from aimback.report.verdict import name_rows, verdict

_COLUMNS = ("task", "route", "solved", "median miss", "time a target")


def summarise(results: Sequence[TaskResult]) -> str:
    """A table of routes by tasks, the first sentence of each verdict, and the rows that no route can do anything about;
    the report has the rest."""
    cells = [_COLUMNS, *(row for result in results for row in _list_rows(result))]
    table = align(cells, 2)
    verdicts = [verdict(result).partition("\n")[0] for result in results]
    return "\n".join([*table, *verdicts, *(line for result in results for line in name_rows(result))])


def _list_rows(result: TaskResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for place, (route, measured) in enumerate(result.metrics.items()):
        believed = result.is_believed
        share = percent(measured["believed_fraction" if believed else "solved_fraction"])
        miss = measured["believed_miss_median" if believed else "miss_median"]
        seconds = share_seconds(result, route)
        rows.append(
            (
                "" if place else result.name,
                route,
                f"{share} believed" if believed else share,
                say_amount(miss, result.unit),
                DASH if seconds is None else duration(seconds),
            )
        )
    return rows
