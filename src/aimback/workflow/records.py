"""What MLflow is told of a task: a run a route, one a training, and one of the claims."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aimback.core.files import sha256
from aimback.data.dataset import load_dataset
from aimback.data.targets import load_targets
from aimback.evaluate.routes import ROUTES
from aimback.report.costs import route_metrics
from aimback.report.page import claims_note, note
from aimback.report.result import TaskResult
from aimback.tasks.base import Task
from aimback.tracking import Data, Model, Run
from aimback.workflow.runs import params, training_key

# What tells most at a glance; the run of the claims has every figure.
_TELLING = ("surfaces", "loss", "miss", "trajectories")


@dataclass(frozen=True)
class Record:
    """One task's part of a state of the pipeline.

    Args:
        name: the task's name.
        state: key of the state.
        tree: the configuration that it was made with.
        task: the simulator.
        result: what the run found out about it.
        folder: what the stages wrote about it.
        report: the folder of the report.
    """

    name: str
    state: str
    tree: Mapping[str, Any]
    task: Task
    result: TaskResult
    folder: Path
    report: Path

    def runs(self) -> list[Run]:
        return [*(self._route(route) for route in ROUTES), self._training(), self._proposer(), self._diagnosis()]

    def _route(self, route: str) -> Run:
        targets = self.folder / "data" / "targets.npz"
        curves = [row for row in _table(self.folder / "evaluate" / "curves.csv") if row["route"] == route]
        candidates = [row for row in _table(self.folder / "evaluate" / "r_t.csv") if row["route"] == route]
        return Run(
            state=self.state,
            kind="route",
            task=self.name,
            route=route,
            params=params(self.tree, self.name),
            metrics=route_metrics(self.result, route),
            series={name: [(int(row["step"]), float(row[name])) for row in curves] for name in ("loss", "miss")}
            | {"r_T": [(int(row["T"]), float(row["mean"])) for row in candidates if row["mean"]]},
            note=note(self.result),
            artifacts={
                "figures": [file for file in self.result.figures if file.stem in _TELLING],
                "evaluate": [self.folder / "evaluate" / "answers.csv"],
            },
            data=[Data(f"{self.name} targets", sha256(targets), len(load_targets(targets, self.task)), "targets")],
        )

    def _training(self) -> Run:
        file = self.folder / "data" / "dataset.npz"
        dataset = load_dataset(file, self.task)
        settings = self.tree["task"][self.name]
        return Run(
            state=self.state,
            kind="training",
            task=self.name,
            route="training",
            params=params(self.tree, self.name),
            metrics=self._learned("surrogate", "train"),
            series=_series(_table(self.folder / "surrogate" / "history.csv")),
            note=f"The training of the surrogate of {self.name}.",
            artifacts={"figures": [file for file in self.result.figures if file.stem == "training"]},
            data=[Data(f"{self.name} data", sha256(file), len(dataset), "training")],
            model=Model(
                weights=self.folder / "surrogate" / "weights.safetensors",
                checksum=self.folder / "surrogate" / "weights.sha256",
                task_class=settings["_target_"],
                task_arguments={key: value for key, value in settings.items() if key != "_target_"},
                inputs=[*self.task.box.names, *self.task.conditions.names],
                outputs=self.task.outcomes.names,
                example=[*dataset.controls[0].tolist(), *dataset.conditions[0].tolist()],
            ),
            training=training_key(self.tree, file),
        )

    def _proposer(self) -> Run:
        return Run(
            state=self.state,
            kind="training",
            task=self.name,
            route="proposer",
            params=params(self.tree, self.name),
            metrics=self._learned("hybrid", "amortise"),
            series=_series(_table(self.folder / "hybrid" / "history.csv")),
            note=f"The training of the hybrid route's network for {self.name}, through the simulator.",
        )

    def _learned(self, folder: str, stage: str) -> dict[str, float | None]:
        metrics = json.loads((self.folder / folder / "metrics.json").read_text(encoding="utf-8"))
        return {**metrics, "seconds_train": self.result.meters.get(stage, {}).get("seconds")}

    def _diagnosis(self) -> Run:
        claims = self.result.claims
        metrics: dict[str, float | None] = {}
        for claim in claims:
            number = {"": claim.number.value, "_low": claim.number.low, "_high": claim.number.high}
            metrics |= {f"{claim.key}{end}": value for end, value in number.items()}
            metrics |= {f"{claim.key}_{name}": value for name, value in claim.details.items()}
        return Run(
            state=self.state,
            kind="diagnosis",
            task=self.name,
            route="diagnosis",
            params=params(self.tree, self.name),
            metrics=metrics,
            series={},
            note=claims_note(self.result),
            artifacts={"figures": self.result.figures, "report": [self.report / "index.html"]},
            tags={claim.key: claim.verdict for claim in claims},
        )


def _series(rows: Sequence[Mapping[str, str]]) -> dict[str, list[tuple[int, float]]]:
    names = [name for name in rows[0] if name != "step"]
    return {name: [(int(row["step"]), float(row[name])) for row in rows] for name in names}


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
