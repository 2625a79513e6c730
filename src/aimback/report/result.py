"""What a run found out about a task, read from what its stages wrote."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aimback.core.errors import UserError
from aimback.core.files import sha256
from aimback.data.dataset import load_dataset
from aimback.data.exactness import error_note
from aimback.diagnose.claim import Claim, Estimate
from aimback.evaluate.tables import AnswerRow, Array, read_answers, read_columns
from aimback.report.published import PublishedRow
from aimback.report.scene import Scene, read_scene
from aimback.report.text import number
from aimback.settings.tree import Settings
from aimback.tasks.base import Task

_CURE = "run `dvc repro` to make it anew"


@dataclass(frozen=True)
class Route:
    """What a route is, and which meters tell what it takes.

    Attributes:
        kind: "surrogate", "direct" or "hybrid".
        prepared: the ledger of what the simulator was asked for before the first target, where there is one.
        solving: the meter of what it takes target by target.
        fixed: the meters of what is paid for once, however many targets are asked, by what their seconds are called.
        learns_jacobians: whether its network learns from Jacobians of the simulator.
    """

    kind: str
    solving: str
    fixed: Mapping[str, str]
    prepared: str = ""
    learns_jacobians: bool = False


@dataclass(frozen=True)
class Unsolved:
    """A target without a solution: which one, by which route, and why.

    Attributes:
        row: its line in the user's file, or its number among the drawn targets ("drawn 17").
        route: "all" where none can do anything about it.
    """

    row: str
    route: str
    status: str
    reason: str


@dataclass(frozen=True)
class TaskResult:
    """What a run found out about one task.

    Attributes:
        name: the task's name.
        routes: by name, in the order to be shown.
        unit: of every miss, see `Task.miss_unit`.
        tolerance: the miss at which a target counts as solved.
        metrics: by route, as `evaluate` wrote them.
        meters: by stage, those that are there, each with its date: a stage restored from a cache has none.
        unsolved: what is not solved; invalid rows first, merely missed targets last.
        claims: what became of each claim; empty where they were not examined.
        figures: still figures (PNG), in the order to be shown, and the moving one (GIF).
        panels: interactive figures (JSON) by name.
        caution: what to know of the simulator's own error; "" where it is small against the tolerance.
        published: what a paper says of methods on this task.
        scene: one of its targets; None where none was answered.
        misses: by route, of the targets that can be solved and were answered, as far as `answers` lists them.
        prepared: by route, the simulations that were made before the first target.
        left_out: the claims that `budget.simulations` left no room for.
        answers: the table of answers, of a great many those of the first targets.
        listed: the share of the targets that `answers` lists.
        rounds: by route, the columns of its rounds.csv, where it has made any.
    """

    name: str
    routes: Mapping[str, Route]
    unit: str
    tolerance: float
    metrics: Mapping[str, Mapping[str, Any]]
    meters: Mapping[str, Mapping[str, Any]]
    unsolved: Sequence[Unsolved]
    claims: Sequence[Claim]
    figures: Sequence[Path]
    panels: Mapping[str, Path]
    caution: str = ""
    published: Sequence[PublishedRow] = ()
    scene: Scene | None = None
    misses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    prepared: Mapping[str, int] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    answers: Path | None = None
    listed: float = 1.0
    rounds: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)

    @property
    def direct(self) -> str | None:
        """The direct route that the others are held against, where there is one."""
        return next((name for name, route in self.routes.items() if route.kind == "direct"), None)

    @property
    def is_believed(self) -> bool:
        """Whether there was no simulator, so that no answer is known to be right and no route to be better."""
        return "believed_fraction" in self.any_metrics

    @property
    def any_metrics(self) -> Mapping[str, Any]:
        """Those of one route, for what is the same for all of them."""
        return next(iter(self.metrics.values()))


def list_routes(settings: Settings) -> dict[str, Route]:
    """The routes as configured, with the meters of their stages."""
    routes = {}
    for name, route in settings.invert.items():
        paid = {"seconds_generate": "generate", "seconds_train": f"train-{route.network}"}
        learns = settings.train[route.network].training.learns_jacobians
        routes[name] = Route("surrogate", f"invert-{name}", paid, learns_jacobians=learns)
    for name in settings.optimise:
        routes[name] = Route("direct", f"optimise-{name}", {})
    for name, refined in settings.refine.items():
        routes[name] = Route(
            "hybrid",
            f"refine-{name}",
            {"seconds_train": f"amortise-{refined.network}"},
            f"routes/proposers/{refined.network}/ledger.json",
        )
    return routes


def read_result(
    name: str,
    task: Task,
    routes: Mapping[str, Route],
    *,
    metrics: Path,
    answers: Path,
    meters: Path,
    results: Path,
    diagnosis: Path | None,
    figures: Path,
    panels: Path,
    published: Sequence[PublishedRow] = (),
) -> TaskResult:
    """Gather what the stages wrote about a task.

    Args:
        metrics: the JSON file of the evaluation.
        answers: its CSV file of answers: columns "route", "target", "line", "status", "miss", "problem".
        meters: a folder with a JSON file a stage; one that measured another result than the one that is
            there (a stage was restored from a cache since) is left out.
        results: the folder below which the metered results lie.
        diagnosis: a folder with the claims, `metrics.json` and `claims.json`; None where none were examined.
        figures: a folder of PNG and GIF files.
        panels: a folder of Plotly's JSON files; it may not be there.

    Raises:
        UserError: a file is missing or damaged.
    """
    measured, rows = _read_json(metrics), read_answers(answers)
    files = {name: results / "routes" / name / "revision" / "rounds.csv" for name in routes}
    rounds = {name: table for name, file in files.items() if file.is_file() and (table := read_columns(file))}
    return TaskResult(
        name=name,
        routes=routes,
        unit=task.miss_unit,
        tolerance=task.tolerance,
        metrics=measured,
        meters=_read_meters(meters, results),
        unsolved=_list_unsolved(rows, task.has_simulator),
        claims=[] if diagnosis is None else _read_claims(diagnosis / "metrics.json", diagnosis / "claims.json"),
        left_out=[] if diagnosis is None else _read_json(diagnosis / "claims.json").get("left_out", []),
        figures=sorted(file for file in figures.glob("*") if file.suffix in (".png", ".gif")),
        panels={file.stem: file for file in sorted(panels.glob("*.json"))},
        caution=_caution(name, task, measured),
        published=published,
        scene=read_scene(answers, task) if task.has_simulator else None,
        misses={name: [row.miss for row in rows if row.route == name and math.isfinite(row.miss)] for name in routes},
        prepared={
            name: _count_prepared(route, measured[name], results, task, learns=name in rounds)
            for name, route in routes.items()
        },
        answers=answers,
        listed=(rows[-1].target + 1) / next(iter(measured.values()))["targets"] if rows else 1.0,
        rounds=rounds,
    )


def _count_prepared(route: Route, metrics: Mapping[str, Any], results: Path, task: Task, learns: bool) -> int:
    if route.prepared:
        return int(_read_json(results / route.prepared)["simulations"])
    if not learns:
        return int(metrics["training_examples"])
    dataset = load_dataset(results / "data" / "dataset.npz", task)  # the others were simulated for the targets
    return (len(dataset) + dataset.n_left_out) * task.price_example(jacobian=route.learns_jacobians)


def _caution(name: str, task: Task, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """By the route whose answers lie where the simulator is least exact."""
    errors = [
        (greatest, route["simulation_error_median"])
        for route in metrics.values()
        if (greatest := route.get("simulation_error_max", 0.0)) != 0.0
    ]
    greatest, middle = max(errors, key=lambda error: math.inf if error[0] is None else error[0], default=(0.0, 0.0))
    return error_note(name, task, middle, greatest)


def _read_meters(folder: Path, results: Path) -> dict[str, dict[str, Any]]:
    meters = {
        file.stem: _read_json(file) | {"date": datetime.fromtimestamp(file.stat().st_mtime, UTC)}
        for file in sorted(folder.glob("*.json"))
    }
    return {
        stage: meter
        for stage, meter in meters.items()
        if (result := results / meter["result"]).is_file() and sha256(result) == meter["result_sha256"]
    }


def _read_claims(numbers: Path, texts: Path) -> list[Claim]:
    said = _read_json(texts)
    claims = []
    for key, entry in _read_json(numbers).items():
        try:
            given = dict(entry)
            verdict = given.pop("verdict")
            value, low, high, seeds = (given.pop(field.name) for field in fields(Estimate))
            measured = Estimate(value, low, high, tuple(seeds))
            claim = Claim(key=key, number=measured, details=given, **said[key])
            if verdict != claim.verdict:
                raise ValueError(f"verdict {verdict!r}")
            claims.append(claim)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{numbers}: {key} cannot be read ({error}); {_CURE}") from error
    return claims


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {_CURE}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not what was written there; {_CURE}")
    return content


def _list_unsolved(rows: Sequence[AnswerRow], simulated: bool) -> list[Unsolved]:
    unsolved = []
    for row in rows:
        if row.status in ("solved", "believed"):
            continue
        place = f"line {row.line}" if row.line else f"drawn {row.target + 1}"
        if row.problem and row.route != rows[0].route:
            continue  # said once: no route can do anything about it
        found = f"miss {number(row.miss)}" if simulated else "no answer in the box that the network takes for a hit"
        reason = row.problem or found
        unsolved.append(Unsolved(place, "all" if row.problem else row.route, row.status, reason))
    # First what a person can mend, last what only says that the network is not exact.
    return sorted(unsolved, key=lambda target: (target.status != "invalid_input", target.status == "missed"))
