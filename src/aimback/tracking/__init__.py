"""MLflow, and nothing else knows of it. Importing this imports no mlflow: only what talks to a store does."""

from aimback.tracking.live_run import LiveTraining
from aimback.tracking.publish import Published, is_published, publish
from aimback.tracking.record import Data, Model, Run, flatten
from aimback.tracking.store import Store, open_store, ui_link

__all__ = [
    "Data",
    "LiveTraining",
    "Model",
    "Published",
    "Run",
    "Store",
    "flatten",
    "is_published",
    "open_store",
    "publish",
    "ui_link",
]
