"""What MLflow is told of a task: a run a route, one a training, and one of the claims."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from aimback.core.files import sha256
from aimback.data.dataset import load_dataset
from aimback.evaluate.tables import CURVE_COLUMNS, R_T_COLUMNS, Array, read_by_route, read_columns
from aimback.report.costs import list_metrics
from aimback.report.page import claims_note, note
from aimback.report.result import TaskResult
from aimback.settings.tree import Settings
from aimback.tracking import Data, Model, Run
from aimback.workflow.runs import flatten_params, identify_training, title_training

# What tells most at a glance; the run of the claims has every figure.
_TELLING = ("surfaces", "loss", "miss", "trajectories")


@dataclass(frozen=True)
class Record:
    """One task's part of a state of the pipeline.

    Args:
        name: the task's name.
        state: key of the state.
        settings: the configuration that it was made with.
        result: what the run found out about it.
        folder: what the stages wrote about it.
        report: the folder of the report.
    """

    name: str
    state: str
    settings: Settings
    result: TaskResult
    folder: Path
    report: Path

    def runs(self) -> list[Run]:
        runs = [self._route(route) for route in self.settings.routes]
        runs += [self._training(route) for route in self.settings.train]
        runs += [self._proposer(route) for route in self.settings.amortise]
        return [*runs, self._diagnosis()] if self.result.claims else runs

    def _route(self, route: str) -> Run:
        targets = self.folder / "data" / "targets.npz"
        step, loss, miss = read_by_route(self.folder / "evaluate" / "curves.csv", CURVE_COLUMNS)[route].T[:3]
        series = {"loss": _series(step, loss)}
        if not self.result.is_believed:
            count, mean = read_by_route(self.folder / "evaluate" / "r_t.csv", R_T_COLUMNS)[route].T[:2]
            r_t = [point for point in _series(count, mean) if math.isfinite(point[1])]
            series |= {"miss": _series(step, miss), "r_T": r_t}
        if rounds := self.result.rounds.get(route):
            series["solved_by_round"] = _series(rounds["round"], rounds["solved_targets"])
        return Run(
            state=self.state,
            kind="route",
            task=self.name,
            route=route,
            params=flatten_params(self.settings.tree, self.name, self.settings.routes[route], route),
            metrics=list_metrics(self.result, route),
            series=series,
            seconds=self._read_seconds(self.result.routes[route].solving),
            note=note(self.result),
            # The page that compares runs shows no files of folders.
            artifacts={
                "": [
                    *(file for file in self.result.figures if file.stem in _TELLING),
                    self.folder / "evaluate" / "answers.csv",
                ]
            },
            data=[Data(f"{self.name} targets", sha256(targets), self.result.any_metrics["targets"], "targets")],
        )

    def _training(self, route: str) -> Run:
        task, tree = self.settings.tasks[self.name], self.settings.tree
        file, network = self.folder / "data" / "dataset.npz", self.folder / "routes" / "networks" / route
        dataset = load_dataset(file, task)
        shown = self.settings.compared.get("surrogate")
        is_drawn = shown is not None and self.settings.invert[shown].network == route
        return Run(
            state=self.state,
            kind="training",
            task=self.name,
            route=title_training(tree, route),
            params=flatten_params(tree, self.name, "train", route),
            metrics=self._read_metrics(network, f"train-{route}"),
            series=_histories(network / "history.csv"),
            seconds=self._read_seconds(f"train-{route}"),
            note=f"The training of the network of the route {route} on {self.name}.",
            artifacts={"figures": [file for file in self.result.figures if file.stem == "training" and is_drawn]},
            data=[Data(f"{self.name} data", sha256(file), len(dataset), "training")],
            model=Model(
                name=self.name if route == next(iter(tree["train"])) else f"{self.name} {route}",
                weights=network / "weights.safetensors",
                checksum=network / "weights.sha256",
                task=tree["task"][self.name],
                inputs=[*task.box.names, *task.conditions.names],
                outputs=task.outcomes.names,
                example=[*dataset.controls[0].tolist(), *dataset.conditions[0].tolist()],
            ),
            training=identify_training(tree, file, route),
        )

    def _proposer(self, route: str) -> Run:
        proposer = self.folder / "routes" / "proposers" / route
        is_first = route == next(iter(self.settings.amortise))
        return Run(
            state=self.state,
            kind="training",
            task=self.name,
            route="proposer" if is_first else f"proposer of {route}",
            params=flatten_params(self.settings.tree, self.name, "amortise", route),
            metrics=self._read_metrics(proposer, f"amortise-{route}"),
            series=_histories(proposer / "history.csv"),
            seconds=self._read_seconds(f"amortise-{route}"),
            note=f"The training of the network of the route {route} for {self.name}, through the simulator.",
        )

    def _read_metrics(self, folder: Path, meter: str) -> dict[str, float | None]:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return {**metrics, "seconds_train": self._read_seconds(meter)}

    def _read_seconds(self, meter: str) -> float | None:
        return self.result.meters.get(meter, {}).get("seconds")

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
            params=flatten_params(self.settings.tree, self.name),
            metrics=metrics,
            series={},
            note=claims_note(self.result),
            artifacts={"figures": self.result.figures, "report": [self.report / "index.html"]},
            tags={claim.key: claim.verdict for claim in claims},
        )


def _histories(path: Path) -> dict[str, list[tuple[int, float]]]:
    columns = read_columns(path)
    step = columns.pop("step")
    return {name: _series(step, values) for name, values in columns.items()}


def _series(steps: Array, values: Array) -> list[tuple[int, float]]:
    return [(int(step), float(value)) for step, value in zip(steps, values, strict=True)]
