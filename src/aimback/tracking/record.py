"""What one MLflow run is to hold, said without MLflow."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Series = Sequence[tuple[int, float]]

# MLflow allows 250 characters of a param's name and 6000 of its value; a table stays readable with less.
KEY_LENGTH = 250
VALUE_LENGTH = 500


@dataclass(frozen=True)
class Data:
    """A file of examples or targets, for the Dataset column.

    Args:
        name: e.g. "cannon_drag data".
        digest: of the file's bytes; the first 16 characters are kept.
        rows: how many examples it holds.
        context: what the run did with it: "training", "targets".
    """

    name: str
    digest: str
    rows: int
    context: str


@dataclass(frozen=True)
class Model:
    """A trained surrogate to be logged as a model that loads back by itself.

    Args:
        name: what it is registered under.
        weights: the safetensors file; its checksum file lies beside it.
        checksum: the checksum file.
        task: the section of the config that describes the task which the weights belong to.
        inputs: names of the columns that go in: controls, then conditions.
        outputs: names of the outcomes.
        example: one row of inputs.
    """

    name: str
    weights: Path
    checksum: Path
    task: Mapping[str, object]
    inputs: Sequence[str]
    outputs: Sequence[str]
    example: Sequence[float]


@dataclass(frozen=True)
class Run:
    """One run of a set. Runs of all routes have equal names of params, metrics and series.

    Args:
        state: key of the pipeline state that the set belongs to.
        kind: "route" for what is compared, "training" for how a network came to be, "diagnosis" for the claims.
        task: the task's name.
        route: its name; "training" and "proposer" for the trainings, "diagnosis" for the claims.
        params: flat names to values, see `flatten`.
        metrics: final values; None and values that are not finite are left out and named in a tag.
        series: values by step; thinned to a bounded number of points.
        seconds: what the run says it took; None for the time that writing it takes.
        note: Markdown, the run's description.
        artifacts: files to attach, by folder inside the run ("" for its root).
        data: the files that went in.
        model: the trained surrogate, where the run has one.
        training: key of the training, so that the run which `LiveTraining` wrote is taken over
            instead of written again.
        tags: further ones.
    """

    state: str
    kind: Literal["route", "training", "diagnosis"]
    task: str
    route: str
    params: Mapping[str, str]
    metrics: Mapping[str, float | None]
    series: Mapping[str, Series]
    seconds: float | None = None
    note: str = ""
    artifacts: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    data: Sequence[Data] = ()
    model: Model | None = None
    training: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Runs of different states are told apart by its end."""
        return f"{run_name(self.task, self.route)} · {self.state[:6]}"


def run_name(task: str, route: str) -> str:
    return f"{task} · {route}"


def tag_run(kind: str, task: str, route: str, params: Mapping[str, str]) -> dict[str, str]:
    """The tags by which a run is found."""
    return {"kind": kind, "task": task, "route": route, "params_digest": digest(params)}


def digest(params: Mapping[str, str]) -> str:
    """A short name for a set of params: equal params, equal digest."""
    return hashlib.sha256(json.dumps(dict(params), sort_keys=True).encode()).hexdigest()[:16]


def flatten(config: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """A nested config as flat params: {"starts": {"number": 8}} -> {"starts.number": "8"}.

    Long values are cut, with an ellipsis.
    """
    flat: dict[str, str] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{key}."))
        else:
            text = str(value)
            flat[key[:KEY_LENGTH]] = text if len(text) <= VALUE_LENGTH else text[: VALUE_LENGTH - 1] + "…"
    return flat


def finite(metrics: Mapping[str, float | None]) -> tuple[dict[str, float], list[str]]:
    """The metrics that have a finite value, and the names of the others.

    MLflow would store an infinity as 1.8e308, and a chart would believe it.
    """
    kept = {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}
    return kept, [name for name in metrics if name not in kept]


def without_tail(series: Series) -> Series:
    """The series up to where its last value begins: a chart then shows what happens, not what has stopped."""
    last = len(series) - 1
    while last > 0 and series[last - 1][1] == series[last][1]:
        last -= 1
    return series[: last + 1]


def thin(series: Series, points: int) -> Series:
    """At most `points` of a series, evenly spread, the first and the last among them."""
    if len(series) <= points:
        return series
    last = len(series) - 1
    return [series[round(index * last / (points - 1))] for index in range(points)]
