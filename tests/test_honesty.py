"""No false word: three targets in ten out of reach, on every task that can tell."""

import pytest

from aimback.runtime.project import CONF
from benchmarks.campaigns.honesty import answers

TASKS = sorted(file.stem for file in (CONF / "task").glob("*.yaml"))
FEWER = {"trebuchet": 200}  # a simulation costs a hundred times as much there
LEAST_SOLVED = {"bouncing_ball": 0.2}  # made for the direct route to lose: its gradient has the wrong sign


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *((name, 300) for name in TASKS if name not in FEWER),
        *(pytest.param(name, FEWER.get(name, 10_000), marks=pytest.mark.slow) for name in TASKS),
    ],
)
def test_every_target_gets_its_true_status(name: str, count: int) -> None:
    answered = answers(name, count)
    if answered is None:
        return  # the task cannot tell what is out of reach, and says so
    assert answered.false == 0
    assert answered.named == 1.0
    least = LEAST_SOLVED.get(name, 0.995)
    # So few are a sample: of 210 that can be hit, two more may be missed. The campaign holds the share itself.
    assert answered.solved >= (least - 2 / answered.reachable if count == 300 else least)
