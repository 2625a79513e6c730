"""May a believed hit be trusted? How many keep their bounds, beside bounds that validation examples would give."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from aimback.data.dataset import load_dataset
from aimback.learn.calibration import bound_error
from aimback.learn.surrogate import Surrogate
from aimback.tasks.base import Task
from benchmarks.break_even import settings_of
from benchmarks.figures import plot_coverage
from benchmarks.sweeps import TASKS, describe, run_sweep, tell_range
from benchmarks.tables import table


def kept_by_task() -> str:
    """Markdown: a table."""
    words = ["routes=[surrogate]", "data.targets=2000", "invert.surrogate.calibration=1000"]
    lines = []
    kept: dict[str, dict[str, list[float]]] = {"calibrated": {}, "of validation examples": {}}
    with run_sweep(words) as (sweep, rows):
        for name in TASKS:
            found = [row for row in rows if row["task"] == name]
            places = sweep.glob(f"*/project/outputs/{name}")
            columns = [
                *(_percent(row[key] for row in found) for key in ("coverage", "certified_fraction", "solved_fraction")),
                _percent(_keep(settings_of("mlp", name).tasks[name], place) for place in places),
            ]
            for kind, shares in zip(kept.values(), (columns[0], columns[-1]), strict=True):
                kind[name] = shares
            lines.append([name, *(tell_range(shares) if shares else "" for shares in columns)])
    head = ["task", "bounds kept", "certified", "solved", "naive bounds kept"]
    return (
        f"{describe(words)}: median and range over the seeds, in per cent. A bound is meant to be kept by at least "
        "90 of 100 believed hits, with as much confidence; a naive one is the 90 % quantile of the network's error on "
        "its validation examples, which are drawn, where answers are found by looking for a hit. Certified are the "
        "targets whose bound is at most the tolerance. Where no hit is believed there is no bound.\n\n"
        + f"{table(head, lines)}\n\n{plot_coverage('coverage.png', kept)}"
    )


def _percent(shares: Iterable[float | None]) -> list[float]:
    """Those that are known."""
    return [100 * share for share in shares if share is not None and not math.isnan(share)]


def _keep(task: Task, place: Path) -> float:
    """The share of the believed hits that keep the naive bound; NaN where there are none."""
    network = Surrogate.load(place / "routes/networks/surrogate/weights.safetensors", task).double()
    dataset = load_dataset(place / "data/dataset.npz", task)
    held_out = slice(dataset.n_training, None)
    told = network(dataset.controls[held_out], dataset.conditions[held_out])
    bound = bound_error(task.distance.measure(told - dataset.outcomes[held_out])[:, None])
    misses = _read_believed(place / "evaluate/answers.csv")
    return float((misses <= bound).double().mean())


def _read_believed(path: Path) -> Tensor:
    with path.open(encoding="utf-8", newline="") as file:
        return torch.tensor([float(row["miss"]) for row in csv.DictReader(file) if row["miss_bound"]])
