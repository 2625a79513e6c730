"""Starts in rounds, and budgets: what is left is spent where it is needed, and nothing is half done."""

import pytest
import torch
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.distance import Distance
from aimback.core.errors import OverBudgetError
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem, StartStatus
from aimback.solve.cma_es import CmaEs
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.rounds import solve_in_rounds

BOX = Box([Axis("x", "", -1.0, 1.0)])


class TwoWells:
    """From the left half, descents to 0.3 end in a minimum that misses, at -0.5."""

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self.linearise(controls, conditions)[0]

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        x = controls[..., 0]
        outcome = torch.where(x > 0, x, -0.2 * x * (x + 1))
        slope = torch.where(x > 0, torch.ones_like(x), -0.2 * (2 * x + 1))
        return outcome[..., None], slope[..., None, None]


def pose(starts: list[list[float]]) -> InverseProblem:
    """Starts by target, as values of x."""
    unit = (torch.tensor(starts, dtype=torch.float64)[..., None] + 1) / 2
    targets = torch.full((len(starts), 1), 0.3, dtype=torch.float64)
    return InverseProblem(targets, targets[:, :0], BOX, Distance((0.01,), 0.01, 1.0), unit)


def test_further_starts_are_for_targets_that_none_has_hit() -> None:
    ledger = Ledger()
    problem = pose([[0.5, 0.6, 0.7, 0.8], [-0.4, -0.6, 0.7, 0.8]])
    solution = solve_in_rounds(
        [Counted(TwoWells(), ledger, simulates=True)], problem, LevenbergMarquardt(), torch.Generator()
    )
    begun = solution.start_status != StartStatus.NOT_BEGUN
    assert begun.tolist() == [[True, False, False, False], [True, True, True, True]]
    assert (solution.start_status[:, [0]] == StartStatus.ARRIVED).tolist() == [[True], [False]]
    assert solution.start_status[1, 2] == StartStatus.ARRIVED
    assert solution.best().tolist() in ([0, 2], [0, 3])
    assert solution.believed_miss[0, 1:].isinf().all()
    everything = Ledger()
    whole = solve(Counted(TwoWells(), everything, simulates=True), problem, LevenbergMarquardt(), torch.Generator())
    assert ledger.simulations < everything.simulations
    # A start does what it would have done, but ends when it is well within the tolerance.
    assert torch.equal(whole.controls[1, :2], solution.controls[1, :2])
    path = solution.history.controls[:, 1, 2, 0]
    assert path[0] == pytest.approx(0.7) and path[-1] == solution.controls[1, 2, 0]


@pytest.mark.parametrize("solver", [LevenbergMarquardt(), CmaEs(population=4)])
def test_a_budget_ends_a_descent_and_is_never_exceeded(solver: LevenbergMarquardt | CmaEs) -> None:
    problem = pose([[-0.4, -0.6], [-0.3, -0.2]])
    free = Ledger()
    solve(Counted(TwoWells(), free, simulates=True), problem, solver, torch.Generator())
    for limit in (free.simulations // 2, free.simulations - 1, free.simulations):
        ledger = Ledger()
        forward = Counted(TwoWells(), ledger, simulates=True, limit=limit)
        solution = solve(forward, problem, solver, torch.Generator())
        assert 0 < ledger.simulations <= limit
        assert torch.isfinite(solution.controls).all() and torch.isfinite(solution.believed_miss).all()
        ended = solution.start_status == StartStatus.STEP_LIMIT
        if isinstance(solver, LevenbergMarquardt):  # evolution may have arrived before
            assert bool(ended.any()) == (limit < free.simulations)


def test_a_budget_without_a_first_look_says_what_it_would_take() -> None:
    forward = Counted(TwoWells(), Ledger(), simulates=True, limit=3)
    with pytest.raises(OverBudgetError, match=r"budget.simulations: 3 are allowed, 0 were made, and 4 more are needed"):
        solve(forward, pose([[-0.4, -0.6], [0.5, 0.6]]), LevenbergMarquardt(), torch.Generator())
    solution = solve_in_rounds([forward], pose([[-0.4, -0.6], [0.5, 0.6]]), LevenbergMarquardt(), torch.Generator())
    assert (solution.start_status[:, 1] == StartStatus.NOT_BEGUN).all()


def test_easier_maps_come_first_in_each_round() -> None:
    easier, last = Ledger(), Ledger()
    forwards = [Counted(TwoWells(), ledger, simulates=True) for ledger in (easier, last)]
    solution = solve_in_rounds(forwards, pose([[0.9, 0.6], [-0.4, 0.7]]), LevenbergMarquardt(), torch.Generator())
    assert (solution.start_status == StartStatus.ARRIVED).any(-1).all()
    assert easier.simulations > 3 and last.simulations >= 3  # three starts were begun
