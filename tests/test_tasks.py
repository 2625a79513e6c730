"""The laws that every task keeps. A task named in conf/task is taken up by itself."""

import math
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from aimback.autodiff.any_torch import linearise_by_autograd, linearise_by_jvp
from aimback.core.errors import UserError
from aimback.settings.build import build
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.laws import LAWS, draw_inside
from aimback.tasks.reach import search_reach

T = torch.float64
G = 9.80665
MOST_CORNERS = 10_000
MANY_OUTCOMES, FEW = 16, 20
TASKS = sorted(path.stem for path in (Path(__file__).parents[1] / "conf" / "task").glob("*.yaml"))


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    """A task as conf/ describes it."""
    file = Path(__file__).parents[1] / "conf" / "task" / f"{request.param}.yaml"
    return build(yaml.safe_load(file.read_text())[request.param], Task, f"task.{request.param}")


def bound(task: Task, count: int) -> int:
    """So many points, or a few where each is a field or a spectrum: autograd takes a pass an outcome."""
    return min(count, FEW) if len(task.outcomes) > MANY_OUTCOMES else count


def differentiate(task: Task, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
    """Value and Jacobian as torch has them: a pass an outcome, or where these are many, a pass a control."""
    if len(task.outcomes) <= MANY_OUTCOMES:
        return linearise_by_autograd(task, controls, conditions)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # what torch itself does in there
        return linearise_by_jvp(task, controls, conditions)


def faces(task: Task) -> tuple[Tensor, Tensor]:
    """Every combination of lower bound, middle, upper bound, and numbers just inside; of many axes a sample of them."""
    levels = torch.tensor([0.0, 1e-15, 1e-9, 1e-3, 0.5, 1 - 1e-9, 1.0], dtype=T)
    axes = [levels] * len(task.box) + [torch.tensor([0.0, 0.5, 1.0], dtype=T)] * len(task.conditions)
    if math.prod(map(len, axes)) <= MOST_CORNERS:
        grid = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    else:
        generator = torch.Generator().manual_seed(0)
        count = bound(task, MOST_CORNERS)
        picked = [axis[torch.randint(len(axis), (count,), generator=generator)] for axis in axes]
        grid = torch.stack(picked, dim=-1)
    controls, conditions = grid.split([len(task.box), len(task.conditions)], dim=1)
    return task.box.from_unit(controls), task.conditions.from_unit(conditions)


@pytest.mark.parametrize("law", LAWS)
def test_a_law_of_every_task(task: Task, law: str) -> None:
    """Those that a user's own task is held to as well; what follows is for ours alone."""
    LAWS[law](task)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_finite_on_the_closed_box(task: Task, dtype: torch.dtype, device: torch.device) -> None:
    controls, conditions = (points.to(device, dtype) for points in faces(task))
    outcome, jacobian = task.linearise(controls, conditions)
    assert outcome.dtype == jacobian.dtype == dtype
    assert outcome.shape == (len(controls), len(task.outcomes))
    assert jacobian.shape == (len(controls), len(task.outcomes), len(task.box))
    assert bool(torch.isfinite(outcome).all())
    assert bool(torch.isfinite(jacobian).all())
    value, gradient = differentiate(task, controls, conditions)
    assert bool(torch.isfinite(gradient).all())
    close = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 2e-3, "atol": 2e-3}
    torch.testing.assert_close(outcome, value, rtol=0, atol=0)
    largest = gradient.abs().max().clamp_min(1)
    torch.testing.assert_close(jacobian / largest, gradient / largest, **close)


def test_gradcheck(task: Task) -> None:
    """Within what discretisation leaves: a grid may follow the controls, which is not differentiated.

    The rows' sum has the gradient of every row: one backward pass an outcome instead of one a row and outcome.
    """
    controls, conditions = draw_inside(task, 8)
    assert torch.autograd.gradcheck(
        lambda points: task(points, conditions).sum(0),
        (controls.requires_grad_(),),
        eps=1e-7,  # short, for a task may have jumps beside its points
        atol=2e-5,
        rtol=2e-5,
        fast_mode=len(task.outcomes) > MANY_OUTCOMES,
    )


def test_one_pass_agrees_with_autograd_and_with_a_call(task: Task, device: torch.device) -> None:
    controls, conditions = (points.to(device) for points in draw_inside(task, bound(task, 200)))
    outcome, jacobian = task.linearise(controls, conditions)
    value, gradient = differentiate(task, controls, conditions)
    torch.testing.assert_close(outcome, value, rtol=0, atol=0)
    torch.testing.assert_close(jacobian, gradient, rtol=1e-10, atol=1e-10)
    assert "_mode" not in vars(task)  # by dual numbers


def test_a_sample_alone_has_the_bits_of_its_row_in_a_batch(task: Task) -> None:
    controls, conditions = draw_inside(task, bound(task, 100))
    outcome, jacobian = task.linearise(controls, conditions)
    for row in (0, 17, -1):
        alone = task.linearise(controls[row], conditions[row])
        torch.testing.assert_close(alone[0], outcome[row], rtol=0, atol=0)
        torch.testing.assert_close(alone[1], jacobian[row], rtol=0, atol=0)


def test_of_no_samples_there_are_no_outcomes(task: Task) -> None:
    none = task.box.lower.expand(0, -1), task.conditions.lower.expand(0, -1)
    outcome, jacobian = task.linearise(*none)
    assert task(*none).shape == outcome.shape == (0, len(task.outcomes))
    assert jacobian.shape == (0, len(task.outcomes), len(task.box))


def test_float32_costs_digits_and_no_more(task: Task) -> None:
    controls, conditions = draw_inside(task, bound(task, 500))
    span = task.outcomes.upper - task.outcomes.lower
    error = (task(controls.float(), conditions.float()).double() - task(controls, conditions)).abs() / span
    assert float(error.median()) < 1e-6
    assert float(error.max()) < 1e-5


def test_outcomes_lie_in_the_span_that_the_task_states(task: Task) -> None:
    controls, conditions = draw_inside(task, bound(task, 2000))
    outcome = task(controls, conditions)
    slack = 1e-6 * (task.outcomes.upper - task.outcomes.lower)
    assert bool((outcome >= task.outcomes.lower - slack).all())
    assert bool((outcome <= task.outcomes.upper + slack).all())


def test_reach_bounds_every_outcome_and_is_reached(task: Task) -> None:
    """Each end of each component, approached by a random search that closes in."""
    _, conditions = draw_inside(task, 1)
    reach = task.reach(conditions)
    if reach is None:
        return  # the task cannot tell, and says so
    low, high = (end[0] for end in reach)
    assert low.shape == high.shape == (len(task.outcomes),)
    span = high - low
    generator = torch.Generator().manual_seed(0)
    for component in range(len(task.outcomes)):
        for sign, end in ((-1.0, low), (1.0, high)):
            unit = torch.rand(2000, len(task.box), generator=generator, dtype=T)
            for width in (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01):
                outcome = task(task.box.from_unit(unit), conditions.expand(len(unit), -1))
                assert bool(((outcome >= low - 1e-8 * span) & (outcome <= high + 1e-8 * span)).all())
                best = unit[(sign * outcome[:, component]).argmax()]
                around = width * (torch.rand(2000, len(task.box), generator=generator, dtype=T) - 0.5)
                unit = torch.cat([best[None], (best + around).clamp(0, 1)])
            closest = (outcome - end).abs()[:, component].min()
            assert float(closest) < 1e-3 * float(span[component])


def test_trajectory_ends_at_the_outcome(task: Task) -> None:
    """At its x, and where y is an outcome too, at both; at its y where that is the outcome."""
    controls, conditions = draw_inside(task, 20)
    path = task.trajectory(controls, conditions, 50)
    if path is None:
        return  # nothing to draw
    assert path.shape == (20, 50, 2)
    known = slice(1, 2) if task.outcomes.names == ("final_height",) else slice(min(len(task.outcomes), 2))
    outcome = task(controls, conditions)[:, :2]
    torch.testing.assert_close(path[:, -1, known], outcome, rtol=1e-4, atol=1e-4)


# The cannons against closed forms and limits.


def test_vacuum_is_galileos_parabola() -> None:
    controls, none = draw_inside(CannonVacuum(), 100)
    speed, angle = controls.unbind(-1)
    torch.testing.assert_close(CannonVacuum()(controls, none)[:, 0], speed**2 * torch.sin(2 * angle) / G)


def test_vacuum_from_a_ledge_by_hand() -> None:
    """Fired level from h: distance = v sqrt(2 h / g)."""
    task = CannonVacuum(launch_height=5.0)
    distance = task(torch.tensor([3.0, 0.0], dtype=T), torch.zeros(0, dtype=T))
    assert distance.item() == pytest.approx(3 * math.sqrt(10 / G))


@pytest.mark.parametrize("height", [0.0, 2.0])
def test_no_drag_is_the_vacuum(height: float) -> None:
    drag = CannonDrag(drag=0.0, wind=[0.0, 0.0], launch_height=height)
    controls, conditions = draw_inside(drag, 100)
    expected = CannonVacuum(launch_height=height).linearise(controls, conditions[:, :0])
    for ours, theirs in zip(drag.linearise(controls, conditions), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_drag_tends_to_the_vacuum_in_the_first_order() -> None:
    still = torch.zeros(50, 1, dtype=T)
    controls, _ = draw_inside(CannonVacuum(), 50)
    vacuum = CannonVacuum()(controls, still[:, :0])
    gaps = [(vacuum - CannonDrag(drag=drag)(controls, still)) for drag in (1e-4, 1e-5)]
    torch.testing.assert_close(gaps[0] / gaps[1], torch.full_like(gaps[0], 10.0), rtol=1e-2, atol=0)


def test_a_straight_shot_up_has_its_closed_form() -> None:
    """Vertical flight against quadratic drag: the time is atan(w)/(g s) + asinh(w)/(g s), w = v s, s = sqrt(k/g)."""
    task, speed = CannonDrag(drag=0.05, steps=64), 8.0
    share = math.sqrt(0.05 / G)
    expected = (math.atan(speed * share) + math.asinh(speed * share)) / (G * share)
    start, rate = task._launch(torch.tensor([speed, math.pi / 2], dtype=T), torch.zeros((), dtype=T))
    _, time = task._fly(start, rate)
    assert float(time) == pytest.approx(expected, rel=1e-6)


def test_gradcheck_is_tight_once_the_integration_is() -> None:
    task = CannonDrag(steps=200)
    controls, conditions = draw_inside(task, 5)
    assert torch.autograd.gradcheck(
        lambda points: task(points, conditions).sum(0),
        (controls.requires_grad_(),),
        eps=1e-6,
        atol=1e-7,
        rtol=1e-7,
    )


def test_wind_carries_the_ball() -> None:
    task = CannonDrag()
    controls = torch.tensor([[8.0, 0.8]], dtype=T).expand(3, 2)
    distance = task(controls, torch.tensor([[-2.0], [0.0], [2.0]], dtype=T))[:, 0]
    assert bool((distance.diff() > 0.1).all())


@pytest.mark.parametrize("height", [0.0, 3.0])
def test_reach_by_formula_and_by_search_agree(height: float) -> None:
    task = CannonVacuum(launch_height=height)
    none = torch.zeros(3, 0, dtype=T)
    for ours, found in zip(task.reach(none), search_reach(task, none), strict=True):
        torch.testing.assert_close(ours, found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CannonVacuum(speed=[5.0, 5.0]), "^speed: the lower bound must be below"),
        (lambda: CannonVacuum(speed=[5.0, 1.0]), "^speed: the lower bound must be below"),
        (lambda: CannonVacuum(speed=[1.0]), r"^speed: give \[lower, upper\]"),
        (lambda: CannonVacuum(speed=[-1.0, 1.0]), "^speed: must not be negative"),
        (lambda: CannonVacuum(speed=[0.0, math.inf]), "^speed: bounds must be finite"),
        (lambda: CannonVacuum(angle=[0.0, 2.0]), "^angle: must lie within"),
        (lambda: CannonVacuum(launch_height=-1.0), "^launch_height: must be"),
        (lambda: CannonVacuum(gravity=0.0), "^gravity: must be positive"),
        (lambda: CannonVacuum(tolerance=math.nan), "^tolerance: must be positive"),
        (lambda: CannonDrag(drag=-0.1), "^drag: must be finite and not negative"),
        (lambda: CannonDrag(steps=1), "^steps: must be a whole number from 4 to"),
        (lambda: CannonDrag(wind=[1.0, -1.0]), "^wind: the lower bound must not exceed"),
    ],
)
def test_values_out_of_range_are_named(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


class Broken(CannonVacuum):
    """A cannon that breaks one of the laws."""

    def __init__(self, law: str) -> None:
        self._law, self._calls = "", 0
        super().__init__()
        self._law = law
        if law == "contract":
            self.tolerance = 0.0

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        self._calls += 1
        outcome = super().__call__(controls, conditions)
        if self._law == "faces":
            return torch.where(controls[..., :1] == self.box.upper[0], torch.nan, outcome)
        if self._law == "rows":
            return outcome + 0.001 * self._calls
        if self._law == "shapes" and controls.dim() > 2:
            return outcome.flip(0)
        return outcome

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        outcome, jacobian = super().linearise(controls, conditions)
        return outcome, -jacobian if self._law == "derivatives" else jacobian

    def draw_starts(self, count: int, generator: torch.Generator) -> Tensor:
        return self.box.from_unit(torch.rand(count, 2, dtype=T) if self._law == "draws" else torch.zeros(count, 2))


@pytest.mark.parametrize("law", LAWS)
def test_a_law_that_is_broken_is_noticed(law: str) -> None:
    with pytest.raises(AssertionError):
        LAWS[law](Broken(law))
