"""What a step more buys: error against SciPy's DOP853, time and memory by number of Runge-Kutta steps."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from aimback.autodiff import ode
from aimback.autodiff.any_torch import linearise_by_autograd
from aimback.autodiff.dual import value_of
from aimback.core.errors import UserError
from aimback.core.hardware import peak_memory
from aimback.report.canvas import COLOURS, new_figure
from aimback.tasks.cannon_drag import CannonDrag, time_to_ground
from benchmarks.cannon import Array
from benchmarks.figures import FOLDER
from benchmarks.memory import ROOT
from benchmarks.rounds import in_turns, one_core
from benchmarks.tables import number, table

STEPS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
ACCURACIES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7, 3e-8)
TRUTH = 1e-13  # relative and absolute tolerance of DOP853
_ALIKE = 200  # shots of either kind
_TIMED = 10_000  # shots at once
_ROUNDS = 5
_HELD = 20_000  # shots whose Jacobian's memory is measured
_HOLDINGS = (("forward", 16), ("forward", 256), ("reverse", 16), ("reverse", 64))
_MEBI = 2**20

Errors = Mapping[str, Mapping[int, Array]]  # in m, by grid and steps
Prices = Mapping[str, Mapping[int, float]]  # microseconds a shot, by grid and steps
Promise = tuple[float, int, float, float]  # accuracy asked for, steps, worst error in m, seconds to choose


class EvenCannon(CannonDrag):
    """The same with steps of equal length."""

    def _fly(self, start: ode.State, rate: Tensor) -> tuple[ode.State, Any]:
        guess, even = self._flight_time(value_of(start[3]), rate), torch.zeros_like(rate)
        return ode.integrate_to_event(self._derivative, start, time_to_ground, guess, steps=self.steps, rate=even)


GRIDS = {"graded": CannonDrag, "even": EvenCannon}
CANNONS: dict[str, dict[str, Any]] = {
    "default": {},
    "thick air": {"speed": [0.0, 50.0], "drag": 0.5},
}


def precision_by_steps() -> str:
    """Markdown: tables and a figure."""
    tasks = {
        air: {name: {steps: _made(make, keywords, steps) for steps in STEPS} for name, make in GRIDS.items()}
        for air, keywords in CANNONS.items()
    }
    shots = {air: draw_shots(CannonDrag(**keywords)) for air, keywords in CANNONS.items()}
    truth = {air: _landings(CannonDrag(**keywords, steps=64), *shots[air]) for air, keywords in CANNONS.items()}
    errors = {
        air: {
            name: {steps: np.abs(_fly(task, *shots[air]) - truth[air]) for steps, task in made.items() if task}
            for name, made in grids.items()
        }
        for air, grids in tasks.items()
    }
    prices = _prices(tasks["default"])
    promises = [(asked, *_promised(asked, *shots["default"], truth["default"])) for asked in ACCURACIES]
    span = CannonDrag().outcomes
    return "\n\n".join(
        [
            f"Error of the distance in m, which spans {float(span.upper - span.lower):.2f} m, of {_ALIKE} shots drawn "
            f"from box and wind and {_ALIKE} nearly straight up in the moving air at 9/10 to full speed, where the "
            f"drag has a kink. The truth is DOP853 at a tolerance of {TRUTH:g}. Time of a shot without its Jacobian, "
            f"{number(_TIMED)} at once. Steps are graded by the decay of the speed, or even.",
            _error_table(errors["default"], prices),
            "The same for a cannon of up to 50 m/s in air of k = 0.5/m, where the grading is needed:",
            _error_table(errors["thick air"]),
            plot_precision("work_precision.png", errors, prices, promises),
            "What `CannonDrag(accuracy=...)` promises, and the worst of the first table's shots:",
            _promise_table(promises),
            f"Memory of value and Jacobian of {number(_HELD)} shots, each row a process of its own: forward mode "
            "carries (1 + n_controls) states a shot along, however many steps there are; reverse mode keeps them all.",
            _memory_table(),
        ]
    )


def draw_shots(task: CannonDrag) -> tuple[Tensor, Tensor]:
    """Shots that the choice of the steps has not seen: controls `(n, 2)` and wind `(n, 1)`."""
    generator = torch.Generator().manual_seed(0)
    controls, wind = task.box.sample(2 * _ALIKE, generator), task.conditions.sample(2 * _ALIKE, generator)
    draws = torch.rand(_ALIKE, generator=generator, dtype=torch.float64)
    beside = 0.02 * torch.randn(_ALIKE, generator=generator, dtype=torch.float64)
    fast = float(task.box.upper[0]) * (1 - 0.1 * draws)
    steep = torch.acos((wind[_ALIKE:, 0] / fast + beside).clamp(0, 1))
    return torch.cat([controls[:_ALIKE], torch.stack([fast, steep], -1)]), wind


def landing(task: CannonDrag, speed: float, angle: float, wind: float) -> float:
    """The distance in m by DOP853, the wind in the equations of motion."""

    def flight(_: float, state: Array) -> list[float]:
        _, _, ahead, up = state.tolist()
        air = task.drag * math.hypot(ahead - wind, up)
        return [ahead, up, -air * (ahead - wind), -task.gravity - air * up]

    def ground(_: float, state: Array) -> float:
        return float(state[1])

    ground.terminal, ground.direction = True, -1
    start = [0.0, task.launch_height, speed * math.cos(angle), speed * math.sin(angle)]
    # Steps short of any flight, or SciPy sees no sign change of a short hop.
    hop = 0.01 * speed * math.sin(angle) / task.gravity + 1e-9
    flown = solve_ivp(
        flight, (0, 100), start, "DOP853", events=ground, rtol=TRUTH, atol=TRUTH, first_step=hop, max_step=50 * hop
    )
    return float(flown.y_events[0][0][0])


def _landings(task: CannonDrag, controls: Tensor, wind: Tensor) -> Array:
    rows = zip(controls.tolist(), wind[:, 0].tolist(), strict=True)
    return np.array([landing(task, speed, angle, blow) for (speed, angle), blow in rows])


def _made(make: type[CannonDrag], keywords: Mapping[str, Any], steps: int) -> CannonDrag | None:
    """None where so few steps cannot follow the flight."""
    try:
        return make(**keywords, steps=steps)
    except UserError:
        return None


@torch.no_grad()
def _fly(task: CannonDrag, controls: Tensor, wind: Tensor) -> Array:
    distances: Array = task(controls, wind)[:, 0].numpy()
    return distances


def _prices(tasks: Mapping[str, Mapping[int, CannonDrag | None]]) -> Prices:
    generator = torch.Generator().manual_seed(1)
    controls, wind = CannonDrag().box.sample(_TIMED, generator), CannonDrag().conditions.sample(_TIMED, generator)
    rivals = {
        f"{name} {steps}": partial(_fly, task, controls, wind)
        for name, made in tasks.items()
        for steps, task in made.items()
        if task
    }
    with one_core():
        seconds = in_turns(rivals, _ROUNDS)
    return {
        name: {steps: 1e6 * float(np.median(seconds[f"{name} {steps}"])) / _TIMED for steps in made}
        for name, made in tasks.items()
    }


def _promised(accuracy: float, controls: Tensor, wind: Tensor, truth: Array) -> tuple[int, float, float]:
    """The steps chosen, the worst error in m, and the seconds that making the task took longer for the choice."""
    task = CannonDrag(accuracy=accuracy)
    works = {"chosen": partial(CannonDrag, accuracy=accuracy), "given": partial(CannonDrag, steps=task.steps)}
    seconds = in_turns(works, 2, warm_up=False)
    worst = float(np.abs(_fly(task, controls, wind) - truth).max())
    return task.steps, worst, min(seconds["chosen"]) - min(seconds["given"])


def _error_table(errors: Errors, prices: Prices | None = None) -> str:
    """A row a number of steps; the time of a shot where it was measured, a dash where the steps are too few."""
    rows = []
    for steps in STEPS:
        row = [str(steps)]
        for name, made in errors.items():
            error = made.get(steps)
            if error is None:
                row += ["-"] * 3
            else:
                row += [f"{value:.1e}" for value in (np.median(error), np.quantile(error, 0.99), error.max())]
            if prices:
                row.append(number(prices[name][steps]))
        rows.append(row)
    columns = ["median", "p99", "max", *(["µs a shot"] if prices else [])]
    return table(["steps", *(f"{name}, {column}" for name in errors for column in columns)], rows, words=0)


def _promise_table(promises: Sequence[Promise]) -> str:
    rows = [
        [f"{asked:g}", str(steps), f"{worst:.1e}", f"{worst / asked:.0%}", f"{spent:.2f}"]
        for asked, steps, worst, spent in promises
    ]
    return table(
        ["accuracy asked for [m]", "steps chosen", "worst error [m]", "of what was promised", "s to choose"], rows, 0
    )


def plot_precision(name: str, errors: Mapping[str, Errors], prices: Prices, promises: Sequence[Promise]) -> str:
    """Error by steps for each cannon, by time, and by promise; returns what shows it in Markdown."""
    FOLDER.mkdir(exist_ok=True)
    inks = dict(zip(GRIDS, (COLOURS["direct"], COLOURS["surrogate"]), strict=True))
    with new_figure(FOLDER / name, (10, 8)) as figure:
        panels = figure.subplots(2, 2)
        for axes, (air, grids) in zip(panels[0], errors.items(), strict=True):
            for grid, made in grids.items():
                axes.plot(list(made), [error.max() for error in made.values()], "o-", color=inks[grid], label=grid)
                usual = [np.median(error) for error in made.values()]
                axes.plot(list(made), usual, "s--", color=inks[grid], label=f"{grid}, median")
            axes.set(title=air, xlabel="Runge-Kutta steps", ylabel="worst and median error [m]")
        by_time, by_promise = panels[1]
        for grid, made in errors["default"].items():
            worst = [error.max() for error in made.values()]
            by_time.plot(list(prices[grid].values()), worst, "o-", color=inks[grid], label=grid)
        by_time.set(title="default", xlabel="microseconds a shot", ylabel="worst error [m]")
        asked, _, worst, _ = zip(*promises, strict=True)
        by_promise.plot(asked, asked, "-", color="#7F7F7F", label="the promise")
        by_promise.plot(asked, worst, "o", color=inks["graded"], label="measured")
        by_promise.set(title="default", xlabel="accuracy asked for [m]", ylabel="worst error [m]")
        for axes in panels.flat:
            axes.set(xscale="log", yscale="log")
            axes.minorticks_off()
            axes.legend(fontsize=9)
    return f"![Error by number of steps, by time, and by the accuracy asked for](figures/{name})"


def _memory_table() -> str:
    rows = []
    for mode, steps in _HOLDINGS:
        code = [sys.executable, "-m", "benchmarks.work_precision", mode, str(steps)]
        done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, check=True)
        before, most = json.loads(done.stdout.splitlines()[-1])
        rows.append([mode, str(steps), number((most - before) / _MEBI), number((most - before) / _HELD)])
    return table(["mode", "steps", "peak above what was held before [MiB]", "bytes a shot"], rows)


def _hold(mode: str, steps: int) -> tuple[int, int]:
    """Bytes held before the Jacobian, and the most while it was found."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    task = CannonDrag(steps=steps)
    controls, wind = task.box.sample(_HELD, generator), task.conditions.sample(_HELD, generator)
    before = psutil.Process().memory_info().rss
    if mode == "forward":
        task.linearise(controls, wind)
    else:
        linearise_by_autograd(task, controls, wind)
    return before, peak_memory(torch.device("cpu"))


if __name__ == "__main__":
    print(json.dumps(_hold(sys.argv[1], int(sys.argv[2]))))
