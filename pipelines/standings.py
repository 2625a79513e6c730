"""The standings of the contest: a page with its figures, and one MLflow run a method, task and seed.

Runs at the end of every `dvc repro` of the contest. The page tells times, so it is no stage's output.
"""

import dataclasses
import hashlib
import json
import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import aimback
from aimback.contest.figures import plot_ledger, plot_quality, plot_r_t
from aimback.contest.page import Configuration, Shot, Trebuchet, results_page
from aimback.contest.published import published_rows
from aimback.contest.records import Clock, Contest, Run, read_clocks, read_quality, read_run
from aimback.core.errors import UserError
from aimback.core.files import sha256, write_text
from aimback.runtime.ending import ending
from aimback.runtime.project import ROOT
from aimback.tasks import trebuchet
from aimback.tracking import Data, flatten, publish
from aimback.tracking import Run as StoredRun
from aimback.workflow.params import read_mapping
from aimback.workflow.runs import store

HOME = ROOT / "benchmarks" / "neural_adjoint"
_NETWORKS = ("neural_adjoint", "smooth")
_GROUPS = ("published", "ours")
_VERSIONS = ("torch", "pytorch-lightning", "cmaes", "dvc", "hydra-core", "mlflow")
_WANTED = {
    "profile": "text",
    "seeds": "a list of whole numbers",
    "tasks": "a list of names",
    "tracking": "true or false",
    "experiment": "text",
    "remarks": "a list of text",
}
_FIGURES = {"r_t": plot_r_t, "quality": plot_quality, "ledger": plot_ledger}
_REMARKS = (
    "Ours, against the published protocol: inputs and outcomes of the networks are standardised; targets are drawn "
    "from the part of the prior that lies in the search box, so each can be hit; a start halves its own step size "
    "after 80 steps without progress, where all starts of a target do so together after 10; a start's answer is its "
    "point of least loss, not its last one; Adam's first step is a quarter of the box in every control. `second_order` "
    "keeps off the rim of the box by 4 % of its width at each wall.",
)


@dataclass(frozen=True)
class Stand:
    """Where one task and seed of the contest left its files."""

    out: Path
    task: str
    seed: int

    @property
    def groups(self) -> list[Path]:
        return [self.out / str(self.seed) / self.task / group for group in _GROUPS]

    def network(self, name: str) -> Path:
        return self.out / str(self.seed) / name / self.task / "surrogate" / "metrics.json"

    def run(self) -> Run:
        networks = {name: self.network(name) for name in _NETWORKS}
        parts = [
            read_run(self.task, self.seed, metrics=group / "metrics.json", curves=group / "r_t.csv", networks=networks)
            for group in self.groups
        ]
        entries = {method: entry for part in parts for method, entry in part.entries.items()}
        curves = {method: curve for part in parts for method, curve in part.curves.items()}
        return Run(self.task, self.seed, entries, curves, parts[0].networks)

    def clocks(self) -> list[Clock]:
        folder = self.out / str(self.seed)
        clocks = read_clocks(self.task, folder / "meters" / self.task)
        for name in _NETWORKS:
            trained = read_clocks(self.task, folder / name / "meters" / self.task)
            clocks += [dataclasses.replace(clock, stage=f"{clock.stage} {name}") for clock in trained]
        return clocks

    def state(self) -> str:
        """A name for what was configured and measured."""
        names = ("settings.json", "metrics.json", "r_t.csv")
        parts = [sha256(group / name) for group in self.groups for name in names]
        return hashlib.sha256(json.dumps([self.task, self.seed, parts]).encode()).hexdigest()[:32]


def main() -> None:
    with ending("standings"):
        size = read_mapping(HOME / "params.yaml", "mend it, or take it back with git", _WANTED)
        out = HOME / "outputs"
        stands = [Stand(out, task, seed) for task in size["tasks"] for seed in size["seeds"]]
        first = size["seeds"][0]
        quality = {task: read_quality(out / str(first) / task / "quality" / "quality.csv") for task in size["tasks"]}
        contest = Contest([stand.run() for stand in stands], quality, published_rows())
        figures = HOME / "figures"
        figures.mkdir(exist_ok=True)
        for name, draw in _FIGURES.items():
            draw(figures / f"{name}.png", contest)
        clocks = [clock for stand in stands for clock in stand.clocks()]
        page = results_page(
            contest,
            _configuration(size["profile"], stands, clocks, size["remarks"]),
            clocks=clocks,
            trebuchet=_trebuchet(),
            figures={name: f"figures/{name}.png" for name in _FIGURES},
        )
        write_text(HOME / "RESULTS.md", page)
        print("the standings: benchmarks/neural_adjoint/RESULTS.md")
        if size["tracking"]:
            place = store(size["experiment"])
            files = [HOME / "RESULTS.md", *sorted(figures.glob("*.png"))]
            states = [stand.state() for stand in stands]
            done = publish(place, states, lambda: _runs(stands, size["profile"], files), out / "published.json")
            print(f"MLflow: {done.written} runs written to {size['experiment']}; to see them: make ui")


def _configuration(
    profile: str, stands: Sequence[Stand], clocks: Sequence[Clock], remarks: Sequence[str]
) -> Configuration:
    devices = list(dict.fromkeys(clock.device for clock in clocks))
    epochs = {stand.task: _read(stand.network("neural_adjoint"))["epochs"] for stand in stands}
    trained = ", ".join(f"{task} {count}" for task, count in epochs.items())
    return Configuration(
        profile=profile,
        commit=_commit(),
        device=", ".join(devices) or "not told",
        threads=max((clock.threads for clock in clocks), default=torch.get_num_threads()),
        versions={"aimback": aimback.__version__, **{name: metadata.version(name) for name in _VERSIONS}},
        remarks=(*_REMARKS, f"Epochs of the published networks (at most 500 there): {trained}.", *remarks),
    )


def _commit() -> str:
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "not told"
    return done.stdout.strip() or "not told"


def _trebuchet() -> Trebuchet:
    """The shot that the trebuchet's authors published, by their program and by the physics."""
    return Trebuchet("wind -2 m/s, released at 45 degrees, counterweight 200 lb", _shot("euler60"), _shot("exact"))


def _shot(integrator: trebuchet.Integrator) -> Shot:
    controls = torch.tensor([torch.pi / 4, 200.0], dtype=torch.float64, requires_grad=True)
    wind = torch.tensor([-2.0], dtype=torch.float64, requires_grad=True)
    distance = trebuchet.Trebuchet(integrator=integrator)(controls, wind)
    by_controls, by_wind = torch.autograd.grad(distance.sum(), (controls, wind))
    by_angle, by_weight = by_controls.tolist()
    # By degrees, as the published gradient.
    return Shot(float(distance.detach()), float(by_wind), math.radians(by_angle), by_weight, "degree")


def _runs(stands: Sequence[Stand], profile: str, files: Sequence[Path]) -> list[StoredRun]:
    return [run for stand in stands for run in _runs_of(stand, profile, files)]


def _runs_of(stand: Stand, profile: str, files: Sequence[Path]) -> list[StoredRun]:
    curves, state = stand.run().curves, stand.state()
    targets = stand.out / str(stand.seed) / stand.task / "data" / "targets.npz"
    runs = []
    for group in stand.groups:
        settings = _read(group / "settings.json")
        methods = settings.pop("methods")
        runs += [
            StoredRun(
                state=state,
                kind="route",
                task=stand.task,
                route=method,
                params=flatten({**settings, "profile": profile, "method": methods[method]}),
                metrics=_flat(measured),
                series={"r_T": list(enumerate(curves[method].mean.tolist(), 1))},
                note=f"The contest on {stand.task}, seed {stand.seed}: {method}.",
                artifacts={"contest": files, "": [group / "answers.csv"]},
                data=[Data(f"{stand.task} targets", sha256(targets), measured["targets"], "targets")],
            )
            for method, measured in _read(group / "metrics.json").items()
        ]
    return runs


def _flat(measured: dict[str, Any]) -> dict[str, float | None]:
    counts = {f"status_{name}": float(count) for name, count in measured["status"].items()}
    return {name: value for name, value in measured.items() if name != "status"} | counts


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `make contest`") from error
    return content


if __name__ == "__main__":
    main()
