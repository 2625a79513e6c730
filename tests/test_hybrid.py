"""The hybrid route: a proposer trained through the simulator, its answers verified and refined."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from conftest import Repository
from plans import plan_hybrid
from problems import pose, seeded
from pydantic import ValidationError
from test_compiled import Unoptimised, needs_compiler
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.errors import UserError
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import Solution, StartStatus
from aimback.data.targets import Targets, draw_targets
from aimback.learn import callbacks
from aimback.learn import proposer as network
from aimback.learn.callbacks import Epoch
from aimback.learn.proposer import Proposer
from aimback.learn.proposer_training import ProposerLearner, train_proposer
from aimback.settings.learning import Architecture
from aimback.solve.cma_es import CmaEs
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.solver import Solver
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum

T = torch.float64
SETTINGS = plan_hybrid(
    **{"targets": 90, "validation_targets": 30, "hidden_width": 8, "hidden_layers": 1},
    **{"batch_size": 32, "batches_a_simulation": 2, "max_epochs": 5},
)


class Made(Task):
    """A made-up task whose inverse is known: outcome = factor * x1 + x2^power + condition, no task of ours.

    Beyond `edge` of x1 there is no outcome.
    """

    def __init__(self, power: int = 1, factor: float = 2.0, edge: float = 9.0) -> None:
        self.power, self.factor, self.edge = power, factor, edge
        self.box = Box([Axis("x1", "", -1.0, 1.0), Axis("x2", "", -1.0, 1.0)])
        self.conditions = Box([Axis("shift", "", -0.5, 0.5)])
        self.outcomes = Box([Axis("sum", "", -4.0, 4.0)])
        self.tolerance = 0.02

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        x1, x2 = controls.split(1, dim=-1)
        outcome = self.factor * x1 + x2**self.power + conditions
        return torch.where(x1 > self.edge, torch.nan, outcome)

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        x1, x2 = controls.split(1, dim=-1)
        row = torch.cat([torch.full_like(x1, self.factor), self.power * x2 ** (self.power - 1)], dim=-1)
        return self(controls, conditions), torch.where(x1 > self.edge, torch.nan, row)[:, None, :]


def train(work_dir: Path, task=None, ledger=None, seed=0, live=None, compiler=None, **settings):
    task = task or CannonVacuum()
    changed = plan_hybrid(**{**SETTINGS.model_dump(), **settings})
    ledger = Ledger() if ledger is None else ledger
    targets = draw_targets(task, changed.targets + changed.validation_targets, seeded(1), ledger=ledger)
    ledger.training_examples = ledger.simulations
    return train_proposer(task, targets, changed, ledger, seed, "cpu", T, work_dir, live, compiler)


def refined(task, targets: Targets, starts: Tensor, solver: Solver, ledger: Ledger, tolerated=True) -> Solution:
    """As the stage `refine` does it."""
    if tolerated:
        solver = dataclasses.replace(solver, precision=task.distance.share)
    problem = pose(targets.targets, targets.conditions, task.box, task.tolerance, task.distance.span, starts[:, None])
    return solve(Counted(task, ledger, simulates=True), problem, solver, seeded())


def misses(task, targets: Targets, controls: Tensor) -> Tensor:
    return torch.linalg.vector_norm(task(controls, targets.conditions) - targets.targets, dim=-1)


def assert_equal(one: tuple[Proposer, list[Epoch], int], two: tuple[Proposer, list[Epoch], int]) -> None:
    assert one[1:] == two[1:]
    for name, tensor in one[0].state_dict().items():
        assert torch.equal(tensor, two[0].state_dict()[name]), name


# ---- the network


def untrained(task=None, seed=0) -> Proposer:
    proposer = Proposer(task or CannonDrag(), Architecture(hidden_width=8, hidden_layers=2, activation="gelu"))
    proposer.draw_weights(seeded(seed))
    return proposer.double()


def test_controls_lie_in_the_closed_box_and_reach_its_walls() -> None:
    task = CannonDrag()
    proposer = untrained(task)
    targets, conditions = task.outcomes.sample(1000, seeded(1)), task.conditions.sample(1000, seeded(2))
    with torch.no_grad():
        proposer.layers[-1].weight *= 200
    controls = proposer(targets, conditions)
    assert bool(task.box.contains(controls).all())
    walls = (controls == task.box.lower) | (controls == task.box.upper)
    assert bool(walls.any(0).all())
    assert not bool(walls.all())


def test_the_network_is_the_formula() -> None:
    task = CannonDrag()
    proposer = untrained(task)
    targets, conditions = task.outcomes.sample(7, seeded(1)), task.conditions.sample(7, seeded(2))
    ends = [
        torch.cat([task.outcomes.lower, task.conditions.lower]),
        torch.cat([task.outcomes.upper, task.conditions.upper]),
    ]
    hidden = (torch.cat([targets, conditions], -1) - (ends[0] + ends[1]) / 2) / ((ends[1] - ends[0]) / 12**0.5)
    for layer in proposer.layers:
        hidden = layer(hidden)
    unit = (1.2 / (1 + torch.exp(-hidden)) - 0.1).clamp(0, 1)
    torch.testing.assert_close(proposer(targets, conditions), task.box.lower + unit * (task.box.upper - task.box.lower))


def test_a_row_does_not_depend_on_its_batch() -> None:
    task = CannonDrag()
    proposer = untrained(task).float()
    targets, conditions = task.outcomes.sample(700, seeded(1)).float(), task.conditions.sample(700, seeded(2)).float()
    whole = proposer(targets, conditions)
    for rows in (slice(0, 1), slice(3, 10), slice(250, 600)):
        assert torch.equal(proposer(targets[rows], conditions[rows]), whole[rows])


@pytest.mark.parametrize(
    ("wide", "gradient", "passed"),
    [(0.5, 1.0, 1.0), (-0.05, 1.0, 0.0), (-0.05, -1.0, -1.0), (1.05, -1.0, 0.0), (1.05, 1.0, 1.0), (0.0, 1.0, 1.0)],
)
def test_beyond_a_wall_only_the_way_back_is_passed_on(wide: float, gradient: float, passed: float) -> None:
    leaf = torch.tensor([wide], dtype=T, requires_grad=True)
    network._Held.apply(leaf).backward(torch.tensor([gradient], dtype=T))
    assert leaf.grad is not None
    assert leaf.grad.item() == passed


def test_weights_come_back_and_those_of_another_task_or_damaged_ones_are_refused(tmp_path: Path) -> None:
    task, proposer, path = CannonDrag(), untrained(), tmp_path / "weights.safetensors"
    proposer.save(path, task)
    first = path.read_bytes()
    back = Proposer.load(path, task)
    targets, conditions = task.outcomes.sample(9, seeded(1)), task.conditions.sample(9, seeded(2))
    assert torch.equal(back(targets, conditions), proposer(targets, conditions))
    assert not any(weight.requires_grad for weight in back.parameters())
    proposer.save(path, task)
    assert path.read_bytes() == first
    with pytest.raises(UserError, match=r"made for another task \(drag is 0.05 there, 0.1 here\)"):
        Proposer.load(path, CannonDrag(drag=0.1))
    path.write_bytes(first[:-1])
    with pytest.raises(UserError, match="damaged"):
        Proposer.load(path, task)


# ---- the training


@pytest.mark.parametrize("power", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_it_learns_an_inverse_of_a_map_that_has_many(tmp_path: Path, power: int) -> None:
    task = Made(power)
    learned = {"targets": 2000, "validation_targets": 200, "max_epochs": 60, "hidden_width": 16, "hidden_layers": 2}
    proposer, history, lost = train(tmp_path, task, **learned)
    targets = draw_targets(task, 500, seeded(7))
    miss = misses(task, targets, proposer.double()(targets.targets, targets.conditions))
    assert (miss <= task.tolerance).double().mean() > 0.95
    assert history[-1].validation_loss < history[0].validation_loss / 100
    assert lost == 0


def test_every_simulation_and_gradient_is_on_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger()
    train(tmp_path, Made(), ledger)
    # Drawn once, simulated with a Jacobian every epoch; validated every epoch.
    learned, validated = 90 * 5, 30 * 5
    assert ledger == Ledger(120 + learned + validated, learned + validated, learned, 120)


def test_targets_that_need_several_draws_count_each(tmp_path: Path) -> None:
    ledger = Ledger()
    draw_targets(Made(edge=0.0), 100, seeded(), ledger=ledger)
    assert ledger.simulations in range(200, 1001, 100)
    assert ledger == Ledger(simulations=ledger.simulations)


def test_the_gradient_is_that_of_the_squared_relative_miss() -> None:
    """Of the first step after a simulation, by the weights, against autograd through simulator and network."""
    task = CannonDrag()
    proposer = untrained(task)
    targets = draw_targets(task, 40, seeded(3))
    inputs = proposer.standardise_inputs(targets.targets, targets.conditions)
    learner = ProposerLearner(proposer, task, Ledger(), SETTINGS, 40, 100)
    descended = learner.foretell_loss(*learner.propose(inputs, targets.targets, targets.conditions))
    found = torch.autograd.grad(descended, list(proposer.parameters()))
    span = (task.outcomes.upper - task.outcomes.lower).item()
    outcome = task(task.box.from_unit(proposer.unit(inputs)), targets.conditions)
    loss = ((outcome - targets.targets) / span).square().sum(-1).mean()
    assert descended.item() == pytest.approx(loss.item(), rel=1e-12)
    for one, other in zip(found, torch.autograd.grad(loss, list(proposer.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_proposals_without_an_outcome_are_counted_and_move_nothing() -> None:
    task = Made()
    proposer = untrained(task)
    targets = draw_targets(task, 50, seeded(3))
    inputs = proposer.standardise_inputs(targets.targets, targets.conditions)
    proposed = proposer(targets.targets, targets.conditions)[:, 0]
    task.edge = proposed.median().item()
    lost = proposed > task.edge
    assert lost.sum() == 25
    learner = ProposerLearner(proposer, task, Ledger(), SETTINGS, 50, 100)
    block = inputs, targets.targets, targets.conditions
    _, _, residual, jacobian = learner.propose(*block)
    assert int(learner.lost) == int(lost.sum())
    assert bool((residual[lost] == 1).all())
    assert bool((jacobian[lost] == 0).all())
    assert bool((jacobian[~lost] != 0).any(-1).all())
    outcome = task(proposer(targets.targets, targets.conditions), targets.conditions)
    squares = ((outcome - targets.targets) / 8).square().squeeze(-1)
    learner.validation_step([block])
    assert learner.validation_sums[0].tolist() == pytest.approx([(squares[~lost].sum() + lost.sum()).item()], rel=1e-6)


def test_it_learns_where_a_third_of_the_box_has_no_outcome(tmp_path: Path) -> None:
    """The network strays into it, learns nothing there, and its best weights are those that do not."""
    task = Made(edge=0.3)
    proposer, history, lost = train(tmp_path, task, targets=1000, validation_targets=100, max_epochs=40)
    assert lost > 0
    assert all(torch.isfinite(torch.tensor(row)).all() for row in history)
    assert min(row.validation_loss for row in history) < history[0].validation_loss / 10
    targets = draw_targets(task, 500, seeded(7))
    assert not misses(task, targets, proposer.double()(targets.targets, targets.conditions)).isnan().any()


@needs_compiler
def test_a_compiled_simulator_teaches_the_same(tmp_path: Path) -> None:
    """To rounding, which grows from step to step; and both count the same."""
    ledgers = Ledger(), Ledger()
    compiler = Unoptimised(tmp_path, "vacuum")
    plain, fast = (
        train(tmp_path / str(index), ledger=ledgers[index], dtype="float64", compiler=one)
        for index, one in enumerate((None, compiler))
    )
    assert ledgers[0] == ledgers[1]
    for one, other in zip(plain[1], fast[1], strict=True):
        assert one == pytest.approx(other, rel=1e-8)


def test_the_seed_decides_the_bits(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    one, same, other = train(tmp_path / "one"), train(tmp_path / "same"), train(tmp_path / "one", seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert_equal(one, same)
    assert one[1] != other[1]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("epoch", [1, 2, 4, 5])
def test_killed_after_an_epoch_it_resumes_to_the_same_bits_and_the_same_ledger(
    tmp_path: Path, monkeypatch, epoch: int
) -> None:
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    task, ledgers = Made(edge=0.5), [Ledger(), Ledger(), Ledger()]
    whole = train(tmp_path / "whole", task, ledgers[0])

    def deadly(step, values) -> None:
        if values["epoch"] == epoch:
            raise KilledError

    with pytest.raises(KilledError):
        train(tmp_path / "killed", task, ledgers[1], live=deadly)
    assert len(list((tmp_path / "killed").glob("*/*.ckpt"))) == min(epoch - 1, 2)
    seen = []
    resumed = train(tmp_path / "killed", task, ledgers[2], live=lambda step, values: seen.append(values["epoch"]))
    assert seen[0] == epoch
    assert_equal(resumed, whole)
    assert ledgers[2] == ledgers[0]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("targets", 0, r"^targets\n.*greater than or equal to 1 "),
        ("refine", "never", r"^refine\n.*'outside_tolerance' or 'always' "),
        ("schedule", "plateau", r"^schedule\n.*'constant', 'cosine' or 'one_cycle' "),
        ("learning_rate", 0.0, r"^learning_rate\n.*greater than 0 "),
        ("batches_a_simulation", 2000, "at most 32768 targets are simulated at once, got 64000"),
    ],
)
def test_settings_name_the_key_and_what_is_allowed(key: str, value: object, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        plan_hybrid(**{**SETTINGS.model_dump(), key: value})
    assert re.search(says, str(caught.value), re.MULTILINE)


# ---- verified and refined


def test_a_proposal_within_tolerance_takes_no_step_and_costs_one_simulation() -> None:
    task = CannonVacuum()
    targets = draw_targets(task, 60, seeded(2))
    exact = solve(
        task,
        pose(targets.targets, targets.conditions, task.box, 0.01, 10.0),
        LevenbergMarquardt(),
        seeded(),
    )
    starts = exact.controls[torch.arange(60), exact.best()]
    assert bool((misses(task, targets, starts) < task.tolerance).all())
    ledger = Ledger()
    solution = refined(task, targets, starts, LevenbergMarquardt(), ledger)
    assert ledger == Ledger(simulations=60, evaluations=60, gradients=60)
    assert solution.steps.unique().tolist() == [0]
    assert solution.steps_to_tolerance.unique().tolist() == [0]
    assert solution.start_status.unique().tolist() == [StartStatus.ARRIVED]
    torch.testing.assert_close(solution.controls[:, 0], starts)
    # Half of them spoilt: each of these, and only these, is moved.
    spoilt = starts.clone()
    spoilt[:30] = task.box.lower + 0.4 * (task.box.upper - task.box.lower)
    moved = misses(task, targets, spoilt) > task.tolerance
    ledger = Ledger()
    solution = refined(task, targets, spoilt, LevenbergMarquardt(), ledger)
    assert bool(((solution.steps[:, 0] > 0) == moved).all())
    assert ledger.simulations == 60 + int(solution.steps.sum())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Proposer:
    learned = {"targets": 2000, "validation_targets": 200, "max_epochs": 40, "hidden_width": 24, "hidden_layers": 3}
    proposer, _, _ = train(tmp_path_factory.mktemp("work"), **learned)
    return proposer.double()


def test_from_its_proposals_every_target_is_solved_and_in_fewer_steps_than_from_random_starts(trained) -> None:
    task = CannonVacuum()
    targets = draw_targets(task, 300, seeded(5))
    proposals = trained(targets.targets, targets.conditions)
    alone = misses(task, targets, proposals) <= task.tolerance
    assert alone.double().mean() > 0.4
    ledger = Ledger()
    solution = refined(task, targets, proposals, LevenbergMarquardt(), ledger)
    assert bool((misses(task, targets, solution.controls[:, 0]) <= task.tolerance).all())
    assert bool(((solution.steps_to_tolerance[:, 0] == 0) == alone).all())
    random = refined(task, targets, task.draw_starts(300, seeded(6)), LevenbergMarquardt(), Ledger())
    assert solution.steps.double().mean() < random.steps.double().mean() / 3
    # To the solver's own precision, from the same proposals.
    closer = refined(task, targets, proposals, LevenbergMarquardt(), Ledger(), tolerated=False)
    assert misses(task, targets, closer.controls[:, 0]).max() < 1e-6


@pytest.mark.parametrize("solver", [CmaEs(max_steps=60), LevenbergMarquardt()])
def test_solvers_go_on_from_proposals(trained, solver: Solver) -> None:
    task = CannonVacuum()
    targets = draw_targets(task, 20, seeded(5))
    solution = refined(task, targets, trained(targets.targets, targets.conditions), solver, Ledger())
    assert bool((misses(task, targets, solution.controls[:, 0]) <= task.tolerance).all())


# ---- the stages


@pytest.mark.slow
def test_the_stages_write_what_they_say_and_the_ledger_adds_up(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "copy", git=False)
    common = ["task=cannon_vacuum", "hydra.run.dir=outputs", "data.targets=50", "data.examples=200"]
    few = ["hybrid.targets=1000", "hybrid.validation_targets=100", "hybrid.max_epochs=10"]
    made = repository.root / "outputs" / "cannon_vacuum"
    repository.run("pipelines.generate", *common).ok()
    repository.run("pipelines.amortise", *common, *few).ok()
    for refine in ("outside_tolerance", "always"):
        repository.run("pipelines.refine", *common, *few, f"hybrid.refine={refine}").ok()
        network = made / "routes" / "proposers" / "hybrid"
        before, after = (
            json.loads((folder / "ledger.json").read_text()) for folder in (network, made / "routes" / "hybrid")
        )
        assert before == {"simulations": 12100, "evaluations": 11000, "gradients": 10000, "training_examples": 1100}
        assert after["simulations"] - before["simulations"] == after["gradients"] - before["gradients"] >= 50
        assert after["training_examples"] == 1100
        metrics = json.loads((network / "metrics.json").read_text())
        assert metrics["steps"] == 40
        assert metrics["lost_proposals"] == 0
        assert 0 <= metrics["proposals_solved_fraction"] <= 1
    repository.run("pipelines.refine", *common, *few, "solver=neural_adjoint").ok()
    refused = repository.run("pipelines.refine", *common, "task.cannon_vacuum.gravity=9.0")
    assert refused.code == 2
    assert "made for another task (gravity is 9.80665 there, 9.0 here)" in refused.printed
