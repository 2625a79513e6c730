"""The laws that every task of aimback keeps, held to those of conf/config.yaml."""

import pytest

from aimback.tasks.laws import LAWS
from aimback.workflow.compose import compose_tasks

TASKS = compose_tasks()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("task", TASKS)
def test_law(task: str, law: str) -> None:
    LAWS[law](TASKS[task])
