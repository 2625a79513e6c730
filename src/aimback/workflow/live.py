"""A training that can be watched in MLflow while it runs."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from aimback.tracking import LiveTraining
from aimback.workflow.runs import PUBLISHED, flatten_params, identify_training, open_project_store, title_training
from aimback.workflow.stage import Job


def live_training(job: Job, dataset: Path) -> AbstractContextManager[LiveTraining | None]:
    """Where the training's values go by step; nowhere for a stage run by hand, whose state nobody publishes."""
    tracking = job.settings.tracking
    if not (tracking.enabled and tracking.live and "DVC_STAGE" in os.environ):
        return nullcontext()
    PUBLISHED.unlink(missing_ok=True)
    tree = job.settings.tree
    key, told = identify_training(tree, dataset, job.route), flatten_params(tree, job.name, "train", job.route)
    name = title_training(tree, job.route)
    return LiveTraining(open_project_store(tracking.experiment), job.name, name, key, told)
