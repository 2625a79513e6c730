"""The trained surrogate as an MLflow model: code and checked weights, no pickle."""

import json
import os
from importlib.metadata import version
from pathlib import Path

from aimback.tracking.record import Model

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
