"""What a few seconds of simulations tell of a simulator, before hours of them."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aimback.core.errors import UserError, is_out_of_memory
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem, Linearised
from aimback.data.targets import Targets
from aimback.simulators.noise import estimate_noise
from aimback.solve.continuation import solve_by_continuation
from aimback.solve.solver import Solver
from aimback.tasks.base import Task

_STARTING = 2.0  # times the time there is: what takes longer is no mere start
_ALONE = 16  # cases that are simulated by themselves
_FEW, _MANY = 64, 4096  # cases that are simulated together
_POINTS = 64  # where derivatives are looked at
_TARGETS = 32  # that are solved, to see how long it takes
_STEPS = (1e-4, 0.02)  # of differences, in lengths of the box: at least, and where noise is greatest
_RIGHT = 1e-3  # of a derivative, against differences, beyond what these are uncertain by
_TIED = 0.8  # of a control's range: runs that fail within less of it are said to lie there

# (task as it is counted, targets) -> the maps to descend through, the problem, the solver and its stream.
Trial = Callable[[Counted, Targets], tuple[list[Linearised], InverseProblem, Solver, torch.Generator]]


@dataclass(frozen=True)
class Pilot:
    """How a few targets were solved.

    Attributes:
        simulations: that a start took.
        steps: of the start that took most.
    """

    simulations: float
    steps: int


@dataclass(frozen=True)
class Checkup:
    """What was found out.

    Attributes:
        simulations, seconds: that it took of the simulator.
        dtype: of the outcomes, where float64 went in.
        cases: how many were drawn from the box.
        finite: the share of them with a finite outcome.
        where: in which part of the box the others lie, in words; "" where that is no part.
        reasons: why runs have failed, and how often.
        ranges: the least and the greatest of each outcome, `(2, n_outcomes)`.
        company: the most that an outcome alone differs from the same in company, a share of its range.
        noise: of each outcome, in its unit, `(n_outcomes,)`; None where there was no time for it.
        jacobian_error: of the scaled Jacobian against differences, median over points; None where it has none.
        wrong: the share of these points where it is off by more than differences are uncertain by.
        condition: median and greatest condition number of the Jacobian, in box lengths and tolerances.
        alone: seconds of a call with one case: 10 %, 50 % and 90 % of the calls.
        a_case: seconds of a case among many.
        pilots: by name, the searches that there was time for.
    """

    simulations: int
    seconds: float
    dtype: str
    cases: int
    finite: float
    where: str
    reasons: Counter[str]
    ranges: Tensor
    company: float
    noise: Tensor | None
    jacobian_error: float | None
    wrong: float
    condition: tuple[float, float] | None
    alone: tuple[float, float, float]
    a_case: float
    pilots: Mapping[str, Pilot]


class _Spent(Exception):  # noqa: N818 - a state of affairs
    """The time for simulations is over."""


class _Timed:
    """A task of which the time is limited, but for the very first calls, without which nothing can be told."""

    is_limited = False

    def __init__(self, task: Task, seconds: float) -> None:
        self.task, self.left, self.times = task, seconds, list[tuple[int, float]]()
        self.simulations = 0

    @property
    def simulations_a_jacobian(self) -> int:
        return self.task.simulations_a_jacobian

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        outcomes: Tensor = self._time(self.task, controls, conditions, 1)
        return outcomes

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        both: tuple[Tensor, Tensor] = self._time(self.task.linearise, controls, conditions, self.simulations_a_jacobian)
        return both

    def afford(self, most: int, a_case: float, share: float) -> int:
        """How many cases may be simulated with a share of the time that is left."""
        return max(0, min(most, int(share * self.left / max(a_case, 1e-9))))

    def _time(self, work: Callable[..., Any], controls: Tensor, conditions: Tensor, each: int) -> Any:
        if self.is_limited and self.left <= 0:
            raise _Spent
        began = time.perf_counter()
        with torch.no_grad():
            result = work(controls, conditions)
        seconds, cases = time.perf_counter() - began, controls.shape[:-1].numel() * each
        self.left -= seconds
        self.simulations += cases
        self.times.append((cases, seconds))
        return result


def check_up(
    task: Task, seconds: float, generator: torch.Generator, trials: Mapping[str, Trial], workers: int = 1
) -> Checkup:
    """Look at a simulator from all sides, for so many seconds of its own time.

    Args:
        trials: searches to be made for a few targets where there is time for it.
        workers: that simulate cases side by side.

    Raises:
        UserError: none of its outcomes is finite.
    """
    timed = _Timed(task, seconds)
    controls, conditions = task.box.sample(_MANY, generator), task.conditions.sample(_MANY, generator)

    def simulate(rows: slice) -> Tensor:
        return timed(controls[rows], conditions[rows])

    first, again = _begin(timed, simulate, workers)
    a_call = min(seconds for _, seconds in timed.times)
    alone = [first, *(simulate(slice(row, row + 1)) for row in range(1, max(1, timed.afford(_ALONE, a_call, 0.1))))]
    calls = torch.tensor([seconds for _, seconds in timed.times], dtype=torch.float64)
    spread = calls.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).tolist()
    few = max(2, workers, len(alone), timed.afford(_FEW, a_call, 0.2))
    outcomes = simulate(slice(0, few))
    together = timed.times[-1][1]
    a_case = together / few
    # Of a simulator of whole arrays a call with many cases takes hardly longer than one with few.
    further = max(together - a_call, 0.05 * together) / (few - 1)
    if (more := timed.afford(_MANY - few, further, 0.2)) > few:
        outcomes = torch.cat([outcomes, simulate(slice(few, few + more))])
        longer = timed.times[-1][1]
        further = max((longer - together) / (more - few), 0.05 * longer / more)
        # What runs case by case takes as long for each of many.
        one_by_one = task.rows_at_once is not None
        a_case = longer / more if one_by_one else (longer + further * (_MANY - more)) / _MANY
    timed.is_limited = True
    fine = torch.isfinite(outcomes).all(-1)
    reasons: Counter[str] = Counter(failure.reason for failure in task.failures)
    if not bool(fine.any()):
        why = "".join(f": {reason}" for reason, _ in reasons.most_common(1))
        raise UserError(f"none of {len(outcomes)} runs gave a finite outcome{why}")
    ranges = torch.stack([outcomes[fine].amin(0), outcomes[fine].amax(0)])
    span = (ranges[1] - ranges[0]).clamp(min=torch.finfo(torch.float64).tiny)
    company = (outcomes[: len(alone)] - torch.cat(alone)).abs() / span
    middle = int(fine.nonzero()[0])
    noise = _measure_noise(timed, controls[middle], conditions[middle]) if timed.afford(9, a_case, 0.2) >= 9 else None
    if noise is not None:
        noise = torch.maximum(noise, (first - again)[0].nan_to_num().abs())
    works, given = controls[: len(outcomes)][fine], conditions[: len(outcomes)][fine]
    error, wrong, condition = _look_at_derivatives(timed, works, given, span, noise, a_case)
    wanted = Targets(outcomes[fine], given, torch.zeros(len(given), dtype=torch.int64), ("",) * len(given))
    pilots = {name: pilot for name, trial in trials.items() if (pilot := _try(timed, wanted, trial))}
    return Checkup(
        simulations=timed.simulations,
        seconds=seconds - timed.left,
        dtype=str(outcomes.dtype).removeprefix("torch."),
        cases=len(outcomes),
        finite=float(fine.double().mean()),
        where=_say_where(task, controls[: len(outcomes)], fine),
        reasons=reasons,
        ranges=ranges,
        company=float(company.nan_to_num().max()),
        noise=noise,
        jacobian_error=error,
        wrong=wrong,
        condition=condition,
        alone=(spread[0], spread[1], spread[2]),
        a_case=a_case,
        pilots=pilots,
    )


def _begin(timed: _Timed, simulate: Callable[[slice], Tensor], workers: int) -> tuple[Tensor, Tensor]:
    """Simulate the first case twice. Calls that start processes and import libraries tell of no time.

    Raises:
        UserError: it cannot be called with one case, or gives something else than its outcomes.
    """
    task, seconds = timed.task, timed.left
    try:
        first = again = simulate(slice(0, 1))
    except Exception as raised:  # whatever a user's simulator raises
        if isinstance(raised, UserError) or is_out_of_memory(raised):
            raise
        reason = str(raised).strip().partition("\n")[0]
        raise UserError(f"a call with one case fails ({type(raised).__name__}: {reason})") from raised
    if first.shape != (1, len(task.outcomes)):
        raise UserError(f"a case gives outcomes of shape {tuple(first.shape)}, not {(1, len(task.outcomes))}")
    if timed.times[0][1] < _STARTING * seconds:
        if workers > 1:
            simulate(slice(0, workers))
        starting = len(timed.times)
        again = simulate(slice(0, 1))
        del timed.times[:starting]
        timed.left = seconds - timed.times[0][1]
    return first, again


def _measure_noise(timed: _Timed, controls: Tensor, conditions: Tensor) -> Tensor:
    box = timed.task.box
    inwards = torch.where(controls > (box.lower + box.upper) / 2, -1.0, 1.0) * (box.upper - box.lower)

    def along(places: Tensor) -> Tensor:
        points = (controls + places[:, None] * inwards).clamp(box.lower, box.upper)
        return timed(points, conditions.expand(len(places), -1))

    return torch.from_numpy(estimate_noise(along))


def _look_at_derivatives(
    timed: _Timed, controls: Tensor, conditions: Tensor, span: Tensor, noise: Tensor | None, a_case: float
) -> tuple[float | None, float, tuple[float, float] | None]:
    """The median error, the share of points where it is no error of the differences, and the condition numbers."""
    box, many = timed.task.box, len(timed.task.box)
    each = timed.simulations_a_jacobian + 4 * many
    count = timed.afford(each * min(_POINTS, len(controls)), a_case, 0.3) // each
    if count == 0:
        return None, 0.0, None
    least, most = _STEPS
    step = least if noise is None else min(max(least, float((noise / span).max()) ** (1 / 3)), most)
    width = box.upper - box.lower
    points = box.lower + (step + (1 - 2 * step) * box.to_unit(controls[:count])) * width
    try:
        _, jacobian = timed.linearise(points, conditions[:count])
    except (UserError, _Spent):
        return None, 0.0, None
    offsets = torch.tensor([step, -step, step / 2, -step / 2], dtype=torch.float64)
    around = points[:, None, None] + offsets[:, None, None] * torch.diag(width)
    given = conditions[:count, None, None].expand(-1, *around.shape[1:3], -1)
    outcome = timed(around.flatten(0, 2), given.flatten(0, 2)).unflatten(0, around.shape[:3])
    whole, half = (outcome[:, 0] - outcome[:, 1]) / (2 * step), (outcome[:, 2] - outcome[:, 3]) / step
    # (points, outcomes, controls), in ranges of the outcome a length of the box; the error left is of fourth order.
    slope, doubt, own = (
        part / span[:, None]
        for part in (((4 * half - whole) / 3).mT, (half - whole).abs().mT, jacobian.double() * width)
    )
    known = torch.isfinite(slope).flatten(1).all(-1) & torch.isfinite(own).flatten(1).all(-1)
    if not bool(known.any()):
        return None, 0.0, None
    slope, doubt, own = slope[known], doubt[known], own[known]
    off, size = (own - slope).abs(), slope.abs().flatten(1).amax(1)
    is_wrong = (off > _RIGHT * (1 + size[:, None, None]) + 2 * doubt).flatten(1).any(1)
    tolerances = torch.tensor(timed.task.tolerances, dtype=torch.float64)
    singular = torch.linalg.svdvals(own * span[:, None] / tolerances[:, None])
    ratio = (singular[:, 0] / singular[:, -1]).nan_to_num(nan=math.inf)
    relative = off.flatten(1).amax(1) / size.clamp(min=torch.finfo(torch.float64).tiny)
    return (
        float(relative.median()),
        float(is_wrong.double().mean()),
        (float(ratio.median()), float(ratio.max())),
    )


def _try(timed: _Timed, targets: Targets, trial: Trial) -> Pilot | None:
    """Solve a few targets, more where there is time; None where there is none."""
    pilot = None
    for count in (1, 4, _TARGETS):
        ledger, before = Ledger(), timed.left
        try:
            maps, problem, solver, stream = trial(Counted(timed, ledger, simulates=True), targets.first(count))
            solution = solve_by_continuation(maps, problem, solver, stream)
        except (_Spent, UserError):
            return pilot
        pilot = Pilot(ledger.simulations / solution.steps.numel(), int(solution.steps.max()))
        if len(targets) <= count or (before - timed.left) * 8 > timed.left / 2:
            break
    return pilot


def _say_where(task: Task, controls: Tensor, fine: Tensor) -> str:
    """The control that best tells the runs that failed from the others, and where they lie on it."""
    if bool(fine.all()) or int((~fine).sum()) < 3:
        return ""
    unit = task.box.to_unit(controls[~fine])
    low, high = unit.amin(0), unit.amax(0)
    tightest = int((high - low).argmin())
    if float(high[tightest] - low[tightest]) > _TIED:
        return ""
    axis = task.box.axes[tightest]
    ends = [axis.lower + float(end[tightest]) * (axis.upper - axis.lower) for end in (low, high)]
    return f"{axis.name} from {ends[0]:.3g} to {ends[1]:.3g} {axis.unit}".rstrip()
