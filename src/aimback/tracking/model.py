"""The trained surrogate as an MLflow model: code and checked weights, no pickle."""

import contextlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from aimback.tracking.record import Model

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CODE = Path(__file__).with_name("surrogate_model.py")
_PACKAGE = Path(__file__).parents[1]


def log_model(uri: str, run_id: str, model: Model) -> None:
    """Attach `model` to a run; `mlflow.pyfunc.load_model` gives it back in any process.

    MLflow's own PyTorch flavour pickles. Here the model is a Python file ("models from code") that
    reads the safetensors file through `Surrogate.load`, which checks the SHA-256 beside it.
    """
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    example = pd.DataFrame([list(model.example)], columns=list(model.inputs), dtype="float64")
    signature = ModelSignature(
        inputs=Schema([ColSpec("double", name) for name in model.inputs]),
        outputs=Schema([ColSpec("double", name) for name in model.outputs]),
    )
    files = {"weights": model.weights.absolute(), "checksum": model.checksum.absolute()}
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run(run_id=run_id):
            mlflow.pyfunc.log_model(
                name="surrogate",
                python_model=str(_CODE),
                artifacts={name: file.as_uri() for name, file in files.items()},
                # The package travels with the model, so that it loads where aimback is not installed.
                code_paths=[str(_PACKAGE)],
                model_config={
                    "task_section": json.dumps(dict(model.task)),  # text, since MLflow sorts names
                    "inputs": list(model.inputs),
                    "outputs": list(model.outputs),
                },
                signature=signature,
                input_example=example,
                pip_requirements=[
                    f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "torch", "numpy", "safetensors")
                ],
            )
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type] # it sets the variable for the whole process


def register_model(
    client: "MlflowClient", experiment_id: str, run_id: str, state: str, model: Model, note: str
) -> None:
    """Let the registry have one version of the state's model, that of this run.

    A place without a registry, or where it is not ours to write to, keeps its runs all the same.
    """
    from mlflow.exceptions import MlflowException

    try:
        wanted = f"name = '{model.name}' AND tags.state = '{state}'"
        kept = None
        for version in client.search_model_versions(wanted, order_by=["version_number ASC"]):
            if version.run_id == run_id and kept is None:
                kept = version
            else:  # of a run that was deleted
                client.delete_model_version(version.name, version.version)
        logged = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
        if kept is None and logged:
            with contextlib.suppress(MlflowException):  # where it is there already
                about = f"{', '.join(model.inputs)} → {', '.join(model.outputs)}, as a network has learnt it."
                client.create_registered_model(model.name, description=about)
            place, key = logged[0].artifact_location, logged[0].model_id
            client.create_model_version(model.name, place, run_id, {"state": state}, description=note, model_id=key)
    except MlflowException as error:
        print(f"MLflow: the model {model.name} is not registered: {str(error).partition(chr(10))[0]}")
