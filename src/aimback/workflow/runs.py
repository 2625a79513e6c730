"""What names a training and a pipeline state, and where their MLflow runs go. Imports no PyTorch."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from aimback.core.errors import UserError
from aimback.core.files import sha256
from aimback.runtime.project import ROOT, find_original
from aimback.tracking import Store, flatten, open_store
from aimback.workflow.turns import list_turns

# What tells the next publish that everything is there; a new training takes it away.
PUBLISHED = ROOT / "outputs" / "report" / "published.json"
_PARAMS = (
    *("seed", "data", "targets", "surrogate", "training", "hybrid", "solver", "starts", "smoothing", "diagnose"),
    "hardware",
)


def open_project_store(experiment: str) -> Store:
    """Where runs go. An experiment that runs in a copy of the repository belongs to the original."""
    return open_store(find_original(ROOT), experiment)


def flatten_params(tree: Mapping[str, Any], task: str, stage: str | None = None, route: str = "") -> dict[str, str]:
    """What is configured for one task, flat; the same names for every run, so that runs compare.

    Args:
        stage, route: whose own settings are told as `route.*`.
    """
    own = {name: value for name, value in tree["task"][task].items() if name != "_target_"}
    of_route = {} if stage is None else {"route": tree[stage][route]}
    return flatten({**{name: tree[name] for name in _PARAMS}, "task": own, **of_route})


def title_training(tree: Mapping[str, Any], route: str) -> str:
    """What stands for a route in the name of the run of a network's training: the first network's has none."""
    return "training" if route == next(iter(tree["train"])) else f"training of {route}"


def identify_training(tree: Mapping[str, Any], dataset: Path, route: str) -> str:
    """A name for the training of a route's network: the data it learns from, and everything that is set about it."""
    hardware = {name: value for name, value in tree["hardware"].items() if name != "compile"}  # of solves, not of this
    return _digest([sha256(dataset), tree["seed"], tree["train"][route], hardware])


def read_states(tree: Mapping[str, Any]) -> dict[str, str]:
    """A name for the state that DVC has recorded of each task: params and outputs of its stages.

    Args:
        tree: the configuration, which tells which stages there are; DVC also remembers those of other lists.

    Raises:
        UserError: there is no such record.
    """
    tasks = list(tree["task"])
    recorded: dict[str, list[Any]] = {task: [] for task in tasks}
    try:
        stages = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        for name in sorted(stages.keys() & set(list_turns(ROOT, tree))):
            task = name.partition("@")[2].partition("-")[0]
            if task in recorded:
                recorded[task].append([name, stages[name].get("params"), stages[name].get("outs")])
    except (OSError, ValueError, RecursionError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        raise UserError("dvc.lock: missing or not readable; run `dvc repro`") from None
    if unknown := [task for task in tasks if not recorded[task]]:
        raise UserError(f"dvc.lock: there is no stage of the task {unknown[0]!r}; run `dvc repro`")
    return {task: _digest([task, stage]) for task, stage in recorded.items()}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
