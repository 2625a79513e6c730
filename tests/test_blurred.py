"""Blurred outcomes against closed forms, and what they are for: a peak that the target has elsewhere."""

import math

import pytest
import torch
from problems import pose, seeded
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.ledger import Counted, Ledger
from aimback.solve.blurred import Blurred
from aimback.solve.continuation import solve_by_continuation
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.smoothed import smooth
from aimback.solve.smoothing_settings import Smoothing

T = torch.float64
BOX = Box([Axis("place", "", 0.0, 100.0)])
SETTINGS = Smoothing(sigmas=[], samples=2, order="first", blurs=[20, 10, 5])


class Peak:
    """A Gaussian of so much width and height over 101 places, which the control moves."""

    def __init__(self, width: float, height: float = 1.0) -> None:
        self.width, self.height = width, height

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self.height * torch.exp(-((torch.arange(101.0, dtype=T) - controls) ** 2) / (2 * self.width**2))

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        outcome, away = self(controls, conditions), torch.arange(101.0, dtype=T) - controls
        return outcome, (outcome * away / self.width**2)[..., None]


def rows(*places: float) -> tuple[Tensor, Tensor]:
    controls = torch.tensor(places, dtype=T)[:, None]
    return controls, controls[:, :0]


def test_a_gaussian_blurred_is_a_wider_gaussian() -> None:
    """The variances add up, and the area stays."""
    width = math.hypot(3, 4)
    expected = Peak(width, 3 / width).linearise(*rows(45.0, 52.3))
    outcome, jacobian = Blurred(Peak(3), 4).linearise(*rows(45.0, 52.3))
    torch.testing.assert_close(outcome, expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(jacobian, expected[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(Blurred(Peak(3), 4)(*rows(45.0, 52.3)), expected[0], rtol=0, atol=1e-12)


def test_what_is_the_same_everywhere_stays_so_up_to_the_ends() -> None:
    same = torch.full((2, 7), 3.5, dtype=T)
    torch.testing.assert_close(Blurred(Peak(1), 2.5).blur(same), same)


@pytest.mark.parametrize(("blurs", "arrives"), [([], False), ([20, 10, 5], True)])
def test_a_peak_is_found_from_where_it_does_not_overlap(blurs: list[float], arrives: bool) -> None:
    ledger = Ledger()
    forward = Counted(Peak(2), ledger, simulates=True)
    wanted, none = rows(80.0)
    problem = pose(Peak(2)(wanted, none), none, BOX, 0.01, 1.0, rows(30.0)[0][None])
    before = smooth(forward, BOX, SETTINGS.model_copy(update={"blurs": blurs}), seeded())
    solution = solve_by_continuation([*before, forward], problem, LevenbergMarquardt(), seeded())
    assert (abs(float(solution.controls) - 80) < 1e-3) == arrives
    # Each look through a blurred map is one simulation with its Jacobian.
    assert ledger.gradients == ledger.simulations == int(solution.steps) + 1 + len(blurs)
