"""The figures of the measurements, in the style of the report's."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from aimback.report.canvas import COLOURS, new_figure
from benchmarks.extent import pick

FOLDER = pick(Path(__file__).with_name("figures"), Path(tempfile.gettempdir()))
_MARKS = "osD^vP*X<>ph"
_LINES = ("-", "--", ":", "-.")
_INKS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")


def plot_speed(name: str, speeds: Mapping[str, Mapping[int, float]]) -> str:
    """Targets a second against the number of targets, a line a peer; returns what shows it in Markdown.

    Args:
        speeds: by peer and number of targets, the fastest peer at the top of the legend.
    """
    FOLDER.mkdir(exist_ok=True)
    with new_figure(FOLDER / name, (10, 6)) as figure:
        axes = figure.add_subplot()
        ours = others = 0
        for peer, points in sorted(speeds.items(), key=lambda item: -max(item[1].values())):
            mark = _MARKS[len(axes.lines) % len(_MARKS)]
            if peer.startswith("aimback"):
                line, colour, width = _LINES[ours % len(_LINES)], COLOURS["direct"], 2.4
                ours += 1
            else:
                line, colour, width = _LINES[1 + others // len(_INKS) % 3], _INKS[others % len(_INKS)], 1.4
                others += 1
            axes.plot(list(points), list(points.values()), line, marker=mark, color=colour, label=peer, lw=width)
        axes.set(xscale="log", yscale="log", xlabel="targets asked for at once", ylabel="targets a second")
        axes.set_title("cannon_drag, unknown angle, one thread, compilation not counted", loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return f"![Targets a second against the number of targets](figures/{name})"


def plot_break_even(name: str, panels: Sequence[str], costs: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Seconds against the number of targets; returns what shows it in Markdown.

    Args:
        panels: their titles.
        costs: by route, for each panel the fixed seconds and those a target.
    """
    FOLDER.mkdir(exist_ok=True)
    asked = [10 ** (step / 20) for step in range(6 * 20 + 1)]
    with new_figure(FOLDER / name, (4 * len(panels), 4.2)) as figure:
        for place, title in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), place + 1)
            inks = iter((COLOURS["surrogate"], *_INKS))
            for route, terms in costs.items():
                fixed, each = terms[place]
                direct = route == "direct"
                ink = COLOURS["direct"] if direct else next(inks)
                axes.plot(
                    asked, [fixed + each * count for count in asked], "-" if direct else "--", color=ink, label=route
                )
            axes.set(xscale="log", yscale="log", xlabel="targets", ylabel="seconds in all", title=title)
            axes.legend(fontsize=9)
    return f"![Seconds against the number of targets, by route](figures/{name})"


def plot_misses(name: str, points: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Misses against forward errors, a line a task; returns what shows it in Markdown.

    Args:
        points: by task, for each number of examples the forward error and the miss in tolerances.
    """
    FOLDER.mkdir(exist_ok=True)
    with new_figure(FOLDER / name, (9, 5)) as figure:
        axes = figure.add_subplot()
        for place, (task, pairs) in enumerate(points.items()):
            ink, mark = _INKS[place % len(_INKS)], _MARKS[place % len(_MARKS)]
            axes.plot(*zip(*pairs, strict=True), marker=mark, color=ink, ls=_LINES[place // len(_INKS)], label=task)
        axes.axhline(1, color="grey", lw=1)
        axes.set(xscale="log", yscale="log", xlabel="forward error over the spread of the outcomes")
        axes.set_ylabel("median true miss, in tolerances")
        axes.set_title("from the right: more and more examples", loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return f"![True miss against forward error, by task](figures/{name})"


def plot_coverage(name: str, kept: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """How many believed hits keep their bounds, a mark a seed; returns what shows it in Markdown.

    Args:
        kept: by kind of bound, by task, per cent for each seed.
    """
    FOLDER.mkdir(exist_ok=True)
    with new_figure(FOLDER / name, (9, 5)) as figure:
        axes = figure.add_subplot()
        for place, (kind, shares) in enumerate(kept.items()):
            marks = [(share, task) for task, seeds in shares.items() for share in seeds]
            axes.plot(*zip(*marks, strict=True), _MARKS[place], color=_INKS[place], alpha=0.7, label=kind)
        axes.axvline(90, color="grey", lw=1)
        axes.set_xlabel("believed hits that keep their bounds, per cent")
        axes.invert_yaxis()
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return f"![Share of believed hits that keep their bounds, by task](figures/{name})"
