"""Settings for tests: those of conf/, but for what a test is about."""

from typing import Any

import yaml

from aimback.runtime.project import ROOT
from aimback.settings.claims import DiagnoseSettings
from aimback.settings.learning import HybridSettings, NetworkSettings, TrainingSettings


def plan_network(kind: str = "mlp", **changes: Any) -> NetworkSettings:
    return NetworkSettings(**{**_read("surrogate/mlp"), **_read(f"surrogate/{kind}"), **changes})


def plan_training(kind: str = "default", **changes: Any) -> TrainingSettings:
    return TrainingSettings(**{**_read("training/default"), **_read(f"training/{kind}"), **changes})


def plan(**changes: Any) -> tuple[NetworkSettings, TrainingSettings]:
    """A network and its training, from keys of either."""
    of_the_network = {key: value for key, value in changes.items() if key in NetworkSettings.model_fields}
    of_the_training = {key: value for key, value in changes.items() if key not in of_the_network}
    return plan_network(**of_the_network), plan_training(**of_the_training)


def plan_hybrid(**changes: Any) -> HybridSettings:
    return HybridSettings(**{**_read("hybrid/default"), **changes})


def plan_claims(**changes: Any) -> DiagnoseSettings:
    return DiagnoseSettings(**{**_read("diagnose/default")["diagnose"], **changes})


def _read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if key != "defaults"}
