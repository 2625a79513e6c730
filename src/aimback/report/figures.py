"""The figures of a page: their order, what each is for, and how they get into a file that needs no other."""

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aimback.report.result import TaskResult

Place = Literal["lead", "pair", "more"]


@dataclass(frozen=True)
class Kind:
    """A figure that a task may have.

    Attributes:
        title: over the figure.
        caption: what to look for.
        place: "lead" fills the width, "pair" shares it, "more" is folded away.
    """

    title: str
    caption: str
    place: Place


KINDS = {
    "surfaces": Kind(
        "The two losses",
        "The loss of one target over the controls, true and through the network: see whether the descents end where "
        "the true one is least (open rings: starts, diamonds: ends). Height is the loss, shade its logarithm; turning "
        "one turns the other.",
        "lead",
    ),
    "sweep": Kind(
        "The target sweeps",
        "The same two losses while the target moves through its range, with descents from the same four starts (rings: "
        "starts, stars: ends): see where the network's valley leaves the true one, and what its best answer misses by. "
        "With more than two controls the shades are a slice, and the paths are seen through it.",
        "lead",
    ),
    "trajectories": Kind(
        "Flown again",
        "Answers to a few targets, re-simulated: see how far from its cross each one ends.",
        "lead",
    ),
    "basins": Kind(
        "From where it works",
        "The share of targets that are truly hit from each start: bright is all of them, and the number the mean over "
        "the box. See whether there are corners from which a route fails.",
        "lead",
    ),
    "miss": Kind(
        "How far the answers miss",
        "The share of targets missed by at most so much: further left is better, and what is left of the dotted line "
        "is solved.",
        "pair",
    ),
    "loss": Kind(
        "Step by step",
        "The same descents twice: what each route believes, and what is true (median, 10 % to 90 % of targets); where "
        "only the truth flattens, the route's own map is the limit and not the solver.",
        "pair",
    ),
    "r_t": Kind(
        "The best of T candidates",
        "The published metric r_T: the least squared miss among the T candidates that a route ranks first (median, "
        "quartiles of targets). Lower is better; a flat curve gains nothing from more simulations.",
        "pair",
    ),
    "iterations": Kind(
        "Plain gradient descent",
        "C2: how fast the starts truly hit, each route at its own best step size, and how much it depends on it.",
        "pair",
    ),
    "belief": Kind(
        "Belief and truth",
        "C1: every answer of the surrogate route, by what it believed and what is true. In the upper left lie those "
        "that it took for hits and that miss.",
        "more",
    ),
    "conditioning": Kind(
        "Conditioning",
        "C6: how badly conditioned the descents are, and the curvature at the solutions (medians, 10 % to 90 %); an "
        "eigenvalue near zero is a direction along which all is equally good.",
        "more",
    ),
    "gradients": Kind(
        "Gradients",
        "C7: the simulator's gradient against central differences of several widths (a V is what rounding and "
        "curvature make of a right one), and whether the network's gradient points the same way.",
        "more",
    ),
    "training": Kind(
        "How the network learned",
        "Two curves drawing apart would mean that it learns examples by heart, both flat that more training does not "
        "help.",
        "more",
    ),
}


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
