"""What the figures come down to, in words, for arrays whose numbers are known."""

import numpy as np
import pytest

from aimback.core.box import Axis
from aimback.report import takeaways
from aimback.report.views import Landscape, Surface

INF, NAN = np.inf, np.nan


def test_the_two_losses() -> None:
    true, learned = np.array([[0.0, 4.0], [2.0, INF]]), np.array([[1.0, 4.0], [2.5, 3.0]])
    surfaces = [Surface("", route, loss, {}) for route, loss in (("direct", true), ("surrogate", learned))]
    said = takeaways.tell_surfaces(Landscape([], surfaces, "", ""))
    assert said == "The two losses differ by at most 25 % of the greatest one."


def test_misses_and_flights() -> None:
    missed = {"direct": np.array([1e-9, 0.002]), "surrogate": np.array([0.5, NAN])}
    assert takeaways.tell_misses(missed, "m", 0.01) == "Within the tolerance of 0.01 m: direct 100 % and surrogate 0 %."
    said = takeaways.tell_trajectories({}, np.zeros((2, 2)), missed, "m", "m")
    assert said == "Of 2 targets the worst answer misses: direct by 0.002 m and surrogate by 0.5 m."


def test_the_last_step_counts_and_failures_are_the_greatest() -> None:
    missed = {"direct": np.array([[1.0, 1.0, 1.0], [0.1, 0.3, INF]]), "surrogate": np.array([[0.2, INF, INF]])}
    assert takeaways.tell_loss({}, missed, "m", 0.01) == (
        "In the end half of the answers miss by less than this: direct 0.3 m and surrogate ∞ m."
    )


def test_r_t_is_told_by_its_median() -> None:
    curves = {"direct": np.array([[1, 9.0, 0.1, 0.2, 0.3], [8, 9.0, 0.01, 0.02, 0.03]]), "hybrid": np.zeros((0, 5))}
    assert takeaways.tell_r_t(curves) == "The median with one candidate and with 8: direct 0.2 and 0.02."


def test_training() -> None:
    losses = np.array([1.0, 0.25, 0.5])
    said = takeaways.tell_training(np.array([10.0, 20.0, 30.0]), losses, losses)
    assert said == "The least error on validation examples, 0.25 of their variance, came after 20 steps."
    assert takeaways.tell_training(losses, losses, np.full(3, NAN)) == ""


def test_belief() -> None:
    picture = {"believed": np.array([1e-9, 1e-9, 1.0, NAN]), "miss": np.array([0.5, 1e-3, 1.0, 1.0])}
    assert takeaways.tell_belief(picture, "m", 0.01) == "Of 2 believed hits 1 truly miss."


@pytest.mark.parametrize(
    ("tell", "picture", "said"),
    [
        (
            takeaways.tell_iterations,
            {"hit_direct": np.array([0.5, 0.75]), "hit_surrogate": np.array([0.9, 0.25])},
            "At its best step size the starts that truly hit are 75 % through the simulator and 90 % through the "
            "network.",
        ),
        (
            lambda picture: takeaways.tell_basins(picture, [Axis("speed", "", 0, 1)]),
            {"direct": np.array([1.0, 0.5, NAN]), "surrogate": np.array([0.5, 0.0, 0.25])},
            "Of all pairs of a start and a target, 75 % through the simulator and 25 % through the network end in a "
            "hit.",
        ),
        (
            takeaways.tell_conditioning,
            {"hessian_condition_direct": np.array([1.0, 10.0, INF]), "hessian_condition_surrogate": np.array([3.0])},
            "The median condition number along the descents is 10 through the simulator and 3 through the network.",
        ),
        (
            takeaways.tell_gradients,
            {
                "scales": np.array([1e-4, 1e-2]),
                "relative_error": np.array([[1e-8, 1e-8], [1e-4, 1e-4]]),
                "cosine": np.array([1.0, 0.95, 0.5, -1.0, NAN]),
            },
            "The simulator's gradient agrees with differences to 1 × 10⁻⁸ at best; the network's points the same way "
            "(cosine above 0.9) at 50 % of the points.",
        ),
    ],
)
def test_claims(tell, picture, said) -> None:  # type: ignore[no-untyped-def]
    assert tell(picture) == said
