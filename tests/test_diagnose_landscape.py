"""Claims C3, C4, C6, C7 and C9 on made-up forward maps whose landscape is known in closed form."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from made_up import name_arrays
from plans import plan_claims
from problems import pose
from scipy.stats import spearmanr
from torch import Tensor

from aimback.autodiff.any_torch import linearise_by_autograd
from aimback.core.box import Axis, Box
from aimback.core.errors import OverBudgetError
from aimback.core.problem import Linearised
from aimback.data.dataset import Dataset
from aimback.data.targets import Targets, draw_targets
from aimback.diagnose import conditioning, derivatives, examination, fidelity, gradients, minima, roughness
from aimback.diagnose.case import Case
from aimback.diagnose.examination import Examination
from aimback.diagnose.statistics import correlate_ranks
from aimback.diagnose.watershed import Mesh, find_basins
from aimback.settings.build import build
from aimback.settings.claims import LEAST, DiagnoseSettings
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.starts import Starts
from aimback.tasks.base import Task
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.robotic_arm import RoboticArm
from aimback.tasks.sine_wave import SineWave

T = torch.float64
TASKS = sorted((Path(__file__).parents[1] / "conf" / "task").glob("*.yaml"))
EXAMINATIONS = [module.examine for module in (roughness, minima, conditioning, gradients)]
STARTS = Starts(number=8, drawn_from="box", until_solved=False)
SETTINGS = plan_claims(
    **{"replicas": 1, "targets": 8, "basin_points": 3, "planes": 3, "max_steps": 10},
    **{"step_sizes": [0.1], "resamples": 200},
)


class Formula(Task):
    """A task, or what a network has made of it, by a formula on the unit box; no conditions."""

    def __init__(
        self,
        formula: Callable[[Tensor], Tensor],
        controls: int = 2,
        outcomes: int = 1,
        slope: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.box = Box([Axis(f"control {number}", "", 0.0, 1.0) for number in range(controls)])
        # So that outcomes span 1 together.
        self.outcomes = Box([Axis(f"outcome {number}", "m", 0.0, outcomes**-0.5) for number in range(outcomes)])
        self.tolerance = 0.01
        self._formula = formula
        self._slope = slope

    def __call__(self, controls: Any, conditions: Tensor) -> Any:
        return self._formula(controls)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        if self._slope is not None:
            return self._formula(controls), self._slope(controls)
        return linearise_by_autograd(self, controls, conditions)


def one(formula: Callable[..., Tensor], controls: int = 2, **more: Any) -> Formula:
    """One outcome, by a function of the controls one by one."""
    return Formula(lambda points: formula(*points.unbind(-1))[..., None], controls, **more)


def seeded(purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(purpose.encode()))


def subject(task: Task, *networks: Linearised, targets: Any, settings: DiagnoseSettings = SETTINGS) -> Case:
    if not isinstance(targets, Targets):
        wanted = torch.tensor(targets, dtype=T).reshape(len(targets), -1)
        count = len(wanted)
        targets = Targets(wanted, torch.zeros(count, 0, dtype=T), torch.zeros(count), ("",) * count)
    solver = LevenbergMarquardt()
    problem = pose(targets.targets, targets.conditions, task.box, task.tolerance, 1.0, seed=sum(b"answers"))
    answer = solve(task, problem, solver, seeded("answers"))
    solutions = {"surrogate": answer, "direct": answer}
    return Case(task, networks or (task,), targets, solutions, solver, STARTS, seeded, settings, torch.device("cpu"))


# --- C3 -----------------------------------------------------------------------------------------------------------


def test_the_truth_as_network_is_exactly_as_smooth() -> None:
    task = SineWave()
    claim, _ = roughness.examine(subject(task, task, task, targets=[0.1, 0.5]))
    assert (claim.number.value, claim.number.low, claim.number.seeds) == (1, 1, (1, 1))
    assert claim.verdict == "refuted"
    told = claim.details
    assert (told["excess_variation"], told["bend_of_difference"], told["spurious_minima"]) == (0, 0, 0)
    assert (told["slices"], told["points_left_out"]) == (2, 0)


def test_a_ripple_adds_bends_and_dead_ends() -> None:
    """r = x + 0.5 + 0.1 sin(10 pi x): five minima inside, each 0.16 deep, and the truth's one at the wall."""
    task = one(lambda x: x, controls=1)
    wave = 10 * math.pi
    rippled = one(lambda x: x + 0.1 * torch.sin(wave * x), controls=1)
    claim, _ = roughness.examine(subject(task, rippled, targets=[-0.5, -0.5]))
    x = np.linspace(0, 1, 100_001)
    r, slope, bend = (
        x + 0.5 + 0.1 * np.sin(wave * x),
        1 + 0.1 * wave * np.cos(wave * x),
        -0.1 * wave**2 * np.sin(wave * x),
    )
    bends, varies = np.abs(2 * slope**2 + 2 * r * bend).mean(), np.abs(2 * r * slope).mean()
    assert claim.number.value == pytest.approx(bends / 2, rel=0.01)  # the true loss has a second derivative of 2
    assert claim.details["excess_variation"] == pytest.approx(varies / 2 - 1, rel=0.01)
    assert claim.details["spurious_minima"] == 5
    assert (claim.details["dead_ends_true"], claim.details["dead_ends_surrogate"]) == (1, 6)
    assert claim.verdict == "supported"


def test_a_ripple_below_the_tolerance_is_no_dead_end() -> None:
    """0.002 sin(60 pi x) moves the miss by less than a hit may be off; the loss bends with it all the same."""
    task = one(lambda x: x, controls=1)
    rippled = one(lambda x: x + 0.002 * torch.sin(60 * math.pi * x), controls=1)
    claim, _ = roughness.examine(subject(task, rippled, targets=[-0.5, -0.5]))
    assert claim.details["spurious_minima"] == 0
    assert claim.verdict == "supported"


def test_pits_of_a_surface_are_counted_one_by_one() -> None:
    """cos(6 pi x) cos(6 pi y) has 24 lows on the closed square; the truth's corner excuses one."""
    task = one(lambda x, y: 0.3 * (x + y))
    rippled = one(lambda x, y: 0.3 * (x + y) + 0.1 * torch.cos(6 * math.pi * x) * torch.cos(6 * math.pi * y))
    claim, _ = roughness.examine(subject(task, rippled, targets=[-1.0, -1.0]))
    assert (claim.details["dead_ends_true"], claim.details["dead_ends_surrogate"]) == (1, 24)
    assert claim.details["spurious_minima"] == 23


def test_networks_that_differ_leave_it_undecided() -> None:
    task = one(lambda x, y: x + y)
    rippled = one(lambda x, y: x + y + 0.1 * torch.sin(20 * x))
    claim, _ = roughness.examine(subject(task, task, rippled, targets=[0.5, 0.7]))
    assert claim.verdict == "undecided"


def test_a_simulator_that_jumps_is_rougher_than_its_network() -> None:
    task = one(lambda x, y: x + 0.3 * (y > 0.5))
    claim, _ = roughness.examine(subject(task, one(lambda x, y: x + 0.3 * y), targets=[0.4, 0.9]))
    assert claim.verdict == "refuted"
    assert claim.number.value is not None
    assert claim.number.value < 0.2


def test_random_planes_where_there_are_more_controls() -> None:
    """Twice the slope makes four times the bend, however a plane lies."""
    task, steeper = (one(lambda x, y, z, k=k: k * (x + 2 * y - z), controls=3) for k in (1.0, 2.0))
    claim, _ = roughness.examine(subject(task, steeper, targets=[0.4, 0.9]))
    assert claim.number.value == pytest.approx(4)
    assert claim.details["slices"] == 2 * SETTINGS.planes
    assert claim.details["points_left_out"] == 0


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    task = one(lambda x, y: torch.where(x < 0.25, torch.where(y < 0.5, torch.nan, torch.inf), x * y))
    claim, _ = roughness.examine(subject(task, one(lambda x, y: x * y), targets=[0.4, 0.5]))
    assert claim.number.value == 1
    assert claim.details["points_left_out"] == 2 * 30 * 121


def test_nothing_to_compare_is_undecided() -> None:
    task = one(lambda x, y: 0 * x + torch.nan)
    claim, _ = roughness.examine(subject(task, task, targets=[0.4, 0.5]))
    assert (claim.number.value, claim.verdict) == (None, "undecided")


def test_a_valley_is_one_minimum_however_it_runs_through_the_grid() -> None:
    along = torch.linspace(0, 1, 121, dtype=T)
    x, y = torch.meshgrid(along, along, indexing="xy")
    ring = torch.hypot(x - 0.503, y - 0.498) - 0.31  # one closed valley, and a summit inside that is no minimum
    found = find_basins(ring.reshape(1, -1, 1), Mesh.square(121), 1e-6)
    assert (int(found.minima.sum()), int(found.dead_ends.sum())) == (1, 0)
    # Two rings that do not touch are two.
    rings = torch.minimum(torch.hypot(x - 0.25, y - 0.5), torch.hypot(x - 0.75, y - 0.5)) - 0.15
    assert int(find_basins(rings.reshape(1, -1, 1), Mesh.square(121), 1e-6).minima.sum()) == 2


def test_solutions_between_the_points_of_two_outcomes() -> None:
    """A linear field is what it is taken for between the points, and its zero is found inside a cell."""
    along = torch.linspace(0, 1, 61, dtype=T)
    x, y = torch.meshgrid(along, along, indexing="xy")
    field = torch.stack([x - 0.3071, y - 0.6043], dim=-1).reshape(1, -1, 2)
    found = find_basins(field, Mesh.square(61), 1e-9)
    assert int(found.minima.sum()) == 1
    assert float(found.lowest[found.minima]) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("prominence", [0.05, 0.2, 0.4])
def test_prominent_minima_against_a_flood_point_by_point(prominence: float) -> None:
    side = 20
    heights = 1 + torch.rand(side * side, generator=seeded("heights"), dtype=T)
    found = find_basins(heights[None, :, None], Mesh.square(side), prominence)
    # Kruskal's way: the water rises over the points, and where two lakes meet the shallower one ends.
    lake: dict[int, int] = {}

    def bottom(at: int) -> int:
        return at if lake[at] == at else bottom(lake[at])

    levels, kept = heights.tolist(), 0
    for at in heights.argsort().tolist():
        lake[at] = at
        row, column = divmod(at, side)
        for down, right in ((0, 1), (1, 0), (1, -1), (0, -1), (-1, 0), (-1, 1)):
            there = (row + down) * side + column + right
            if not (0 <= row + down < side and 0 <= column + right < side and there in lake):
                continue
            deep, shallow = sorted((bottom(at), bottom(there)), key=levels.__getitem__)
            kept += deep != shallow and levels[at] - levels[shallow] > prominence
            lake[shallow] = deep
    kept += 1  # the deepest of all never ends
    assert int(found.minima.sum()) == kept


@pytest.mark.parametrize(("prominence", "count"), [(0.05, 3), (0.15, 2), (0.35, 1)])
def test_only_prominent_minima_count(prominence: float, count: int) -> None:
    """Pits at 1.0, 1.1 and 1.2 behind passes of 1.4 and 1.3: their persistences are infinite, 0.3 and 0.1."""
    heights = torch.tensor([2.0, 1.0, 1.4, 1.1, 1.3, 1.2, 2.0], dtype=T)
    found = find_basins(heights[None, :, None], Mesh.line(7), prominence)
    assert int(found.minima.sum()) == count
    lowest = found.lowest[found.minima]
    assert float(lowest.min()) == 1.0


# --- C4 -----------------------------------------------------------------------------------------------------------


def test_the_minima_of_the_truth_coincide_with_themselves() -> None:
    task = CannonVacuum()
    claim, _ = minima.examine(subject(task, task, targets=[3.0, 6.0, 9.0]))
    assert claim.verdict == "refuted"
    assert claim.number.value == pytest.approx(0, abs=1e-6)
    assert claim.details["distance_max"] == pytest.approx(0, abs=1e-12)
    assert claim.details["distance_back_max"] == pytest.approx(0, abs=1e-12)


def test_a_shifted_valley_lies_as_far_as_it_was_shifted() -> None:
    """x + y = t against x + y + 0.1 = t: parallel lines 0.1 / sqrt 2 apart, 10 tolerances beside."""
    task, shifted = one(lambda x, y: x + y), one(lambda x, y: x + y + 0.1)
    claim, _ = minima.examine(subject(task, shifted, targets=[0.9, 1.0, 1.1]))
    assert claim.verdict == "supported"
    assert claim.number.value == pytest.approx(10)
    assert claim.details["valley_miss_max"] == pytest.approx(0.1)
    for side in ("distance_median", "distance_max", "distance_back_median"):
        assert claim.details[side] == pytest.approx(0.1 / math.sqrt(2), rel=1e-5)
    assert (claim.details["solutions"], claim.details["starts_left_out"]) == (24, 0)
    undecided, _ = minima.examine(subject(task, shifted, task, targets=[0.9, 1.0, 1.1]))
    assert undecided.verdict == "undecided"


def test_solutions_of_several_outcomes_lie_apart_by_their_shift() -> None:
    task = Formula(lambda points: points + 0, outcomes=2)
    shifted = Formula(lambda points: points + torch.tensor([0.03, -0.04], dtype=T), outcomes=2)
    claim, _ = minima.examine(subject(task, shifted, targets=[[0.5, 0.5], [0.2, 0.7]]))
    assert claim.details["distance_median"] == pytest.approx(0.05)
    assert claim.details["distance_back_median"] == pytest.approx(0.05)
    # Of both outcomes the one that is farther off counts.
    assert claim.number.value == pytest.approx(4)


def test_a_valley_that_the_network_does_not_have() -> None:
    task, short = one(lambda x, y: x + y), one(lambda x, y: 0.4 * (x + y))
    claim, _ = minima.examine(subject(task, short, targets=[1.5, 1.6]))
    assert (claim.number.value, claim.verdict) == (None, "undecided")
    assert (claim.details["solutions"], claim.details["starts_left_out"]) == (0, 16)
    partly, _ = minima.examine(subject(task, short, targets=[0.5, 1.6]))
    assert partly.details["starts_left_out"] == 8
    assert partly.number.value == pytest.approx((0.5 / 0.4 - 0.5) / 0.01)


# --- C6 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flat", "verdict"), [(0.1, "supported"), (0.01, "refuted")])
def test_as_many_outcomes_as_controls(flat: float, verdict: str) -> None:
    """(x, flat y): the Hessian is diag(2, 2 flat^2) everywhere."""
    task = Formula(lambda points: points * torch.tensor([1.0, flat], dtype=T), outcomes=2)
    claim, pictures = conditioning.examine(subject(task, task, targets=[[0.5, 0.5 * flat], [0.2, 0.7 * flat]]))
    assert claim.verdict == verdict
    assert claim.number.value == pytest.approx(flat**2)
    assert claim.details["effective_condition"] == pytest.approx(flat**-2)
    assert claim.details["singular_value_least"] == pytest.approx(flat)
    assert claim.details["condition_on_the_way"] == pytest.approx(flat**-2)
    assert claim.details["negative_curvature"] == 0
    np.testing.assert_allclose(pictures["eigenvalues_direct"], [[2 * flat**2, 2]] * 16, rtol=1e-9)


def test_a_condition_that_depends_on_the_target_is_undecided() -> None:
    """(x, y^2) at y = 0.01 and y = 0.5: 4 y^2 on either side of a thousandth."""
    task = Formula(lambda points: torch.stack([points[..., 0], points[..., 1] ** 2], dim=-1), outcomes=2)
    targets = [[0.5, 1e-4], [0.5, 0.25]] * 4
    claim, _ = conditioning.examine(subject(task, task, targets=targets))
    assert claim.verdict == "undecided"


def test_more_controls_than_outcomes_make_the_hessian_singular() -> None:
    claim, pictures = conditioning.examine(subject(CannonVacuum(), targets=[2.0, 5.0, 8.0]))
    assert claim.verdict == "refuted"
    assert claim.number.value == pytest.approx(0, abs=1e-8)
    assert claim.details["effective_condition"] == claim.details["effective_condition_max"] == 1
    assert "false: with 2 controls and 1 outcome" in claim.because
    assert pictures["eigenvalues_direct"].shape == (24, 2)
    assert 10 < claim.details["condition_on_the_way"] < 1e8  # off the valley the Hessian is regular


def test_a_condition_beyond_rounding_is_not_told() -> None:
    """Of a linear outcome the Hessian is singular everywhere."""
    claim, _ = conditioning.examine(subject(one(lambda x, y: x + 2 * y), targets=[0.5, 1.5]))
    assert claim.details["condition_on_the_way"] == pytest.approx(1e8)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_share_of_negative_curvature(sign: float) -> None:
    """At r^2 = x^2 + y^2 and target 1 the loss (r^2 - 1)^2 bends by 4 (r^2 - 1) along the circle: down inside."""
    task = one(lambda x, y: sign * (x * x + y * y))
    about = subject(task, targets=[sign] * 8)
    claim, _ = conditioning.examine(about)
    descents = about.solve(task, about.targets, LevenbergMarquardt(), "conditioning: starts", STARTS)
    path = descents.history.controls
    moving = torch.arange(len(path))[:, None, None] < descents.steps
    inside = path[moving].square().sum(-1) < 1
    assert 0.1 < float(inside.double().mean()) < 0.9
    assert claim.details["negative_curvature"] == pytest.approx(float(inside.double().mean()))


def test_one_control_is_as_well_conditioned_as_can_be() -> None:
    claim, _ = conditioning.examine(subject(one(lambda x: x * x, controls=1), targets=[0.3, 0.4]))
    assert (claim.number.value, claim.verdict) == (1, "supported")


# torch's own: making a pattern of the batching rules, torch.func scripts some on first use.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("task", [CannonVacuum(), SineWave(), RoboticArm()], ids=lambda task: type(task).__name__)
def test_hessians_against_torch_func(task: Task) -> None:
    generator = seeded("hessians")
    unit = torch.rand(50, len(task.box), generator=generator, dtype=T)
    conditions = torch.zeros(50, 0, dtype=T)
    targets = task.outcomes.sample(50, generator)
    span = torch.linalg.vector_norm(task.outcomes.upper - task.outcomes.lower)

    def loss(at: Tensor, wanted: Tensor) -> Tensor:
        outcome = task(task.box.lower + at * (task.box.upper - task.box.lower), conditions[0])
        return ((outcome - wanted) / span).square().sum()

    truth = torch.func.vmap(torch.func.hessian(loss))(unit, targets)
    measured, _ = derivatives.compute_hessians(subject(task, targets=targets.tolist()), task, unit, conditions, targets)
    torch.testing.assert_close(measured, truth, rtol=1e-5, atol=1e-4)  # of eigenvalues up to some hundred


def test_hessians_of_few_points_at_a_time_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    unit, targets = torch.rand(9, 4, generator=seeded("few"), dtype=T), torch.zeros(9, 2, dtype=T)
    case = subject(RoboticArm(), targets=targets.tolist())
    together = derivatives.compute_hessians(case, case.task, unit, unit[:, :0], targets)
    monkeypatch.setattr(derivatives, "_DERIVATIVES", 2 * 4**2 * 3)
    apart = derivatives.compute_hessians(case, case.task, unit, unit[:, :0], targets)
    for one_by_one, whole in zip(apart, together, strict=True):
        assert torch.equal(one_by_one, whole)


def test_of_a_task_of_large_jacobians_less_is_looked_at() -> None:
    small, large = one(lambda x, y: x * y), Formula(lambda points: points, controls=64, outcomes=64)
    assert [small.scale_down(count, LEAST) for count in (3, 1024)] == [3, 1024]
    assert [large.scale_down(count, LEAST) for count in (3, 8, 1024)] == [3, 4, 128]
    claim, _ = gradients.examine(subject(large, targets=torch.zeros(2, 64).tolist()))
    assert claim.details["points"] == 128 and claim.number.value == pytest.approx(1)


def test_second_derivatives_next_to_a_wall_stay_inside() -> None:
    task = one(lambda x, y: torch.where((x < 0) | (y > 1), torch.nan, x * y * y))
    corner = torch.tensor([[0.0, 1.0]], dtype=T)
    bent = derivatives.compute_second_derivatives(subject(task, targets=[0.1, 0.2]), task, corner, corner[:, :0])
    torch.testing.assert_close(bent[0, 0], torch.tensor([[0.0, 2.0], [2.0, 0.0]], dtype=T), atol=1e-3, rtol=0)


def test_progress_counts_every_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "EXAMINATIONS", (lambda about: (about, 1), lambda about: (about, 2)))
    told: list[int] = []
    about: Any = SimpleNamespace(task=SineWave(), settings=SETTINGS)
    decided = examination.examine_all(about, told.append)
    assert decided == examination.examine_all(about) == ([(about, 1), (about, 2)], [])
    assert told == [1, 1]


def test_a_claim_beyond_the_budget_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def examine(about: Any) -> Any:
        raise OverBudgetError("more are needed")

    monkeypatch.setattr(examination, "EXAMINATIONS", (lambda about: (about, 1), examine))
    about: Any = SimpleNamespace(task=SineWave(), settings=SETTINGS)
    assert examination.examine_all(about, budget=10) == ([(about, 1)], ["C2"])


# --- C7 -----------------------------------------------------------------------------------------------------------


def test_a_right_gradient_and_a_network_with_the_opposite_one() -> None:
    task = SineWave()
    claim, pictures = gradients.examine(
        subject(task, Formula(lambda points: -task(points, points)), targets=[0.1, 0.2])
    )
    assert claim.verdict == "supported"
    assert claim.number.value == pytest.approx(1, abs=1e-4)
    assert claim.details["error_at_1e-06"] == pytest.approx(0, abs=1e-8)
    assert claim.details["cosine_median"] == pytest.approx(-1)
    assert claim.details["cosine_below_half"] == 1
    assert pictures["relative_error"].shape == (len(pictures["scales"]), 1024)


def test_the_error_of_differences_is_that_of_the_cube() -> None:
    """(x^3)' by central differences is off by h^2; the mean slope over [0.01, 0.99] is 0.98."""
    claim, _ = gradients.examine(subject(one(lambda x: x**3, controls=1), targets=[0.1, 0.2]))
    assert claim.details["error_at_1e-02"] == pytest.approx(1e-4 / 0.98, rel=0.1)
    assert claim.number.value == pytest.approx(1, abs=1e-10)  # extrapolated, a cube has no error left


def test_a_simulator_that_only_jumps() -> None:
    """The gradient is nought almost everywhere, and the outcome changes."""
    task = one(lambda x, y: (x + 0.1 * y > 0.5).to(x) + 0 * x)
    claim, _ = gradients.examine(subject(task, targets=[0.0, 1.0]))
    assert (claim.number.value, claim.verdict) == (0, "refuted")
    assert claim.details["cosine_median"] is None


def test_a_gradient_of_the_wrong_sign() -> None:
    """As of a ball reflected at the end of the step in which it hits: +1 where the truth is -1."""
    task = one(lambda x: 1 - x, controls=1, slope=lambda points: torch.ones_like(points)[..., None])
    claim, _ = gradients.examine(subject(task, targets=[0.4, 0.5]))
    assert claim.number.value == pytest.approx(-1)
    assert claim.verdict == "refuted"


def test_a_gradient_that_is_right_only_infinitesimally() -> None:
    """Teeth that rise by 1 and jump back by 2 a box length: +1 by every derivative, -1 by every step."""
    tooth = 1e-3
    task = one(lambda x: 1 - x + 2 * torch.remainder(x, tooth), controls=1)
    claim, _ = gradients.examine(subject(task, targets=[0.4, 0.5]))
    assert claim.verdict == "refuted"
    assert claim.details["error_at_1e-06"] == pytest.approx(0, abs=1e-6)
    assert claim.details["error_at_1e-02"] == pytest.approx(2, rel=0.1)


def test_a_small_jump_leaves_it_undecided() -> None:
    """Of a change by 1 + 1/19 the slope tells 95 %, the bound itself."""
    task = one(lambda x: x + (x > 0.5).to(x) / 19, controls=1)
    claim, _ = gradients.examine(subject(task, targets=[0.4, 0.5]))
    assert claim.verdict == "undecided"


def test_differences_stay_inside_the_box() -> None:
    task = one(lambda x, y: torch.where((x < 0) | (x > 1) | (y < 0) | (y > 1), torch.nan, x * y))
    claim, _ = gradients.examine(subject(task, targets=[0.1, 0.2]))
    assert claim.details["points_left_out"] == 0
    gap = one(lambda x, y: torch.where(x < 0.5, torch.inf, x * y))
    claim, _ = gradients.examine(subject(gap, gap, targets=[0.6, 0.7]))
    assert claim.details["points_left_out"] == pytest.approx(512, abs=60)
    assert claim.verdict == "supported"


# --- all ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examine", EXAMINATIONS, ids=lambda examine: examine.__module__.rpartition(".")[2])
def test_the_same_seed_gives_the_same_claim(examine: Examination) -> None:
    settings = SETTINGS.model_copy(update={"points": 21})
    network = one(lambda x, y: 5 * x * y + 0.1)
    claims = [examine(subject(CannonVacuum(), network, targets=[2.0, 3.0, 5.0], settings=settings)) for _ in range(2)]
    assert claims[0][0] == claims[1][0]
    for name, values in claims[0][1].items():
        np.testing.assert_array_equal(values, claims[1][1][name])


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, marks=[pytest.mark.slow] if file.stem == "trebuchet" else [], id=file.stem)
        for file in TASKS
        if file.stem not in ("heat", "shell")  # of 128 controls, or of long recurrences, whose claims take minutes
    ],
)
def test_every_task_is_examined_to_the_end(file: Path) -> None:
    node = yaml.safe_load(file.read_text())[file.stem]
    # A quarter of the trebuchet's steps lead to the end as well, and a fifth of the pendulum's.
    fewer = {"trebuchet": {"steps": 12}, "double_pendulum": {"time_step": 0.05}}
    task = build(node | fewer.get(file.stem, {}), Task, "task")
    settings = SETTINGS.model_copy(update={"targets": 2, "starts": 2, "points": 8, "planes": 1, "resamples": 100})
    targets = draw_targets(task, 2, seeded("targets"))
    for examine in EXAMINATIONS:
        claim, pictures = examine(subject(task, task, targets=targets, settings=settings))
        assert claim.verdict in ("supported", "refuted", "undecided")
        numbers = [value for value in claim.metrics().values() if isinstance(value, float)]
        assert all(math.isfinite(number) for number in numbers)
        assert pictures.keys() == name_arrays(claim.key, len(task.box))
        # On a rough task hardly a start arrives, and the pictures of solutions are empty.
        assert file.stem == "bouncing_ball" or all(map(len, pictures.values()))


# --- C9 -----------------------------------------------------------------------------------------------------------


def schooled(task: Task, networks: Sequence[Linearised], wanted: Sequence[float]) -> tuple[Case, list[Dataset]]:
    """A case whose trainings, three seeds a size, make these networks in turn; and the data sets they are given."""
    settings = SETTINGS.model_copy(update={"examples": [400, 100], "replicas": 2})
    given: list[Dataset] = []

    def train(dataset: Dataset, seeds: Sequence[int]) -> Sequence[Linearised]:
        given.append(dataset)
        return networks[3 * len(given) - 3 :][: len(set(seeds))]

    return replace(subject(task, targets=wanted, settings=settings), train=train), given


def test_errors_and_angles_of_networks_are_those_by_hand() -> None:
    task = one(lambda x, y: x + y)
    shifted = [one(lambda x, y, by=by: x + y + by) for by in (0.02, 0.03, 0.04)]
    tilted = [one(lambda x, y, by=by: x + (1 + by) * y) for by in (0.1, 0.2, 0.3)]
    case, given = schooled(task, [*shifted, *tilted], [0.8, 1.0, 1.2])
    claim, picture = fidelity.examine(case)
    small, great = given
    assert (small.n_training, great.n_training, small.n_validation, great.n_validation) == (90, 360, 40, 40)
    torch.testing.assert_close(small.controls, torch.cat([great.controls[:90], great.controls[360:]]), rtol=0, atol=0)
    held_out = great.controls[360:]
    spread = float(held_out.sum(-1).std(correction=0))
    tilts = np.array([0.1, 0.2, 0.3])
    off = np.concatenate([[0.02, 0.03, 0.04], tilts * float(held_out[:, 1].square().mean().sqrt())])
    np.testing.assert_allclose(picture["forward_error"], off / spread, rtol=1e-12)
    angles = (2 + tilts) / np.sqrt(2 * (1 + (1 + tilts) ** 2))
    np.testing.assert_allclose(picture["cosine"], [1, 1, 1, *angles], rtol=1e-12)
    np.testing.assert_allclose(picture["miss"][:3], [0.02, 0.03, 0.04], rtol=1e-6)
    assert picture["examples"].tolist() == [100] * 3 + [400] * 3
    told = claim.details
    assert told["forward_error_100"] == pytest.approx(0.03 / spread) and told["miss_100"] == pytest.approx(0.03)
    assert told["cosine_400"] == told["cosine_random_400"] == pytest.approx(angles[1])


@pytest.mark.parametrize(
    ("misses", "verdict"),
    [
        ([0.006, 0.005, 0.004, 0.003, 0.002, 0.001], "supported"),
        ([0.001, 0.002, 0.003, 0.004, 0.005, 0.006], "refuted"),
        ([0.003, 0.006, 0.001, 0.004, 0.002, 0.005], "undecided"),
    ],
)
def test_whether_a_better_network_misses_by_less(misses: Sequence[float], verdict: str) -> None:
    """Each network is better than the one before almost everywhere, but where the answers are it errs as it is told."""
    task = one(lambda x, y: x + y)
    networks = [
        one(lambda x, y, off=off, by=by: x + y + torch.where((x + y - 1).abs() < 0.1, by, off))
        for off, by in zip((0.06, 0.05, 0.04, 0.03, 0.02, 0.01), misses, strict=True)
    ]
    claim, picture = fidelity.examine(schooled(task, networks, [1.0, 1.0])[0])
    np.testing.assert_allclose(picture["miss"], misses, rtol=1e-6)
    assert (np.diff(picture["forward_error"]) < 0).all()
    assert claim.verdict == verdict


@pytest.mark.parametrize(
    ("follows", "said"), [(1, "the gradient"), (0, "the forward error"), (None, "neither tells the miss better than")]
)
def test_what_tells_the_miss_better(follows: int | None, said: str) -> None:
    measured = torch.rand(12, 4, generator=seeded("networks"), dtype=T)
    if follows is not None:
        measured[:, 3] = measured[:, follows] * (1, -1)[follows]
    *_, ahead = fidelity._correlate(subject(SineWave(), targets=[0.1, 0.2]), measured)
    assert fidelity._choose(ahead).startswith(said)


def test_ranks_correlate_as_by_scipy() -> None:
    pairs = torch.randint(5, (3, 9, 2), generator=seeded("ties")).double()
    pairs[0, 2, 1] = torch.inf
    expected = [spearmanr(*sample.T.numpy()).statistic for sample in pairs]
    np.testing.assert_allclose(correlate_ranks(pairs), expected, rtol=1e-12)
    assert correlate_ranks(torch.ones(4, 2)).isnan()
