"""The report: a page that is one file and needs no network, the same in Markdown, and the costs as JSON."""

import base64
import csv
import hashlib
import html
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from aimback.core.duration import duration
from aimback.core.files import write_text
from aimback.report.calculator import list_demands
from aimback.report.canvas import COLOURS
from aimback.report.costs import list_costs, list_metrics, list_prepared_routes, share_seconds, sum_fixed_seconds
from aimback.report.figures import list_figures, list_left_out
from aimback.report.interactive import read_script
from aimback.report.provenance import Provenance
from aimback.report.result import TaskResult
from aimback.report.rows import (
    amount,
    findings,
    interval,
    over_seeds,
    place_spread,
    statuses,
    summary,
    summary_columns,
    table,
    tabulate_published,
)
from aimback.report.text import number, percent
from aimback.report.verdict import RULE, TRUST, choose, describe_targets, list_reasons, list_remarks, winner

LISTED = 20
_CARRIED = 2_000_000  # bytes of a table that a page has inside it
_STYLED = ("surrogate", "direct", "hybrid")  # whose colours, light and dark, stand in report.css


def write_report(
    results: Sequence[TaskResult], *, page: Path, markdown: Path, costs: Path, provenance: Provenance | None = None
) -> None:
    """Write the HTML page, the Markdown file and the costs as JSON.

    The page embeds its figures, its numbers and Plotly; the Markdown file links to the still figures where they lie.
    """
    routes = list(results[0].routes)
    compared, believed = (any(result.is_believed == one for result in results) for one in (False, True))
    whole = {result.name: {route: list_costs(result, route) for route in result.routes} for result in results}
    demands = list_demands(results)
    content = {
        "results": [_content(result, markdown.parent) for result in results],
        "summary": summary(results),
        "columns": summary_columns(results[0]),
        "findings": findings(results),
        "routes": routes,
        "kinds": {name: route.kind for name, route in results[0].routes.items()},
        "colours": {route: COLOURS[route] for route in routes},
        "other_colours": {route: COLOURS[route] for route in routes if route not in _STYLED},
        "compared": compared,
        "rule": " ".join([*([RULE] if compared else []), *([TRUST] if believed else [])]),
        "demands": demands,
        "provenance": provenance or Provenance(),
        "downloads": [*_list_tables(results), *_list_answers(results)],
    }
    templates = _templates(autoescape=True)
    # Only these may run, told by their hashes: nothing that a user's file holds can.
    scripts = [_inert(read_script()), templates.get_template("report.js").render()]
    allowed = " ".join(_source(text) for text in scripts)
    write_text(page, templates.get_template("report.html").render(content, scripts=scripts, allowed=allowed))
    write_text(markdown, _templates(autoescape=False).get_template("report.md").render(content))
    write_text(costs, json.dumps(whole, indent=1, allow_nan=False) + "\n")


def _list_tables(results: Sequence[TaskResult]) -> list[tuple[str, str]]:
    """The numbers of all routes: the name of a file, and the file as a link."""
    whole = {
        result.name: {
            "routes": {route: {**result.metrics[route], **list_costs(result, route)} for route in result.routes},
            "claims": {claim.key: {**claim.texts(), **claim.metrics()} for claim in result.claims},
        }
        for result in results
    }
    lines = io.StringIO()
    rows = csv.writer(lines, lineterminator="\n")
    rows.writerow(["task", "route", "measure", "value"])
    for result in results:
        for route in result.routes:
            rows.writerows([result.name, route, *pair] for pair in list_metrics(result, route).items())
    return [
        ("numbers.json", _link("application/json", json.dumps(whole, indent=1).encode())),
        ("numbers.csv", _link("text/csv", lines.getvalue().encode())),
    ]


def _list_answers(results: Sequence[TaskResult]) -> list[tuple[str, str]]:
    """The tables of answers that are small enough to be carried along."""
    tables = [(result.name, result.answers) for result in results if result.answers is not None]
    return [
        (f"{name}-answers.csv", _link("text/csv", table.read_bytes()))
        for name, table in tables
        if table.stat().st_size <= _CARRIED
    ]


def _link(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def note(result: TaskResult) -> str:
    """Verdict and table of one task in Markdown."""
    content = {"name": result.name, "choice": choose(result), "reasons": list_reasons(result), "rows": table(result)}
    template = _templates(autoescape=False).get_template("note.md")
    return template.render(result=content, routes=list(result.routes), rule=TRUST if result.is_believed else RULE)


def claims_note(result: TaskResult) -> str:
    """Verdict and claims of one task in Markdown."""
    content = {
        "name": result.name,
        "choice": choose(result),
        "reasons": list_reasons(result),
        "claims": result.claims,
        "left_out": result.left_out,
    }
    return _templates(autoescape=False).get_template("claims_note.md").render(result=content)


def _templates(*, autoescape: bool) -> jinja2.Environment:
    """What every template is rendered in: HTML with `autoescape`, Markdown without."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("aimback.report"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "number": number,
        "percent": percent,
        "duration": duration,
        "amount": amount,
        "interval": interval,
        "over_seeds": over_seeds,
        "spread": place_spread,
        "cell": _cell,
    }
    return templates


def _cell(text: str) -> str:
    """Text inside a Markdown table: what a user's file holds must not become markup."""
    safe = html.escape(" ".join(str(text).split()), quote=False)
    # Underscores inside a name are text already.
    return re.sub(r"[\\`*\[\]|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", safe)


def _content(result: TaskResult, home: Path) -> dict[str, Any]:
    figures = list_figures(result, home)
    return {
        "name": result.name,
        "winner": winner(result),
        "is_believed": result.is_believed,
        "choice": choose(result),
        "reasons": list_reasons(result),
        "remarks": [] if result.is_believed else list_remarks(result),
        "unit": result.unit,
        "asked": describe_targets(result),
        "metrics": result.metrics,
        "each": {route: share_seconds(result, route) for route in result.routes},
        "fixed": {route: sum_fixed_seconds(result, route) for route in list_prepared_routes(result)},
        "scene": result.scene,
        "rows": table(result),
        "statuses": statuses(result),
        "published": tabulate_published(result),
        "sources": list(dict.fromkeys(row.source for row in result.published)),
        "claims": result.claims,
        "left_out": [*result.left_out, *(f"the figure “{title}”" for title in list_left_out(result))],
        "unsolved": result.unsolved[:LISTED],
        "more": max(0, len(result.unsolved) - LISTED),
        "meters": result.meters,
        "figures": figures,
        "places": {place: [one for one in figures if one.kind.place == place] for place in ("lead", "pair", "more")},
    }


def _inert(text: str) -> str:
    """A script that an HTML parser reads to its end."""
    return text.replace("\r\n", "\n").replace("</script", "<\\/script")


def _source(text: str) -> str:
    """What a Content-Security-Policy calls a script: its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
