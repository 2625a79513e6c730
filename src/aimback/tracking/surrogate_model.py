"""What MLflow runs to load a logged surrogate; see `model.py`."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from aimback.learn.surrogate import Surrogate
from aimback.settings.build import build
from aimback.tasks.base import Task


class SurrogateModel(PythonModel):
    """Controls and conditions, a named column each -> the outcomes as the network believes them."""

    def load_context(self, context: PythonModelContext) -> None:
        config = context.model_config
        # Who loads a model trusts it with the class that it names; a described simulator is not even imported.
        node = json.loads(config["task_section"])
        package = node.get("_target_", "").partition(".")[0]
        task = build(node, Task, trusted=[package])  # type: ignore[type-abstract]
        self.n_controls = len(task.box)
        self.inputs, self.outputs = config["inputs"], config["outputs"]
        self.surrogate = Surrogate.load(Path(context.artifacts["weights"]), task, dtype=torch.float64)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        rows = torch.tensor(model_input[self.inputs].to_numpy(dtype="float64"))
        with torch.no_grad():
            outcomes = self.surrogate(rows[:, : self.n_controls], rows[:, self.n_controls :])
        return pd.DataFrame(outcomes.double().numpy(), columns=self.outputs)


set_model(SurrogateModel())
