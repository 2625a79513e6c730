"""How many simulations each stage will ask for, by the same settings and constants that the stages go by."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch

from aimback.core.ledger import Counted
from aimback.core.problem import InverseProblem, Linearised
from aimback.core.randomness import make_generator
from aimback.data.exactness import FACTORS, TRIED
from aimback.data.targets import Targets, read_targets
from aimback.diagnose.checkup import Pilot, Trial
from aimback.diagnose.comparison import GradientLadder, limit_precision
from aimback.diagnose.cost import list_claim_costs
from aimback.evaluate.judge import CANDIDATES
from aimback.report import sweep
from aimback.report.views import SURFACE_POINTS
from aimback.settings.limits import count_amortising
from aimback.settings.posing import pose_for_route
from aimback.settings.tree import Optimisation, Settings
from aimback.solve.derivative_free import DerivativeFree
from aimback.solve.multistart import HISTORY_ROWS
from aimback.solve.smoothed import smooth
from aimback.solve.solver import Solver
from aimback.solve.starts import Starts

_TYPICAL = 15  # evaluations of a start by a solver with derivatives, where there was no time to try it
_PLAIN = "gradient descent"  # the pilot of the claims


def list_trials(settings: Settings, name: str) -> dict[str, Trial]:
    """The searches to try on a few targets: those of the direct routes, and of the claims."""
    trials: dict[str, Trial] = {
        route: partial(_pose, settings, name, section) for route, section in settings.optimise.items()
    }
    if settings.diagnose.enabled and {"surrogate", "direct"} <= settings.compared.keys():
        trials[_PLAIN] = partial(_pose_plain, settings, name)
    return trials


def _pose(
    settings: Settings, name: str, route: Optimisation, forward: Counted, targets: Targets
) -> tuple[list[Linearised], InverseProblem, Solver, torch.Generator]:
    task, stream = settings.tasks[name], partial(make_generator, settings.seed, name)
    before = smooth(forward, task.box, route.smoothing, stream("smoothing"))
    problem, generator = pose_for_route(task, route, targets, stream, torch.device("cpu"))
    return [*before, forward], problem, route.solver, generator


def _pose_plain(
    settings: Settings, name: str, forward: Counted, targets: Targets
) -> tuple[list[Linearised], InverseProblem, Solver, torch.Generator]:
    task, claims = settings.tasks[name], settings.diagnose
    route = next(iter(settings.optimise.values()))
    starts = route.starts.model_copy(update={"number": len(claims.step_sizes)})
    route = route.model_copy(update={"starts": starts})
    _, problem, _, generator = _pose(settings, name, route, forward, targets)
    solver = GradientLadder(max_steps=claims.max_steps, step_sizes=tuple(claims.step_sizes), each=1)
    return [forward], problem, limit_precision(task, solver), generator


def forecast(settings: Settings, name: str, pilots: Mapping[str, Pilot]) -> dict[str, int]:
    """Simulations by stage; where a task takes steps, those in finer ones count as so many times as many.

    Args:
        pilots: what was tried of `list_trials`; what was not is taken to be typical.
    """
    counts = {stage: round(count) for stage, count in _Forecast(settings, name, pilots).list_stages() if count >= 1}
    budget = settings.budget.simulations
    return {stage: count if budget is None else min(count, budget) for stage, count in counts.items()}


def _count_starts(starts: Starts) -> int:
    """How many a target will have; where it gets them until it is solved, the most are by the second one."""
    return min(starts.number, 2) if starts.until_solved else starts.number


class _Forecast:
    def __init__(self, settings: Settings, name: str, pilots: Mapping[str, Pilot]) -> None:
        self.settings, self.name, self.pilots, self.task = settings, name, pilots, settings.tasks[name]
        self.each = self.task.simulations_a_jacobian
        # An answer is simulated anew in finer steps at least once.
        self.again = 1 + FACTORS[0] if self.task.finer(FACTORS[0]) is not None else 1
        drawn = settings.data.count_targets(self.task)
        self.targets = drawn if settings.targets is None else int(read_targets(settings.targets, self.task).valid.sum())

    def list_stages(self) -> Iterator[tuple[str, float]]:
        settings = self.settings
        drawn, name = settings.targets is None, self.name
        examples = settings.price_examples(name)
        checked = TRIED * self.again if self.again > 1 else 0
        yield "generate", checked + bool(settings.train) * examples + drawn * self.targets
        for network in settings.train:
            yield f"train-{network}", settings.replicas_of(network, name) * examples
        for route, inversion in settings.invert.items():
            further = inversion.calibration
            asked = inversion.rounds * (self.targets + further) * settings.price_example(name)
            yield f"invert-{route}", asked + 2 * further
        for route, direct in settings.optimise.items():
            yield (
                f"optimise-{route}",
                self.targets * _count_starts(direct.starts) * self.search(route, direct.solver).simulations,
            )
        for route, hybrid in settings.amortise.items():
            # The proposals alone are judged once more, at the validation targets.
            yield f"amortise-{route}", count_amortising(hybrid, self.task) + hybrid.validation_targets
        for route in settings.refine:
            # Some proposals are hits as they are, which is one look, others are as far off as any start.
            yield f"refine-{route}", self.targets * 2 * self.each
        follow = sum(self.follow(starts, solver, route) for route, starts, solver in self.list_routes())
        judged = sum(min(CANDIDATES, starts) for _, starts, _ in self.list_routes()) * self.targets * self.again
        yield "evaluate", judged + follow
        surrogate = "surrogate" in settings.compared
        if settings.diagnose.enabled and surrogate and self.direct:
            found = self.search(self.direct, settings.solver).simulations
            plain = self.pilots.get(_PLAIN, Pilot(settings.diagnose.max_steps / 2 * self.each, 0)).simulations
            networks = 1 + settings.replicas_of(next(iter(settings.train)), name)
            proposes = "hybrid" in settings.compared
            price = settings.price_example(name)
            costs = list_claim_costs(
                self.task, settings.diagnose, self.targets, networks, proposes, found=found, plain=plain, price=price
            )
            yield "diagnose", sum(costs)
        shown = min(2, len(self.task.box))
        frames = sweep.FRAMES * sweep.SWEPT_STARTS * self.search(self.direct, settings.solver).simulations
        grids = SURFACE_POINTS**shown + sweep.SWEPT_POINTS**shown
        yield "report", follow + surrogate * (grids + frames)

    @property
    def direct(self) -> str:
        return self.settings.compared.get("direct", "")

    def list_routes(self) -> Iterator[tuple[str, int, Solver]]:
        settings = self.settings
        for inversion in settings.invert.values():
            yield self.direct, _count_starts(inversion.starts), inversion.solver
        for name, optimisation in settings.optimise.items():
            yield name, _count_starts(optimisation.starts), optimisation.solver
        for refinement in settings.refine.values():
            yield self.direct, 1, refinement.solver

    def search(self, name: str, solver: Solver) -> Pilot:
        """How a start ends: as it did when it was tried, or as is typical."""
        if name in self.pilots and (not self.direct or type(solver) is type(self.settings.optimise[name].solver)):
            return self.pilots[name]
        if isinstance(solver, DerivativeFree):
            return Pilot(solver.count_evaluations(len(self.task.box)), solver.max_steps)
        steps = min(_TYPICAL, solver.max_steps)
        return Pilot(steps * self.each, solver.max_steps)

    def follow(self, starts: int, solver: Solver, name: str) -> float:
        """The answers of the first targets, simulated anew at each step of the longest descent."""
        kept = min(self.targets, max(1, HISTORY_ROWS // starts))
        return kept * (self.search(name, solver).steps + 1) * self.again
