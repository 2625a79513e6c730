"""The direct route on cannon_drag: against a SciPy loop, and the price of its Jacobian."""

import math
import statistics

import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from torch import Tensor

from aimback.problem import InverseProblem
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.cannon_drag import CannonDrag
from benchmarks.rounds import in_turns, ratio

TARGETS = 10_000
LOOPED = 40  # targets of SciPy's loop a round; its time a target does not depend on how many
PRECISION = 1e-6  # of the span: what both are asked for, and checked at


def shot(task: CannonDrag, speed: float, angle: float, wind: float, method: str, tolerance: float) -> float:
    """The landing distance by SciPy."""

    def flight(_: float, state: list[float]) -> list[float]:
        along, up = state[2] - wind, state[3]
        air = task.drag * math.hypot(along, up)
        return [state[2], state[3], -air * along, -task.gravity - air * up]

    def ground(_: float, state: list[float]) -> float:
        return state[1]

    ground.terminal, ground.direction = True, -1  # type: ignore[attr-defined]
    start = [0.0, 0.0, speed * math.cos(angle), speed * math.sin(angle)]
    flown = solve_ivp(flight, (0, 10), start, method=method, rtol=tolerance, atol=tolerance, events=ground)
    return float(flown.y_events[0][0][0])


def direct_against_scipy() -> list[str]:
    """Rows of a Markdown list. The loop finds the angle at full speed, the direct route speed and angle."""
    task = CannonDrag()
    span = float(task.outcomes.upper - task.outcomes.lower)
    generator = torch.Generator().manual_seed(0)
    targets = 1.0 + 4.5 * torch.rand(TARGETS, 1, generator=generator, dtype=torch.float64)
    wind = task.conditions.sample(TARGETS, generator)
    problem = InverseProblem(targets, wind, task.box, PRECISION * span, span)
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def direct(starts: int) -> None:
        solver = LevenbergMarquardt(starts=starts, precision=PRECISION / 2)
        solution = solve(task, problem, solver, torch.Generator().manual_seed(1))
        found[f"{starts}"] = solution.controls[torch.arange(TARGETS), solution.best()], wind

    def loop() -> None:
        def over(angle: float, wanted: float, given: float) -> float:
            return shot(task, 10.0, angle, given, "RK45", 1e-7) - wanted

        angles = [
            brentq(over, 0.01, 0.7, args=(wanted, given), xtol=1e-8)
            for wanted, given in zip(targets[:LOOPED, 0].tolist(), wind[:LOOPED, 0].tolist(), strict=True)
        ]
        found["loop"] = torch.tensor([[10.0, angle] for angle in angles], dtype=torch.float64), wind[:LOOPED]

    seconds = in_turns({"loop": loop, "1": lambda: direct(1), "2": lambda: direct(2), "8": lambda: direct(8)})
    rows = []
    for name, (controls, given) in found.items():
        checked = range(0, len(controls), max(1, len(controls) // 200))
        misses = [
            abs(shot(task, *controls[row].tolist(), float(given[row]), "DOP853", 1e-12) - float(targets[row]))
            for row in checked
        ]
        hits = sum(miss <= 2 * PRECISION * span for miss in misses)
        each = statistics.median(seconds[name]) / len(controls)
        who = "SciPy solve_ivp + brentq, a loop" if name == "loop" else f"direct route, {name} start(s) a target"
        share = "" if name == "loop" else f"; the loop takes {ratio(seconds, 'loop', name, TARGETS / LOOPED)} as long"
        rows.append(
            f"{who}: {1e6 * each:.1f} us a target; {hits} of {len(misses)} checked hit within "
            f"2e-6 of the span by DOP853{share}"
        )
    return rows


def jacobian_against_forward() -> list[str]:
    """Value and full Jacobian over the value alone, cannon_drag."""
    task = CannonDrag()
    generator = torch.Generator().manual_seed(0)
    rows = []
    for count in (100, 1000, TARGETS):
        controls, wind = task.draw_controls(count, generator), task.conditions.sample(count, generator)

        def forward(controls: Tensor = controls, wind: Tensor = wind) -> None:
            with torch.no_grad():
                task(controls, wind)

        def both(controls: Tensor = controls, wind: Tensor = wind) -> None:
            task.linearise(controls, wind)

        seconds = in_turns({"both": both, "forward": forward}, rounds=9)
        rows.append(f"{count} shots: value and Jacobian cost {ratio(seconds, 'both', 'forward')} the value")
    return rows
