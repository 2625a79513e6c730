"""C5: does the true loss descend robustly, from any start?"""

import torch
from torch import Tensor

from aimback.core.problem import Linearised
from aimback.data.targets import Targets
from aimback.diagnose.case import Case, Pictures
from aimback.diagnose.claim import Claim, Estimate, estimate
from aimback.diagnose.comparison import choose_size, choose_targets, descend_ladder, limit_steps, measure_miss
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.solver import Solver

_LEAST = 0.99
_TARGETS = 8


def examine(case: Case) -> tuple[Claim, Pictures]:
    """From where in the box do descents end in a true hit, through either loss?"""
    targets, grid = _spread(choose_targets(case)), _Grid(case)
    ladder, limit = descend_ladder(case), case.settings.max_steps
    sizes = case.settings.step_sizes

    def by_gradient(forward: Linearised, steps: Tensor) -> Tensor:
        solver = GradientDescent(step_size=float(sizes[int(choose_size(steps, limit))]))
        return _hits(case, forward, targets, solver, grid.starts)

    direct, *through = (
        _hits(case, forward, targets, case.solver, grid.starts) for forward in (case.task, *case.networks)
    )
    maps = {
        "direct": direct,
        "surrogate": through[0],
        "gradient_direct": by_gradient(case.task, ladder.direct),
        "gradient_surrogate": by_gradient(case.networks[0], ladder.networks[0]),
    }

    def share(hit: Tensor) -> Tensor:
        return hit.mean((-2, -1))

    generator, resamples = case.generator("basins"), case.settings.resamples
    number = estimate([direct], share, generator, resamples)
    if not any(hit.any() for hit in maps.values()):  # no word on starts where the targets are out of reach
        number = Estimate(None, None, None, (None,))
    ahead = estimate([direct - hit for hit in through], share, generator, resamples)
    details: dict[str, float | None] = {name: float(share(hit)) for name, hit in maps.items()}
    for place, rows in grid.places.items():
        details |= {f"{name}_{place}": float(share(hit[:, rows])) for name, hit in maps.items()}
    known = [seed for seed in ahead.seeds if seed is not None]
    details |= {"ahead": ahead.value, "ahead_low": ahead.low, "ahead_high": ahead.high}
    details |= {"ahead_least_network": min(known), "ahead_most_network": max(known), "targets": float(len(targets))}
    claim = Claim(
        key="C5",
        says="Through the true loss a descent hits robustly, from any start.",
        question="Does a descent through the true loss hit from any start?",
        unit="of the starts hit",
        is_share=True,
        bound=_LEAST,
        measure=f"share of the starts that end in a true hit through the simulator, with the solver as configured: "
        f"{grid.words}, the same for {len(targets)} targets",
        number=number,
        rule=f"supported where the share and its interval over targets lie above {100 * _LEAST:g} %",
        because=_because(details, grid.worst_edge(direct)),
        details=details,
    )
    pictures = {name: grid.picture(hit.mean(0)).numpy() for name, hit in maps.items()}
    return claim, pictures | {name: axis.numpy() for name, axis in grid.axes.items()}


class _Grid:
    """Starts evenly over the closed box of the first two controls, the others in the middle of theirs.

    Attributes:
        starts: `(n, n_controls)`, in the units of the box; x runs fastest.
        axes: where they stand along the first controls, by name.
        edges: the rows on each edge of the box, by its name.
        places: rows of interest, by name.
        words: what it is.
    """

    def __init__(self, case: Case) -> None:
        box, points = case.task.box, case.settings.count_basin_points(case.task)
        self._points, self._plane = points, min(2, len(box))
        line = torch.linspace(0, 1, points, dtype=torch.float64)
        # The last axis of a picture is the first control.
        plane = torch.stack(torch.meshgrid(*[line] * self._plane, indexing="ij")[::-1], dim=-1).reshape(-1, self._plane)
        unit = torch.full((len(plane), len(box)), 0.5, dtype=torch.float64)
        unit[:, : self._plane] = plane
        self.starts = box.from_unit(unit)
        steps = box.from_unit(line[:, None].expand(-1, len(box)))
        self.axes = {f"axis_{name}": steps[:, column] for column, name in zip(range(self._plane), "xy", strict=False)}
        self.edges = {
            f"{axis.name} = {bound:.3g} {axis.unit}".rstrip(): plane[:, column] == end
            for column, axis in enumerate(box.axes[: self._plane])
            for end, bound in ((0, axis.lower), (1, axis.upper))
        }
        outer = (plane - 0.5).abs() == 0.5
        self.places = {"inside": ~outer.any(-1), "corners": outer.all(-1), "far_corner": (plane == 1).all(-1)}
        names = " and ".join(box.names[: self._plane])
        self.words = f"a grid of {' x '.join([str(points)] * self._plane)} starts over {names}, the bounds among them"
        if self._plane < len(box):
            self.words += ", the other controls in the middle of the box"

    def picture(self, values: Tensor) -> Tensor:
        """`(n,)` -> `(points, points)`, or `(points,)` of a single control."""
        return values.reshape([self._points] * self._plane)

    def worst_edge(self, hits: Tensor) -> tuple[str, float]:
        """The edge of the box from which the fewest hit, and their share; hits `(n_targets, n)`."""
        shares = {name: float(hits[:, rows].mean()) for name, rows in self.edges.items()}
        return min(shares.items(), key=lambda edge: edge[1])


def _spread(targets: Targets) -> Targets:
    """Some of the targets, evenly over the ranks of the first outcome."""
    count = min(_TARGETS, len(targets))
    order = targets.targets[:, 0].argsort(stable=True)
    return targets.of(order[((torch.arange(count) + 0.5) * len(targets) / count).long()])


def _hits(case: Case, forward: Linearised, targets: Targets, solver: Solver, starts: Tensor) -> Tensor:
    """Whether the answer of each start is a true hit, 0 or 1, `(n_targets, n_starts)`."""
    starts = starts.expand(len(targets), -1, -1)
    solution = case.solve(forward, targets, limit_steps(case, solver), "basins", starts)
    return (measure_miss(case, targets, solution.controls) <= case.task.tolerance).double()


def _because(details: dict[str, float | None], worst: tuple[str, float]) -> str:
    def percent(name: str) -> str:
        return f"{100 * (details[name] or 0.0):.1f} %"

    def shares(route: str) -> str:
        inside, corner = percent(f"{route}_inside"), percent(f"{route}_far_corner")
        return f"{percent(route)} ({inside} inside the box, {corner} from its far corner)"

    text = (
        f"Of the starts {shares('direct')} truly hit through the true loss and {shares('surrogate')} through the "
        f"network's; by gradient descent {percent('gradient_direct')} and {percent('gradient_surrogate')}."
    )
    if worst[1] < 1:
        text += f" Through the true loss the fewest hit from the edge {worst[0]}: {100 * worst[1]:.1f} %."
    return text
