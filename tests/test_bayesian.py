"""Bayesian optimisation: it arrives in few simulations, on the count, and what is not installed is one line."""

import math
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from problems import Affine, Poisoned, pose, seeded

from aimback.core import extras
from aimback.core.box import Axis, Box
from aimback.core.errors import UserError
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem, StartStatus
from aimback.settings.limits import check_limits
from aimback.solve.bayesian import Bayesian
from aimback.solve.cma_es import CmaEs
from aimback.solve.multistart import solve
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.workflow.compose import compose_settings

T = torch.float64
TASK = CannonVacuum()
needs_botorch = pytest.mark.skipif(find_spec("botorch") is None, reason="botorch is not installed")


def ask_vacuum(*targets: float) -> InverseProblem:
    return pose(torch.tensor(targets, dtype=T)[:, None], torch.zeros(len(targets), 0, dtype=T), TASK.box, 0.01, 10.2, 1)


@needs_botorch
@pytest.mark.slow
def test_it_hits_with_a_third_of_the_simulations_of_cma_es() -> None:
    problem, ledger, other = ask_vacuum(1.0, 4.0, 9.0), Ledger(), Ledger()
    solution = solve(Counted(TASK, ledger, simulates=True), problem, Bayesian(), seeded())
    assert solution.start_status.unique().tolist() == [StartStatus.ARRIVED]
    speed, angle = solution.controls[:, 0].unbind(-1)
    # Galileo's parabola, not the task's own code.
    miss = (speed**2 * torch.sin(2 * angle) / TASK.gravity - problem.targets[:, 0]).abs()
    assert float(miss.max()) <= 0.01
    assert TASK.box.contains(solution.history.controls).all()
    assert ledger.simulations == int((6 + 4 * (solution.steps - 1)).sum())
    assert ledger.gradients == 0
    solve(Counted(TASK, other, simulates=True), problem, CmaEs(precision=0.01 / 10.2), seeded())
    assert ledger.simulations < other.simulations / 3


@needs_botorch
@pytest.mark.slow
def test_a_target_alone_gives_the_bits_it_gives_beside_others_whatever_the_global_stream() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    problem = ask_vacuum(3.0, 7.0)
    both = solve(TASK, problem, Bayesian(), seeded())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    alone = solve(TASK, replace(ask_vacuum(3.0), starts=problem.starts[:1]), Bayesian(), seeded())
    assert torch.equal(alone.controls, both.controls[:1])
    assert torch.equal(alone.steps, both.steps[:1])


@needs_botorch
@pytest.mark.slow
def test_each_of_several_outcomes_comes_within_its_tolerance() -> None:
    map_, box = Affine(torch.tensor([[1.0, 0.0], [0.9, 1.0]], dtype=T)), Box([Axis("x", "", 0, 1), Axis("y", "", 0, 1)])
    problem = pose(torch.tensor([[0.3, 0.97]], dtype=T), torch.zeros(1, 0, dtype=T), box, 1e-3, 1.0, 1)
    solution = solve(map_, problem, Bayesian(initial=4, batch=2), seeded())
    assert solution.start_status.tolist() == [[StartStatus.ARRIVED]]
    torch.testing.assert_close(solution.controls[0, 0], torch.tensor([0.3, 0.7], dtype=T), rtol=0, atol=2e-3)


@needs_botorch
@pytest.mark.slow
def test_it_goes_round_failed_simulations() -> None:
    """Half of the box answers NaN, and rounds may see nothing else."""
    solution = solve(Poisoned(TASK, math.nan, 5.0), ask_vacuum(1.0, 2.0), Bayesian(), seeded())
    assert solution.start_status.unique().tolist() == [StartStatus.ARRIVED]
    assert bool((solution.controls[..., 0] <= 5).all())


@needs_botorch
@pytest.mark.slow
def test_it_comes_as_near_as_can_be_to_what_cannot_be_reached() -> None:
    solution = solve(TASK, ask_vacuum(25.0), Bayesian(max_steps=6), seeded())
    assert solution.start_status.tolist() == [[StartStatus.STEP_LIMIT]]
    assert float(solution.believed_miss) == pytest.approx(25 - 100 / TASK.gravity, abs=0.05)
    assert TASK.box.contains(solution.controls).all()


@needs_botorch
@pytest.mark.slow
def test_outcomes_too_far_apart_for_a_process_do_not_end_the_search() -> None:
    """They grow by 26 orders of magnitude, and the target lies below all of them."""
    problem = replace(ask_vacuum(0.7), box=Box([Axis("x", "", 0, 1), Axis("y", "", 0, 1)]))
    solution = solve(lambda controls, _: torch.exp(60 * controls[..., :1]), problem, Bayesian(max_steps=4), seeded())
    assert solution.start_status.tolist() == [[StartStatus.STEP_LIMIT]]
    assert solution.steps.tolist() == [[4]]


@needs_botorch
@pytest.mark.parametrize(("poison", "status"), [(math.nan, StartStatus.NOT_FINITE), (math.inf, StartStatus.NO_EVENT)])
def test_a_start_that_sees_failures_alone_says_so(poison: float, status: StartStatus) -> None:
    solution = solve(Poisoned(TASK, poison, -1.0), ask_vacuum(1.0), Bayesian(), seeded())
    assert solution.start_status.tolist() == [[status]]
    assert solution.steps.tolist() == [[1]]


def test_without_botorch_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    line = r"^botorch is not installed; pip install 'aimback\[bayesian\]' brings it$"
    with pytest.raises(UserError, match=line):
        solve(TASK, ask_vacuum(1.0), Bayesian(), seeded())
    settings = compose_settings("task=cannon_vacuum", "routes=[bayesian]")
    with pytest.raises(UserError, match=line):  # before the first stage
        check_limits(settings, settings.tasks)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"initial": -1}, "initial: must be a whole number from 0 to 1,000"),
        ({"batch": 0}, "batch: must be a whole number from 1 to 64"),
        ({"noise": 0.0}, "noise: must be positive"),
    ],
)
def test_a_setting_out_of_range_is_named(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Bayesian(**values)


def test_it_counts_what_a_start_asks_for_at_most() -> None:
    assert Bayesian().count_evaluations(2) == 6 + 19 * 4
    assert Bayesian(initial=3, batch=1, max_steps=5).count_evaluations(7) == 7
