"""The laws that every task of aimback keeps, held to those of conf/config.yaml."""

import pytest

from aimback.tasks.laws import LAWS, list_laws
from aimback.workflow.compose import compose_tasks

TASKS = compose_tasks()


@pytest.mark.parametrize(("task", "law"), [(name, law) for name, task in TASKS.items() for law in list_laws(task)])
def test_law(task: str, law: str) -> None:
    LAWS[law](TASKS[task])
