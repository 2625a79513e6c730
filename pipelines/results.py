"""What a run of the pipeline found out, put together for the report and for MLflow."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from aimback.dataset import load_dataset
from aimback.files import sha256
from aimback.report.costs import route_metrics
from aimback.report.page import note, write_report
from aimback.report.result import TaskResult, read_result
from aimback.report.verdict import verdict
from aimback.routes import ROUTES
from aimback.targets import load_targets
from aimback.tracking import Data, Model, Run
from pipelines.runs import params, training_key
from pipelines.settings import Settings


class Results:
    """The results of all tasks.

    Args:
        tree: the configuration that they were made with.
        outputs: the folder that the stages wrote to.
    """

    def __init__(self, tree: Mapping[str, Any], outputs: Path) -> None:
        self._tree, self._outputs = tree, outputs
        self._tasks = Settings(OmegaConf.create(dict(tree))).tasks
        self._results = {
            name: read_result(
                name,
                task,
                metrics=outputs / name / "evaluate" / "metrics.json",
                answers=outputs / name / "evaluate" / "answers.csv",
                meters=outputs / "meters" / name,
                results=outputs / name,
                diagnosis=outputs / name / "diagnose",
                figures=outputs / name / "figures",
                panels=outputs / name / "interactive",
            )
            for name, task in self._tasks.items()
        }

    def verdicts(self) -> list[str]:
        return [verdict(result) for result in self._results.values()]

    def write_report(self, folder: Path) -> None:
        write_report(
            list(self._results.values()),
            page=folder / "index.html",
            markdown=folder / "report.md",
            costs=folder / "costs.json",
        )

    def runs(self, states: Mapping[str, str], report: Path) -> list[Run]:
        """The runs of every task: one a route, and the training."""
        return [run for name, state in states.items() for run in self._runs_of(name, state, report)]

    def _runs_of(self, name: str, state: str, report: Path) -> list[Run]:
        result, task, folder = self._results[name], self._tasks[name], self._outputs / name
        named = params(self._tree, name)
        targets_file, dataset_file = folder / "data" / "targets.npz", folder / "data" / "dataset.npz"
        dataset = load_dataset(dataset_file, task)
        asked = Data(f"{name} targets", sha256(targets_file), len(load_targets(targets_file, task)), "targets")
        learned = Data(f"{name} data", sha256(dataset_file), len(dataset), "training")
        curves = _table(folder / "evaluate" / "curves.csv")
        candidates = [row for row in _table(folder / "evaluate" / "r_t.csv") if row["mean"]]
        routes = [
            Run(
                state=state,
                kind="route",
                task=name,
                route=route,
                params=named,
                metrics=route_metrics(result, route),
                series={
                    column: [(int(row["step"]), float(row[column])) for row in curves if row["route"] == route]
                    for column in ("loss", "miss")
                }
                | {"r_T": [(int(row["T"]), float(row["mean"])) for row in candidates if row["route"] == route]},
                note=note(result),
                artifacts={
                    "figures": result.figures,
                    "report": [report / "index.html"],
                    "evaluate": [folder / "evaluate" / "answers.csv"],
                },
                data=[asked],
            )
            for route in ROUTES
        ]
        arguments = {key: value for key, value in self._tree["task"][name].items() if key != "_target_"}
        first = [*dataset.controls[0].tolist(), *dataset.conditions[0].tolist()]
        training = Run(
            state=state,
            kind="training",
            task=name,
            route="training",
            params=named,
            metrics=_training_metrics(folder, result),
            series=_series(_table(folder / "surrogate" / "history.csv")),
            note=f"The training of the surrogate of {name}.",
            artifacts={"figures": [file for file in result.figures if file.stem == "training"]},
            data=[learned],
            model=Model(
                weights=folder / "surrogate" / "weights.safetensors",
                checksum=folder / "surrogate" / "weights.sha256",
                task_class=self._tree["task"][name]["_target_"],
                task_arguments=arguments,
                inputs=[*task.box.names, *task.conditions.names],
                outputs=task.outcomes.names,
                example=first,
            ),
            training=training_key(self._tree, dataset_file),
        )
        return [*routes, training]


def _training_metrics(folder: Path, result: TaskResult) -> dict[str, float | None]:
    metrics = json.loads((folder / "surrogate" / "metrics.json").read_text(encoding="utf-8"))
    return {**metrics, "seconds_train": result.meters.get("train", {}).get("seconds")}


def _series(rows: Sequence[Mapping[str, str]]) -> dict[str, list[tuple[int, float]]]:
    names = [name for name in rows[0] if name != "step"]
    return {name: [(int(row["step"]), float(row[name])) for row in rows] for name in names}


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
