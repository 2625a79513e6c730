"""How far a hit may miss that a route believes in: a bound from further targets, solved together with the others.

The bounds are tolerance limits (Wilks 1941, https://doi.org/10.1214/aoms/1177731788): of n misses of one kind the
k-th smallest is kept by at least 90 % of all others with a confidence of P(Binomial(n, 0.9) < k), which is to be 90 %
too. The conformal bound (Vovk, Gammerman, Shafer 2005) would have its 90 % only in the mean over calibrations: of
single ones half have less. Validation examples are not of that kind: a search seeks the places where a network
believes in a hit, and these are where it errs more than at random. So further targets are drawn as the task's own
are, and solved in the same searches and rounds. Targets that come from elsewhere, such as a user's file, are not of
their kind, and the bounds are void.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from aimback.core.problem import InverseProblem, Solution
from aimback.data.dataset import Dataset
from aimback.data.exactness import FACTORS, simulate_closely
from aimback.data.targets import Targets, join
from aimback.learn.revision import Revision
from aimback.learn.surrogate import Surrogate
from aimback.solve.solver import Progress
from aimback.tasks.base import Task

COVERAGE = CONFIDENCE = 0.9
STRATA = 5
_NEAREST = 10
_ROWS = 512  # that are compared with all examples at once


@dataclass
class Calibration:
    """Further targets that a route solves beside those that are asked for; the hits that it believes in are simulated.

    What a round has shown to hit, of either kind, needs no more: its bound is the tolerance, and it is in no stratum.

    Args:
        revision: how the route answers; the simulations are entered into its ledger.
        draw: the further targets, and what they ask, posed as the others are.

    Attributes:
        bounds: of the miss of each target that was asked for, `(T,)`, float64, in the unit of the task's misses; NaN
            where no hit is believed, infinite where there is too little to go by.
    """

    revision: Revision
    draw: Callable[[], tuple[Targets, InverseProblem]]
    bounds: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))

    def search(
        self, targets: Targets, problem: InverseProblem, generator: torch.Generator, progress: Progress | None = None
    ) -> Solution:
        """Answer all targets, `problem` being theirs, and bound their misses."""
        task, many, (further, posed) = self.revision.task, len(targets), self.draw()
        every = join([targets, further])
        whole = replace(
            problem,
            targets=torch.cat([problem.targets, posed.targets]),
            conditions=torch.cat([problem.conditions, posed.conditions]),
            starts=torch.cat([problem.starts, posed.starts]),
        )
        told = None if progress is None else _tell_at_most(progress, many)
        solution = self.revision.search(every, whole, generator, told, counted=many)
        answers, believed = self.revision.pick(solution)
        scores = measure_local_error(
            task, self.revision.network, self.revision.dataset, answers, every.conditions, like=problem.targets
        )
        closed = self.revision.closed
        hits = (believed <= task.tolerance) & ~task.box.is_outside(answers) & ~closed
        mine, others = hits[:many], hits[many:]
        misses = self._measure(further, answers[many:], others)
        self.bounds = torch.full((many,), torch.nan, dtype=torch.float64)
        shown = closed[:many]
        self.bounds[shown] = task.tolerance  # so the simulator has said, if only in its own steps
        if task.finer(FACTORS[0]) is not None:
            self.bounds[shown] = self._measure(targets, answers[:many], shown).clamp(min=task.tolerance)
        self.bounds[mine] = bound_misses(scores[:many][mine], scores[many:][others], misses)
        return solution.of(torch.arange(many))

    def _measure(self, targets: Targets, answers: Tensor, rows: Tensor) -> Tensor:
        """What some answers miss by, as they will be judged: in as many steps as it takes; infinite where they fail."""
        revision, wanted = self.revision, targets.of(rows.nonzero()[:, 0])
        truth = simulate_closely(
            revision.task, answers[rows], wanted.conditions, wanted.targets, revision.device, revision.ledger
        )
        return truth.miss.nan_to_num(nan=torch.inf)


def bound_error(errors: Tensor) -> Tensor:
    """The bound that 90 % of new errors keep in the mean, of each column of `(n, columns)` held-out ones, n from 9 on:
    the conformal one."""
    rank = math.ceil(COVERAGE * (len(errors) + 1))
    return errors.abs().sort(dim=0).values[rank - 1]


def bound_miss(misses: Tensor) -> Tensor:
    """The limit that at least 90 % of new misses keep, with as much confidence; infinite where there are too few."""
    below = torch.arange(len(misses), dtype=torch.float64)
    chance = (
        torch.distributions.Binomial(len(misses), torch.tensor(COVERAGE, dtype=torch.float64)).log_prob(below).exp()
    )
    enough = misses.sort().values[chance.cumsum(0) >= CONFIDENCE]
    return enough[0] if len(enough) else misses.new_tensor(torch.inf)


def bound_misses(scores: Tensor, others: Tensor, misses: Tensor) -> Tensor:
    """The bound of the miss of each answer, `(T,)`: that of its stratum, infinite where that has too few other answers.

    The strata hold equally many answers, of both kinds, by their scores: which are in one does not depend on a miss, so
    the bound holds in each of them.

    Args:
        scores, others: what a route knows of its answers, `(T,)`, and of others, `(n,)`, with these `misses`, `(n,)`.
    """
    bounds = torch.full_like(scores, torch.inf)
    every = torch.cat([scores, others]).sort().values
    if len(every) == 0:  # no hit is believed, of either kind
        return bounds
    edges = every[[max(0, len(every) * stratum // STRATA - 1) for stratum in range(1, STRATA)]]
    place, place_of_others = torch.bucketize(scores, edges), torch.bucketize(others, edges)
    for stratum in range(STRATA):
        bounds[place == stratum] = bound_miss(misses[place_of_others == stratum])
    return bounds


def measure_local_error(
    task: Task, network: Surrogate, dataset: Dataset, controls: Tensor, conditions: Tensor, like: Tensor
) -> Tensor:
    """What a network errs by on the examples near to answers, as a miss, `(n, ...)` each -> `(n,)`.

    The root mean square over the ten nearest examples in the unit cube of controls and conditions. It costs no
    simulation, and bounds that follow it are kept: "May a believed hit be trusted?" in benchmarks/FIELD.md.

    Args:
        like: what the network computes in, and on.
    """
    with torch.no_grad():
        told = network(dataset.controls.to(like), dataset.conditions.to(like)).to(dataset.outcomes)
    squares = task.distance.measure(told - dataset.outcomes).square()

    def place(points: Tensor, given: Tensor) -> Tensor:
        return torch.cat([task.box.to_unit(points), task.conditions.to_unit(given)], dim=1)

    examples, count = place(dataset.controls, dataset.conditions), min(_NEAREST, len(dataset))

    def measure_some() -> Iterator[Tensor]:
        for some in place(controls, conditions).split(_ROWS):
            nearest = torch.cdist(some, examples).topk(count, dim=1, largest=False).indices
            yield squares[nearest].mean(1).sqrt()

    return torch.cat(list(measure_some()))


def _tell_at_most(progress: Progress, count: int) -> Progress:
    return lambda done, arrived: progress(min(done, count), min(arrived, count))
