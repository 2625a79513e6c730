"""The figures of a page, and how they get into a file that needs no other."""

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path

from aimback.report.captions import KINDS, Kind
from aimback.report.result import TaskResult


@dataclass(frozen=True)
class Figure:
    """A figure as the templates want it.

    Attributes:
        link: where the still one lies, from the Markdown file.
        data: the still one as a `data:` URL; "" where the page has a slider in its place.
        panels: the interactive one as JSON that may stand inside a script element; "" where there is none.
        takeaway: what it comes down to, with its numbers.
    """

    name: str
    kind: Kind
    link: str
    data: str
    panels: str
    takeaway: str


def list_figures(result: TaskResult, home: Path) -> list[Figure]:
    """The figures that a task has, in the order to be shown; `home` is where the Markdown file lies."""
    files = {file.stem: file for file in result.figures}
    return [_read_figure(name, files[name], result.panels.get(name), home) for name in KINDS if name in files]


def list_left_out(result: TaskResult) -> list[str]:
    """The titles of the figures that `budget.simulations` left no room for."""
    routes = {route.kind for route in result.routes.values()}
    drawn = {file.stem for file in result.figures}
    if not drawn or result.is_believed or "surrogate" not in routes:
        return []
    return [KINDS[name].title for name in ("surfaces", "sweep") if name not in drawn]


def _read_figure(name: str, file: Path, panels: Path | None, home: Path) -> Figure:
    live = {"panels": [], "takeaway": ""} if panels is None else json.loads(panels.read_text(encoding="utf-8"))
    still = "" if file.suffix == ".gif" else base64.b64encode(file.read_bytes()).decode("ascii")
    return Figure(
        name,
        KINDS[name],
        os.path.relpath(file, home).replace(os.sep, "/"),
        still and f"data:image/png;base64,{still}",
        _inert(json.dumps(live["panels"])) if live["panels"] else "",
        str(live["takeaway"]),
    )


def _inert(text: str) -> str:
    """JSON that no HTML parser can take for markup."""
    return text.replace("<", "\\u003c")
