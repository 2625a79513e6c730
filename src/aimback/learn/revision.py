"""A surrogate route in rounds: what the network believes is simulated, it learns from that, and answers anew."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem, Solution
from aimback.data.dataset import Dataset, simulate
from aimback.data.solution import add_costs
from aimback.data.targets import Targets
from aimback.learn.surrogate import Surrogate
from aimback.settings.posing import search
from aimback.settings.tree import Inversion
from aimback.solve.rounds import enter_answers, single_out
from aimback.solve.solver import Progress
from aimback.tasks.base import Task


class Round(NamedTuple):
    """One row of rounds.csv; what a calibration asks further is not counted.

    Attributes:
        round: its number, from 1.
        open_targets: those that no answer was known to hit before it.
        simulations: that it made: of an answer of each open target, or of as many as the budget still allowed.
        solved_targets: those that an answer was known to hit after it.
    """

    round: int
    open_targets: int
    simulations: int
    solved_targets: int


@dataclass
class Revision:
    """A network that is trained anew on what it has made its route believe.

    In each round the answer that the route ranks first is simulated for every open target. A target that it hits is
    closed and keeps it; the network is trained further, on all examples and those answers, and the open targets are
    solved through it from the same starts. It ends when no target is open, the budget is spent, or all rounds are made;
    what the last network answers is not simulated. What it brings is in benchmarks/FIELD.md, "A surrogate that learns
    from its own answers".

    With `exploration` it is not the answer that is ranked first, but that of all starts with the least believed miss
    less so many times the ensemble's spread, both as misses: a lower confidence bound (Cox, John 1992; Srinivas,
    Krause, Kakade, Seeger 2010), of those inside the box where there are any. More of it asks where more is to be
    learned. An answer that hits is kept alone.

    Elsewhere the truth never selects an answer. Here the route has bought it: these simulations stand in its ledger.

    Args:
        task: simulated, and in whose units targets are.
        route: how it searches.
        network: of the first answers; later the last one that was trained.
        dataset: what that one has learned from. Answers become training rows; the validation rows stay.
        train: a network from a data set, the network to begin with, and the number of the round.
        ledger: where simulations are counted, as training examples too.
        limit: the most simulations that may stand there; None for no limit.
        device, dtype: what the simulator computes on and in.

    Attributes:
        rounds: those that were made.
        cut_short: whether the budget allowed no more of them.
        closed: which targets an answer is known to hit, `(T,)`.
    """

    task: Task
    route: Inversion
    network: Surrogate
    dataset: Dataset
    train: Callable[[Dataset, Surrogate, int], Surrogate]
    ledger: Ledger
    limit: int | None = None
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float64
    rounds: list[Round] = field(default_factory=list)
    cut_short: bool = False
    closed: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))

    def search(
        self,
        targets: Targets,
        problem: InverseProblem,
        generator: torch.Generator,
        progress: Progress | None = None,
        counted: int | None = None,
    ) -> Solution:
        """Answer all targets, `problem` being theirs.

        Args:
            progress: see `solve`; targets that are closed are done and within the tolerance.
            counted: the first so many targets are those that rounds are told of; None for all.
        """
        counted = len(targets) if counted is None else counted
        open_rows, whole = torch.arange(len(targets)), self._solve(problem, generator, progress)
        self.closed = torch.zeros(len(targets), dtype=torch.bool)
        for number in range(1, self.route.rounds + 1):
            asked, left = open_rows, len(targets)
            if self.limit is not None:
                left = (self.limit - self.ledger.simulations) // self._price
            if left < len(asked):  # no target is preferred
                asked = asked[torch.randperm(len(asked), generator=generator)[: max(0, left)].sort().values]
            if len(asked) == 0:
                self.cut_short = len(open_rows) > 0
                break
            starts = self._choose(whole, problem.conditions)
            self.closed[asked] = self._ask(targets.of(asked), _take(whole, starts)[0][asked])
            if self.route.exploration:
                known = asked[self.closed[asked]].to(starts.device)
                whole = single_out(whole, known, starts[known])
            before, made, closed = (int((rows < counted).sum()) for rows in (open_rows, asked, self.closed.nonzero()))
            self.rounds.append(Round(number, before, made * self._price, closed))
            open_rows = (~self.closed).nonzero()[:, 0]
            if len(open_rows) == 0:
                break
            self.network = self.train(self.dataset, self.network, number).to(problem.targets)
            rows = open_rows.to(problem.targets.device)
            part = replace(
                problem,
                targets=problem.targets[rows],
                conditions=problem.conditions[rows],
                starts=problem.starts[open_rows.to(problem.starts.device)],
            )
            told = None if progress is None else _tell_beside(progress, len(targets) - len(open_rows))
            whole = enter_answers(whole, self._solve(part, generator, told), rows)
        return whole

    def pick(self, solution: Solution) -> tuple[Tensor, Tensor]:
        """The answer to each target that the route ranks first, `(T, n_controls)`, and what it believes to miss by."""
        return _take(solution, add_costs(solution, self.task).best())

    @property
    def _price(self) -> int:
        """The simulations that an answer takes."""
        return self.task.price_example(jacobian=self.dataset.jacobians is not None)

    def _choose(self, solution: Solution, conditions: Tensor) -> Tensor:
        """The start of each target whose answer is worth a simulation, `(T,)`."""
        if not self.route.exploration:
            return add_costs(solution, self.task).best()
        spread = self.task.distance.measure(self.network.measure_spread(solution.controls, conditions[:, None]))
        bound = solution.believed_miss - self.route.exploration * spread
        # Beyond soft walls members disagree most, and no answer counts.
        outside = self.task.box.is_outside(solution.controls)
        outside &= ~outside.all(-1, keepdim=True)
        return bound.nan_to_num(nan=torch.inf).masked_fill(outside, torch.inf).argmin(-1)

    def _solve(self, problem: InverseProblem, generator: torch.Generator, progress: Progress | None) -> Solution:
        return search(self.route, [Counted(self.network, self.ledger, simulates=False)], problem, generator, progress)

    def _ask(self, targets: Targets, controls: Tensor) -> Tensor:
        """Simulate answers and take what comes of them into the data set; which of them hit, `(n,)`."""
        given, jacobians = targets.conditions, self.dataset.jacobians is not None
        found = simulate(self.task, controls, given, self.device, self.dtype, jacobians=jacobians)
        self.ledger.enter_examples(self.task, len(controls), jacobians=jacobians)
        self.dataset, outcomes = self.dataset.add(controls, given, *found), found[0]
        within = self.task.distance.measure(outcomes - targets.targets) <= self.task.tolerance
        return within & ~self.task.box.is_outside(controls)


def _take(solution: Solution, starts: Tensor) -> tuple[Tensor, Tensor]:
    """The answer of one start of each target, `(T, n_controls)`, and the miss that is believed, `(T,)`; on the CPU."""
    rows = torch.arange(len(starts), device=starts.device)
    return solution.controls[rows, starts].double().cpu(), solution.believed_miss[rows, starts].double().cpu()


def _tell_beside(progress: Progress, closed: int) -> Progress:
    return lambda done, arrived: progress(closed + done, closed + arrived)
