"""Claims C1, C2, C5 and C8 on made-up forward maps whose truth is known in closed form."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from made_up import name_arrays, published_bounce
from plans import plan_claims
from problems import Off
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.problem import History, Linearised, Solution
from aimback.data.targets import Targets, draw_targets
from aimback.diagnose import basins, comparison, iterations, misbelief, warm_start
from aimback.diagnose.case import Case
from aimback.settings.claims import DiagnoseSettings
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.solver import Solver
from aimback.solve.starts import Starts
from aimback.tasks.ball_with_wall import BallWithWall
from aimback.tasks.ballistics import Ballistics
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.robotic_arm import RoboticArm
from aimback.tasks.sine_wave import SineWave
from aimback.tasks.trebuchet import Trebuchet

T = torch.float64
TOLERANCE = 0.01
STARTS = Starts(number=4, drawn_from="box", until_solved=False)
SETTINGS = plan_claims(
    **{"replicas": 0, "targets": 8, "starts": 4, "points": 9, "basin_points": 31, "planes": 1},
    **{"max_steps": 60, "step_sizes": [0.1], "resamples": 200},
)
Curve = Callable[[Tensor], Tensor]


class OfX(Task):
    """A map of the first control alone, with one outcome of span 1; the box is the unit cube."""

    def __init__(self, value: Curve, slope: Curve, controls: int = 1) -> None:
        self.value, self.slope = value, slope
        self.box = Box([Axis(name, "m", 0.0, 1.0) for name in "xyzw"[:controls]])
        self.outcomes = Box([Axis("reached", "m", 0.0, 1.0)])
        self.tolerance = TOLERANCE

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self.value(controls[..., :1])

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        jacobian = torch.zeros_like(controls)
        jacobian[..., :1] = self.slope(controls[..., :1])
        return self(controls, conditions), jacobian[..., None, :]

    def reach(self, conditions: Tensor) -> None:
        return None


def line(slope: float = 1.0, through: float = 0.0, controls: int = 1) -> OfX:
    """The line with this slope that is the identity at `through`."""
    return OfX(lambda x: through + slope * (x - through), lambda x: torch.full_like(x, slope), controls)


def shifted(by: float) -> OfX:
    return OfX(lambda x: x + by, torch.ones_like)


# Two hills of slope 30 (x - 0.3) (x - 0.65): up to 0.7425 at x = 0.3, down to 0.53, and on to 1.6 at x = 1.
HILLS = (
    lambda x: 30 * (x**3 / 3 - 0.475 * x**2 + 0.195 * x),
    lambda x: 30 * (x - 0.3) * (x - 0.65),
)


def generator(purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "big"))


def made(
    task: Task,
    networks: Sequence[Linearised],
    wanted: Sequence[float] | Targets,
    solver: Solver | None = None,
    settings: DiagnoseSettings = SETTINGS,
) -> Case:
    """A subject whose answers are those of the solver."""
    if not isinstance(wanted, Targets):
        count = len(wanted)
        wanted = Targets(
            torch.tensor(wanted, dtype=T)[:, None], torch.zeros(count, 0, dtype=T), torch.zeros(count), ("",) * count
        )
    solver = solver or LevenbergMarquardt()
    subject = Case(task, networks, wanted, {}, solver, STARTS, generator, settings, torch.device("cpu"))  # type: ignore[arg-type]
    solutions = {
        name: subject.solve(forward, wanted, solver, "run", STARTS)
        for name, forward in (("surrogate", networks[0]), ("direct", subject.task))
    }
    return replace(subject, solutions=solutions)


def evenly(count: int) -> list[float]:
    return torch.linspace(0.3, 0.7, count, dtype=T).tolist()


def starts_of(subject: Case) -> Tensor:
    """The first control of the starts, `(n_targets, n_starts)`."""
    return comparison.draw_even_starts(subject, len(comparison.choose_targets(subject)))[..., 0]


def contracting(distance: Tensor, factor: float) -> Tensor:
    """Steps of a sequence `distance * factor^k` until it is within the tolerance."""
    return (math.log(TOLERANCE) - distance.abs().log()).div(math.log(factor)).ceil().clamp(min=0)


def test_a_surrogate_that_is_the_simulator_neither_errs_nor_is_slower() -> None:
    subject = made(line(), [line(), line()], evenly(20))
    claim, pictures = misbelief.examine(subject)
    assert claim.verdict == "refuted"
    assert claim.number.value == 0 and claim.number.high == 0 and claim.number.seeds == (0, 0)
    assert claim.details["miss_greatest"] is None and claim.details["believed_share"] == 1
    assert pictures["miss"].max() < 1e-9

    claim, pictures = iterations.examine(subject)
    assert claim.verdict == "refuted"
    assert (claim.number.value, claim.number.low, claim.number.high, claim.number.seeds) == (1, 1, 1, (1, 1))
    assert claim.details["solver_ratio"] == claim.details["same_size_ratio"] == 1
    assert (pictures["curve_direct"] == pictures["curve_surrogate"]).all()

    claim, pictures = basins.examine(subject)
    assert claim.verdict == "supported" and claim.number.value == 1
    assert claim.details["ahead"] == claim.details["ahead_low"] == claim.details["ahead_high"] == 0
    assert (pictures["direct"] == pictures["surrogate"]).all()
    assert (pictures["gradient_direct"] == pictures["gradient_surrogate"]).all()


def test_a_shifted_surrogate_misses_every_target_by_its_shift() -> None:
    subject = made(line(), [shifted(0.04), shifted(0.03)], evenly(20))
    claim, pictures = misbelief.examine(subject)
    assert claim.verdict == "supported" and claim.number.value == 1 and claim.number.seeds == (1, 1)
    for name in ("median", "p90", "greatest"):
        assert claim.details[f"miss_{name}"] == pytest.approx(0.04, abs=1e-9)
        assert claim.details[f"miss_{name}_tolerances"] == pytest.approx(4, abs=1e-6)
    assert claim.details["share_of_single_descents"] == 1
    assert pictures["believed"].max() < 1e-9 and pictures["miss"] == pytest.approx(0.04, abs=1e-9)
    assert claim.because == (
        "Of 20 targets that the surrogate route believes to have hit, 100.0 % are missed, half of these by more than "
        "0.04 m, the worst by 0.04 m, 4.0 times the tolerance."
    )


def test_one_target_in_fifty_is_too_few_to_say() -> None:
    # Wrong at a single place, where one of the targets happens to be.
    bump = OfX(lambda x: torch.where(x > 0.9, x + 0.04, x), torch.ones_like)
    claim, _ = misbelief.examine(made(line(), [bump], [*evenly(49), 0.97]))
    assert claim.number.value == pytest.approx(0.02) and claim.number.low == 0
    assert claim.verdict == "undecided"


def test_a_surrogate_that_believes_in_nothing_misleads_nobody() -> None:
    flat = OfX(torch.zeros_like, torch.zeros_like)
    claim, _ = misbelief.examine(made(line(), [flat], evenly(5)))
    assert claim.verdict == "undecided" and claim.number.value is None
    assert claim.details["believed_share"] == 0 and claim.details["share_of_single_descents"] is None


def test_a_simulation_that_fails_is_a_miss() -> None:
    broken = OfX(lambda x: torch.where(x > 0.5, torch.nan, x), torch.ones_like)
    claim, pictures = misbelief.examine(made(broken, [line()], [0.2, 0.3, 0.6, 0.8]))
    assert claim.number.value == 0.5 and claim.details["miss_greatest"] is None
    assert math.isinf(pictures["miss"].max())


@pytest.mark.parametrize(("slope", "verdict"), [(0.7, "supported"), (1.0, "refuted"), (1.5, "refuted")])
def test_gradient_descent_on_a_line_takes_the_steps_of_a_geometric_series(slope: float, verdict: str) -> None:
    subject = made(line(), [line(slope, through=0.5)], [0.5] * 8)
    claim, pictures = iterations.examine(subject)
    distance = starts_of(subject) - 0.5
    direct, through = (contracting(distance, 1 - 2 * 0.1 * by**2) for by in (1, slope))
    assert claim.number.value == pytest.approx(float(through.mean() / direct.mean()))
    assert claim.verdict == verdict
    assert claim.details["steps_direct"] == pytest.approx(float(direct.mean()))
    assert claim.details["steps_surrogate"] == pytest.approx(float(through.mean()))
    assert claim.details["ratio_where_both_hit"] == pytest.approx(claim.number.value)
    assert pictures["curve_direct"] == pytest.approx(
        [float((direct <= step).double().mean()) for step in range(SETTINGS.max_steps + 1)]
    )


def test_each_route_has_its_own_best_step_size() -> None:
    # Half the slope: what takes the direct route to the target in one step is a quarter of what takes the other there.
    settings = SETTINGS.model_copy(update={"step_sizes": [0.1, 0.5, 2.0]})
    claim, pictures = iterations.examine(made(line(), [line(0.5, through=0.5)], [0.5] * 8, settings=settings))
    assert (claim.details["size_direct"], claim.details["size_surrogate"]) == (0.5, 2.0)
    assert claim.number.value == 1 and claim.verdict == "refuted"
    assert claim.details["same_size_ratio"] is not None and claim.details["same_size_ratio"] < 0.1
    assert pictures["hit_direct"].tolist()[:2] == [1, 1] and pictures["hit_direct"][2] < 0.2


def test_a_size_is_chosen_by_other_targets_than_it_is_measured_on() -> None:
    never, soon = [-1, -1], [1, 1]
    # The first size is the better one for even targets, the second for odd ones: each gets the other's.
    steps = torch.tensor([[soon, never] * 2, [never, soon] * 2])
    assert (iterations._at_best_size(steps, 9) == -1).all()
    assert (iterations._at_best_size(steps[:, :1], 9) == 1).all()


def test_starts_that_never_arrive_count_with_the_limit() -> None:
    flat = OfX(lambda x: torch.full_like(x, 5.0), torch.zeros_like)
    subject = made(line(), [flat], [0.5] * 8)
    claim, _ = iterations.examine(subject)
    distance = starts_of(subject) - 0.5
    there = distance.abs() <= TOLERANCE
    direct = contracting(distance, 0.8)
    restricted = torch.where(there, 0.0, SETTINGS.max_steps)
    assert claim.number.value == pytest.approx(float(restricted.mean() / direct.mean()))
    assert claim.verdict == "supported"
    assert claim.details["hit_surrogate"] == float(there.double().mean())


def test_where_nothing_arrives_nothing_is_decided() -> None:
    flat = OfX(lambda x: torch.full_like(x, 5.0), torch.zeros_like)
    claim, _ = iterations.examine(made(flat, [flat], evenly(8)))
    assert claim.verdict == "undecided" and claim.number.value is None
    assert claim.details["ratio_where_both_hit"] is None


def test_networks_that_disagree_leave_it_undecided() -> None:
    claim, _ = iterations.examine(made(line(), [line(0.7, through=0.5), line(1.5, through=0.5)], [0.5] * 8))
    assert claim.number.low is not None and claim.number.low > 1.05
    assert claim.number.seeds[1] is not None and claim.number.seeds[1] < 1
    assert claim.verdict == "undecided"


def test_passing_by_the_target_counts_as_being_there() -> None:
    # It ends 0.05 beyond the target, after 1 % steps through the tolerance.
    subject = made(line(), [shifted(0.05)], [0.5], GradientDescent(step_size=0.01, max_steps=400))
    subject = replace(subject, settings=SETTINGS.model_copy(update={"max_steps": 400}))
    beyond = torch.tensor([[[0.8], [0.2]]], dtype=T)
    steps = comparison.count_steps(
        subject, subject.networks[0], subject.targets, comparison.limit_steps(subject, subject.solver), beyond
    )
    # x - 0.45 shrinks by 0.98 a step; from above it comes by 0.51, from below it never gets further than 0.45.
    assert steps.tolist() == [[math.ceil(math.log(0.06 / 0.35) / math.log(0.98)), -1]]


def test_paths_do_not_depend_on_how_many_are_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = made(CannonVacuum(), [Off(CannonVacuum(), 0.005)], draw_targets(CannonVacuum(), 8, generator("t")))
    targets, starts = subject.targets, comparison.draw_even_starts(subject, 8)
    together = comparison.count_steps(subject, subject.networks[0], targets, subject.solver, starts)
    monkeypatch.setattr(comparison, "HISTORY_ROWS", 9)
    assert (comparison.count_steps(subject, subject.networks[0], targets, subject.solver, starts) == together).all()
    assert (together >= 0).any()


def test_the_ladder_is_gradient_descent_by_each_size() -> None:
    task = CannonVacuum()
    settings = SETTINGS.model_copy(update={"step_sizes": [0.03, 0.3]})
    subject = made(task, [Off(task, 0.005)], draw_targets(task, 8, generator("t")), settings=settings)
    ladder = comparison.descend_ladder(subject)
    assert comparison.descend_ladder(subject) is ladder
    for row, size in enumerate(settings.step_sizes):
        solver = comparison.limit_steps(subject, GradientDescent(step_size=size))
        for forward, steps in ((task, ladder.direct), (subject.networks[0], ladder.networks[0])):
            alone = comparison.count_steps(
                subject, forward, subject.targets, solver, comparison.draw_even_starts(subject, 8)
            )
            assert (steps[row] == alone).all()
    assert len(ladder.direct.unique()) > 5


def test_targets_out_of_reach_are_left_out() -> None:
    task = CannonVacuum()
    wanted = draw_targets(task, 8, generator("t"))
    wanted.targets[3] = 50.0
    subject = made(task, [task], wanted)
    assert comparison.choose_rows(subject).tolist() == [0, 1, 2, 4, 5, 6, 7]
    wanted.targets[:] = 50.0
    assert len(comparison.choose_rows(made(task, [task], wanted))) == 8
    claim, _ = iterations.examine(made(task, [task], wanted))
    assert claim.verdict == "undecided"


@pytest.mark.parametrize("controls", [1, 2, 3])
def test_the_basin_of_the_higher_hill_begins_in_the_valley(controls: int) -> None:
    hills = OfX(*HILLS, controls)
    solution = 0.937553  # where the hills reach 1.2
    assert float(hills(torch.tensor([solution], dtype=T), torch.zeros(0))) == pytest.approx(1.2, abs=1e-4)
    across = OfX(lambda x: 1.2 + 2 * (x - solution), lambda x: torch.full_like(x, 2.0), controls)
    descent = GradientDescent(step_size=0.003, max_steps=400)
    settings = SETTINGS.model_copy(update={"max_steps": 400, "step_sizes": [0.003]})
    claim, pictures = basins.examine(made(hills, [across], [1.2] * 2, descent, settings))
    line_of_starts = torch.linspace(0, 1, 31, dtype=T)
    beyond = (line_of_starts > 0.65).double()
    assert claim.number.value == pytest.approx(float(beyond.mean()))
    assert claim.verdict == "refuted"
    assert claim.details["surrogate"] == 1 and claim.details["ahead"] == pytest.approx(float(beyond.mean()) - 1)
    assert claim.details["direct_inside"] == pytest.approx(float(beyond[1:-1].mean()))
    assert claim.details["direct_far_corner"] == 1 and claim.details["direct_corners"] == 0.5
    assert "from the edge x = 0 m: 0.0 %" in claim.because
    shape = (31,) if controls == 1 else (31, 31)
    for name in ("direct", "gradient_direct"):
        assert torch.equal(torch.from_numpy(pictures[name]), beyond.expand(shape))
    assert set(pictures) >= ({"axis_x"} if controls == 1 else {"axis_x", "axis_y"})
    assert pictures["axis_x"] == pytest.approx(line_of_starts.numpy())


def test_one_target_in_eight_leaves_robustness_undecided() -> None:
    claim, _ = basins.examine(made(line(), [line()], [*evenly(7), 5.0]))
    assert claim.number.value == pytest.approx(7 / 8)
    assert claim.number.high == 1 and claim.verdict == "undecided"


def test_starts_where_the_simulation_fails_do_not_arrive() -> None:
    broken = OfX(lambda x: torch.where(x < 0.19, torch.nan, x), torch.ones_like)
    claim, pictures = basins.examine(made(broken, [line()], evenly(8)))
    lost = torch.linspace(0, 1, 31, dtype=T) < 0.19
    assert (pictures["direct"] == (~lost).double().numpy()).all()
    assert claim.details["surrogate"] == 1


def test_an_answer_outside_the_box_is_no_hit() -> None:
    subject = made(line(), [line()], [1.5])
    miss = comparison.measure_miss(subject, subject.targets, torch.tensor([[[1.5], [1 + 1e-9], [0.9]]], dtype=T))
    assert miss.tolist() == [[math.inf, pytest.approx(0.5), pytest.approx(0.6)]]


def proposing(subject: Case, proposals: Tensor) -> Case:
    """The same with a hybrid route that begins there, one proposal a target."""
    start = proposals[:, None, None]
    nothing = torch.zeros(len(proposals), 1, dtype=T)
    hybrid = Solution(start, nothing, nothing, nothing, nothing, History(start[None], nothing[None]))
    return replace(subject, solutions={**subject.solutions, "hybrid": hybrid})


@pytest.mark.parametrize(
    ("off", "verdict"), [(0.0, "supported"), (0.02, "supported"), (0.04, "undecided"), (0.5, "refuted")]
)
def test_a_warm_start_saves_the_steps_of_the_way(off: float, verdict: str) -> None:
    subject = made(line(), [line()], [0.5] * 8)
    subject = proposing(subject, torch.full((8,), 0.5 + off, dtype=T))
    claim, _ = warm_start.examine(subject)
    cold = contracting(starts_of(subject) - 0.5, 0.8)
    warm = contracting(torch.full((8,), off, dtype=T).clamp(min=1e-9), 0.8)
    assert claim.number.value == pytest.approx(float((cold + 1).mean() / (warm + 1).mean()))
    assert claim.verdict == verdict
    assert claim.details["instant_share"] == float(off == 0)


def test_without_a_hybrid_route_there_is_no_warm_start() -> None:
    claim, _ = warm_start.examine(made(line(), [line()], evenly(4)))
    assert claim.verdict == "undecided" and claim.number.value is None


@pytest.mark.parametrize(
    "task",
    [
        CannonVacuum(),
        CannonDrag(),
        Ballistics(),
        RoboticArm(),
        SineWave(),
        BallWithWall(),
        published_bounce(),
        pytest.param(Trebuchet(steps=12), marks=pytest.mark.slow),
    ],
    ids=lambda task: type(task).__name__,
)
@pytest.mark.parametrize("drawn_from", ["box", "prior"])
def test_every_task_comes_to_a_verdict_and_twice_to_the_same(task: Task, drawn_from: str) -> None:
    settings = SETTINGS.model_copy(
        update={"targets": 2, "starts": 1, "basin_points": 3, "max_steps": 2, "step_sizes": [0.1, 0.3]}
    )
    solver = LevenbergMarquardt()  # so that nothing is left for which a task searches its reach
    subject = made(task, [Off(task, 3 * task.tolerance)], draw_targets(task, 3, generator("t")), solver, settings)
    subject = replace(subject, starts=Starts(number=4, drawn_from=drawn_from, until_solved=False))
    for examine in (misbelief.examine, iterations.examine, basins.examine):
        claim, pictures = examine(subject)
        assert pictures.keys() == name_arrays(claim.key, len(task.box))
        again, same = examine(replace(subject))
        assert claim.metrics() == again.metrics() and claim.because == again.because
        assert all((pictures[name] == same[name]).all() for name in pictures)
        assert claim.because.endswith(".") and "nan" not in claim.because
