"""What the contest measured, read from the files of its stages: typed, and checked while reading."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aimback.contest.published import Published
from aimback.core.errors import UserError
from aimback.core.files import sha256

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """What one method did on one task with one seed; counts are of all targets together.

    Attributes:
        r_1, r_50: r_T in raw units squared; None where it is not finite or there were fewer candidates.
        targets, starts, candidates: how many; starts and candidates of one target.
        simulations: runs of the simulator for the data set and for solving, without re-simulations.
        evaluations, gradients: of the method's own forward map (simulator or network) while solving.
        training_examples: the part of the simulations that made the network's data set; 0 without a network.
        resimulations: runs of the simulator to score the candidates.
        solved_fraction: share of targets within the task's tolerance.
        outside_fraction: share of answers outside the search box; None where it was not measured.
        miss_median: of the first-ranked answers, re-simulated, in the outcome's unit; None where not finite.
    """

    r_1: float | None
    r_50: float | None
    targets: int
    starts: int
    candidates: int
    simulations: int
    evaluations: int
    gradients: int
    training_examples: int
    resimulations: int
    solved_fraction: float
    outside_fraction: float | None
    miss_median: float | None

    @property
    def simulations_per_target(self) -> float:
        """What one more target costs in simulations, without the network's examples.

        A network's answer has to be simulated once before anyone knows its miss; a method that
        solves on the simulator has done so already.
        """
        check = 1 if self.training_examples else 0
        return (self.simulations - self.training_examples) / self.targets + check

    @property
    def simulations_per_start(self) -> float | None:
        """What one start of one target costs in simulations; None for a network, whose starts cost none."""
        return None if self.training_examples else self.simulations / (self.targets * self.starts)


@dataclass(frozen=True)
class Curve:
    """r_T over T = 1 ... `n_candidates`, each array `(n_candidates,)`, raw units squared.

    Attributes:
        mean: over targets, which is r_T; infinite where a target has no finite candidate.
        q25, q75: quartiles over targets of the least squared error among T candidates.
    """

    mean: Array
    q25: Array
    q75: Array


@dataclass(frozen=True)
class Run:
    """One task with one seed.

    Attributes:
        entries, curves: by method.
        networks: validation MSE of the trained networks by name, raw units squared.
    """

    task: str
    seed: int
    entries: Mapping[str, Entry]
    curves: Mapping[str, Curve]
    networks: Mapping[str, float]


@dataclass(frozen=True)
class QualityPoint:
    """One network of a sweep of qualities: trained on how many examples, how good, and what r_1 it led to."""

    examples: int
    validation_mse: float
    r_1: float


@dataclass(frozen=True)
class Clock:
    """How long a stage took, in seconds of wall time, and on what."""

    task: str
    stage: str
    seconds: float
    device: str
    threads: int


@dataclass(frozen=True)
class Contest:
    """Everything that was measured, beside everything that was published.

    Attributes:
        runs: one a task and seed.
        quality: the sweep of a task; a task without one has no key.
        published: rows of the literature.
    """

    runs: Sequence[Run]
    quality: Mapping[str, Sequence[QualityPoint]]
    published: Sequence[Published]

    @property
    def tasks(self) -> list[str]:
        """In the order of the runs."""
        return list(dict.fromkeys(run.task for run in self.runs))

    @property
    def methods(self) -> list[str]:
        """In the order of the entries."""
        return list(dict.fromkeys(method for run in self.runs for method in run.entries))

    def entries(self, task: str, method: str) -> list[Entry]:
        """One a seed, in the order of the runs; empty where the method did not run."""
        return [run.entries[method] for run in self.runs if run.task == task and method in run.entries]

    def curves(self, task: str, method: str) -> list[Curve]:
        """One a seed, in the order of the runs."""
        return [run.curves[method] for run in self.runs if run.task == task and method in run.curves]

    def network_points(self, task: str, network: str, method: str) -> list[tuple[float, float]]:
        """Validation MSE of a network and r_1 of the method that inverts it, one pair a seed that has both."""
        points = []
        for run in self.runs:
            if run.task == task and network in run.networks and method in run.entries:
                r_1 = run.entries[method].r_1
                if r_1 is not None:
                    points.append((run.networks[network], r_1))
        return points


def read_run(task: str, seed: int, *, metrics: Path, curves: Path, networks: Mapping[str, Path]) -> Run:
    """Read what one task and seed left behind.

    Args:
        metrics: JSON, by method the fields of `Entry` (others are ignored; what may be None may be left out).
        curves: CSV with columns method, T, mean, q25, q75.
        networks: by name, the JSON metrics of its training with `validation_mse`.

    Raises:
        UserError: a file is missing or damaged, or lacks something.
    """
    measured = _read_json(metrics)
    entries = {method: _entry(metrics, method, values) for method, values in measured.items()}
    qualities = {name: _quality_of(path, _read_json(path)) for name, path in networks.items()}
    return Run(task, seed, entries, _read_curves(curves), qualities)


def read_quality(path: Path) -> list[QualityPoint]:
    """Read a sweep of qualities: CSV with columns examples, validation_mse, r_1.

    Raises:
        UserError: the file is missing or damaged.
    """
    rows = _read_table(path, ("examples", "validation_mse", "r_1"))
    if not all(math.isfinite(row["examples"]) for row in rows):
        raise _damaged(path, "examples must be whole numbers")
    return [QualityPoint(int(row["examples"]), row["validation_mse"], row["r_1"]) for row in rows]


def read_clocks(task: str, folder: Path, results: Path | None = None) -> list[Clock]:
    """Read the clocks of a task: a JSON file a stage with seconds, device and threads.

    Args:
        folder: of the clocks; none there, none returned.
        results: the folder below which the clocked results lie; a clock that measured another `result` by its
            `result_sha256` than the one that is there (a cache gave it back since) is left out. None believes all.

    Raises:
        UserError: a file is damaged.
    """
    clocks = []
    for path in sorted(folder.glob("*.json")):
        content = _read_json(path)
        try:
            seconds, device, threads = float(content["seconds"]), str(content["device"]), int(content["threads"])
            current = results is None or _is_result(results / content["result"], content["result_sha256"])
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, "needs seconds, device, threads, result and result_sha256") from error
        if current:
            clocks.append(Clock(task, path.stem, seconds, device, threads))
    return clocks


def _is_result(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def _entry(path: Path, method: str, values: Any) -> Entry:
    if not isinstance(values, Mapping):
        raise _damaged(path, f"{method} has no measures")
    found: dict[str, Any] = {}
    for field in fields(Entry):
        needed = field.type != float | None
        if needed and field.name not in values:
            raise _damaged(path, f"{method} lacks {field.name}")
        value = values.get(field.name)
        missing = value is None or (isinstance(value, float) and not math.isfinite(value))
        if (missing and needed) or not (missing or isinstance(value, int | float)) or isinstance(value, bool):
            raise _damaged(path, f"{method}: {field.name} is {value}")
        found[field.name] = None if missing else value
    if found["targets"] < 1:
        raise _damaged(path, f"{method}: targets must be at least 1, got {found['targets']}")
    return Entry(**found)


def _quality_of(path: Path, content: Mapping[str, Any]) -> float:
    value = content.get("validation_mse")
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise _damaged(path, f"validation_mse must be a number above 0, got {value}")
    return float(value)


def _read_curves(path: Path) -> dict[str, Curve]:
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for row in _read_table(path, ("T", "mean", "q25", "q75"), name="method"):
        curve = rows.setdefault(str(row["method"]), [])
        if row["T"] != len(curve) + 1:
            raise _damaged(path, f"{row['method']}: T must count 1, 2, ..., got {row['T']:g}")
        curve.append((row["mean"], row["q25"], row["q75"]))
    return {method: Curve(*np.asarray(values, dtype=float).T) for method, values in rows.items()}


def _read_table(path: Path, numbers: Sequence[str], name: str | None = None) -> list[dict[str, Any]]:
    """Rows with their numbers parsed; an empty number is infinite, as an error that cannot be computed is."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {column: float(row[column] or "inf") for column in numbers} | ({name: row[name]} if name else {})
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise _damaged(path, f"cannot be read ({error})") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, f"cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise _damaged(path, "not what was written there")
    return content


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}; run `dvc repro` to make it anew")
