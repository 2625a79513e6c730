"""Networks that learn from Jacobians too: what is learned, what it costs, and what cannot be learned so."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import Repository
from plans import plan, plan_network, plan_training
from problems import Affine, seeded
from pydantic import ValidationError
from test_diagnose_landscape import one, schooled
from test_revision import Line, configure, revise, run
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.errors import UserError
from aimback.data.dataset import Dataset, load_dataset, save_dataset, simulate_dataset
from aimback.diagnose import fidelity
from aimback.learn import callbacks
from aimback.learn.perceptron import differentiate
from aimback.learn.surrogate import Surrogate
from aimback.learn.surrogate_training import Trained, train_surrogates
from aimback.library.contest import compare
from aimback.report.result import list_routes
from aimback.settings.learning import check_together
from aimback.settings.limits import check_limits
from aimback.tasks.base import Task
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.robotic_arm import RoboticArm
from aimback.workflow import compose

T = torch.float64
WEIGHT = 0.7
SHORT: dict[str, Any] = {
    **{"hidden_width": 8, "hidden_layers": 2, "batch_size": 32, "max_epochs": 6, "dtype": "float64"},
    "jacobian_weight": WEIGHT,
}


class Made(Task):
    """A made-up map of unlike scales: two controls, a condition, and as many outcomes as are asked for."""

    def __init__(self, outcomes: int) -> None:
        self.box = Box([Axis("x", "", 1.0, 3.0), Axis("y", "", -20.0, 20.0)])
        self.conditions = Box([Axis("w", "", 0.0, 5.0)])
        self.outcomes = Box([Axis(f"z{number}", "", -9.0, 9.0) for number in range(outcomes)])
        self.tolerance = 0.01

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        x, y = controls.unbind(-1)
        waves = [10**number * torch.sin(x + number * conditions[..., 0]) + y for number in range(len(self.outcomes))]
        return torch.stack(waves, dim=-1)


def draw(task: Task, examples: int = 120, seed: int = 0, *, jacobians: bool = True) -> Dataset:
    return simulate_dataset(task, examples, 0.25, seeded(seed), jacobians=jacobians)


def train(
    work_dir: Path, *datasets: Dataset, task: Task | None = None, live: Any = None, **changes: Any
) -> list[Trained]:
    settings = plan(**{**SHORT, **changes})
    return train_surrogates(datasets, task or Made(1), *settings, range(len(datasets)), "cpu", work_dir, live)


def assert_equal(ones: Sequence[Trained], others: Sequence[Trained]) -> None:
    for (network, history), (other, told) in zip(ones, others, strict=True):
        assert history == told
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


# ---- what is learned


@pytest.mark.parametrize("outcomes", [1, 2, 3])  # backwards, backwards, forwards
@pytest.mark.parametrize("activation", ["tanh", "silu", "gelu", "softplus", "relu"])
def test_the_jacobian_of_layers_is_that_of_differences_and_its_slope_too(outcomes: int, activation: str) -> None:
    layers = Surrogate.for_dataset(
        draw(Made(outcomes), 10), Made(outcomes), plan_network(hidden_width=5, activation=activation), seeded()
    ).layers.double()
    inputs = torch.rand(7, 3, generator=seeded(1), dtype=T)
    outcome, jacobian = differentiate(layers, inputs, 2)
    assert torch.equal(outcome, layers(inputs)) and jacobian.shape == (7, outcomes, 2)
    steps = 1e-6 * torch.eye(3, dtype=T)[:2]
    differences = [(layers(inputs + step) - layers(inputs - step)) / 2e-6 for step in steps]
    torch.testing.assert_close(jacobian, torch.stack(differences, dim=-1), rtol=1e-7, atol=1e-8)
    (first, *_) = layers.parameters()
    (slope,) = torch.autograd.grad(jacobian.square().sum(), first)
    with torch.no_grad():
        first[0, 0] += 1e-6
        ahead = differentiate(layers, inputs, 2)[1].square().sum()
        first[0, 0] -= 2e-6
        behind = differentiate(layers, inputs, 2)[1].square().sum()
    assert slope[0, 0].item() == pytest.approx(((ahead - behind) / 2e-6).item(), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("outcomes", [1, 3])
def test_the_losses_are_those_by_hand(tmp_path: Path, outcomes: int) -> None:
    """One epoch of one batch at a rate too small to move a weight; the network's Jacobian by differences in raw units.

    Standardised, that is: an outcome by its own standard deviation, a control by that of its range.
    """
    task = Made(outcomes)
    dataset = draw(task)
    how = {"optimizer": "sgd", "learning_rate": 1e-12, "schedule": "constant", "batch_size": 90, "max_epochs": 1}
    ((_, (row,)),) = train(tmp_path, dataset, task=task, **how)
    network = Surrogate.for_dataset(dataset, task, plan_network(hidden_width=8, hidden_layers=2), seeded()).double()
    given = dataset.conditions
    step = 1e-6 * torch.diag(task.box.upper - task.box.lower)
    with torch.no_grad():
        outcome = network(dataset.controls, given)
        ends = [[network(dataset.controls + sign * move, given) for sign in (1, -1)] for move in step]
    jacobian = torch.stack([(ahead - behind) / 2e-6 for ahead, behind in ends], dim=-1)
    learned = dataset.outcomes[:90]
    assert dataset.jacobians is not None
    units = (task.box.upper - task.box.lower) / (learned.std(0, correction=0)[:, None] * 12**0.5)
    wanted = dataset.jacobians * units
    off = (jacobian / 12**0.5 / learned.std(0, correction=0)[:, None] - wanted).square()
    errors = ((outcome - dataset.outcomes) / learned.std(0, correction=0)).square()
    weight = WEIGHT / wanted[:90].square().mean()
    for told, part in ((row.train_loss, slice(90)), (row.validation_loss, slice(90, None))):
        assert told == pytest.approx((errors[part].mean() + weight * off[part].mean()).item(), rel=1e-6)


def test_a_linear_simulator_is_learned_from_fewer_examples_than_it_has_controls(tmp_path: Path) -> None:
    """Five numbers an outcome: two examples say two of them, and with their Jacobians all."""
    task = Made(2)
    task.box, task.conditions = Box([Axis(name, "", 0.0, 4.0) for name in "abcd"]), Box([])
    truth = Affine(torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 4.0, 1.0, -1.0]], dtype=T))
    controls = task.box.sample(100, seeded())
    outcomes, jacobians = truth.linearise(controls, controls[:, :0])
    few = Dataset(controls, controls[:, :0], outcomes, 98, 0, jacobians)
    how = {"hidden_layers": 0, "max_epochs": 800, "learning_rate": 0.1}
    errors = {}
    for weight in (0.0, 1.0):
        ((network, _),) = train(tmp_path, few, task=task, jacobian_weight=weight, **how)
        off = network(controls, controls[:, :0]) - outcomes
        errors[weight] = (off.square().sum() / outcomes.square().sum()).sqrt().item()
    assert errors[1.0] < 1e-3 and errors[0.0] > 0.05


def test_it_learns_more_from_as_many_examples_of_a_simulator(tmp_path: Path) -> None:
    task = CannonDrag()
    further = draw(task, 1000, 7)
    how = {"hidden_width": 24, "max_epochs": 150, "dtype": "float32"}
    errors = []
    for weight in (0.0, 1.0):
        ((network, _),) = train(tmp_path, draw(task), task=task, jacobian_weight=weight, **how)
        off = network.double()(further.controls, further.conditions) - further.outcomes
        errors.append(off.square().mean().item())
    assert errors[1] < errors[0] / 4


# ---- what stays as it is


def test_without_weight_the_jacobians_change_no_bit(tmp_path: Path) -> None:
    task = Made(1)
    with_them, without = draw(task), draw(task, jacobians=False)
    for name in ("controls", "conditions", "outcomes"):
        assert torch.equal(getattr(with_them, name), getattr(without, name))
    assert without.jacobians is None
    found = (train(tmp_path / name, one, jacobian_weight=0.0) for name, one in (("a", with_them), ("b", without)))
    assert_equal(*found)
    save_dataset(tmp_path / "dataset.npz", without, task)
    with np.load(tmp_path / "dataset.npz") as file:
        assert sorted(file.files) == ["conditions", "controls", "counts", "identity", "outcomes"]


def test_killed_it_resumes_to_the_same_bits_and_side_by_side_it_learns_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def die(step: int, values: Any) -> None:
        if values["epoch"] == 4:
            raise KilledError

    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    datasets = draw(Made(1)), draw(Made(1), seed=1)
    whole = train(tmp_path / "whole", *datasets)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", *datasets, live=die)
    seen: list[float] = []
    resumed = train(tmp_path / "killed", *datasets, live=lambda step, values: seen.append(values["epoch"]))
    assert_equal(resumed, whole)
    assert seen[0] == 4
    assert_equal(train(tmp_path / "alone", datasets[0]), whole[:1])
    # Other Jacobians are another training: what it left behind is not taken up.
    assert datasets[0].jacobians is not None
    bent = replace(datasets[0], jacobians=2 * datasets[0].jacobians)
    assert train(tmp_path / "whole", bent)[0][1] != whole[0][1]


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    # Each epoch ends with a batch of which the second process gets nothing.
    how = {"batch_size": 89, "task": Made(3)}
    ((network, history),), ((other, told),) = (
        train(tmp_path / str(devices), draw(Made(3)), devices=devices, **how) for devices in (1, 2)
    )
    assert torch.tensor(history).allclose(torch.tensor(told), rtol=1e-9)
    for weight, same in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(weight, same, rtol=1e-9, atol=1e-9)


# ---- data sets


def test_jacobians_are_those_of_the_simulator_kept_and_checked(tmp_path: Path) -> None:
    task, path = RoboticArm(), tmp_path / "dataset.npz"
    dataset = simulate_dataset(task, 60, 0.2, seeded(), chunk=7, jacobians=True)
    assert dataset.jacobians is not None
    assert torch.equal(task.linearise(dataset.controls, dataset.conditions)[1], dataset.jacobians)
    save_dataset(path, dataset, task)
    back = load_dataset(path, task, jacobians=True)
    assert all(torch.equal(one, other) for one, other in zip(back.parts, dataset.parts, strict=True))
    assert load_dataset(path, task).jacobians is None
    for wrong, says in ((dataset.jacobians[:, :, :1], "has the shape"), (dataset.jacobians / 0, "is not finite")):
        save_dataset(path, replace(dataset, jacobians=wrong), task)
        with pytest.raises(UserError, match=f"its array jacobians {says}"):
            load_dataset(path, task, jacobians=True)
    save_dataset(path, replace(dataset, jacobians=None), task)
    with pytest.raises(UserError, match=r"has no Jacobians; simulate it anew, with training\.jacobian_weight above 0$"):
        load_dataset(path, task, jacobians=True)


def test_a_row_without_a_finite_jacobian_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    task = CannonDrag()
    linearise = CannonDrag.linearise

    def fail(self: Task, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        outcome, jacobian = linearise(task, controls, conditions)
        return outcome, torch.where(controls[:, :1, None] > 5, torch.nan, jacobian)

    monkeypatch.setattr(CannonDrag, "linearise", fail)
    dataset = draw(task, 200)
    assert len(dataset) + dataset.n_left_out == 200 and 50 < dataset.n_left_out < 150
    assert bool((dataset.controls[:, 0] <= 5).all())
    part = dataset.first(20)
    assert part.jacobians is not None and dataset.jacobians is not None
    assert torch.equal(part.jacobians[:20], dataset.jacobians[:20]) and len(part.jacobians) == 20 + part.n_validation
    monkeypatch.setattr(CannonDrag, "linearise", lambda *rows: [part / 0 for part in linearise(*rows)])
    with pytest.raises(UserError, match="only 0 of 200 simulated examples have a finite outcome and Jacobian"):
        draw(task, 200)


# ---- what it costs, and who learns so


class Differenced(Line):
    """A line whose Jacobian takes a simulation more."""

    simulations_a_jacobian = 2

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        self.simulated += len(controls)
        return self(controls, conditions), torch.ones_like(controls)[..., None]


def test_rounds_learn_from_jacobians_and_pay_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, known = Dataset.__init__, torch.ones(50, 1, 1, dtype=T)
    monkeypatch.setattr(Dataset, "__init__", lambda *parts: begin(*(parts if len(parts) > 5 else [*parts, 0, known])))
    task = Differenced()
    revision, _, _ = revise(task, 10, limit=50 + 22)
    # An answer takes two simulations, so that the second round can afford four of them.
    assert [(one.round, one.simulations) for one in revision.rounds] == [(1, 14), (2, 8)]
    assert revision.ledger.simulations == revision.ledger.training_examples == 50 + task.simulated == 72
    assert revision.ledger.gradients >= 11
    assert revision.dataset.jacobians is not None and len(revision.dataset.jacobians) == len(revision.dataset) == 61


ASKED = "training.jacobian_weight=1"


def test_the_stages_learn_from_jacobians_count_them_and_go_on_in_rounds(tmp_path: Path) -> None:
    plain, asked = (configure(tmp_path / name, *more) for name, more in (("plain", ()), ("asked", (ASKED,))))
    folders = [run(settings, "generate", "train", "invert") for settings in (plain, asked)]
    ledgers = [json.loads((folder / "routes" / "surrogate" / "ledger.json").read_text()) for folder in folders]
    for name in ("simulations", "training_examples"):
        assert ledgers[0][name] == ledgers[1][name] == 200
    assert [ledger["gradients"] - ledger["evaluations"] for ledger in ledgers] == [0, 200]
    learns = [list_routes(settings)["surrogate"].learns_jacobians for settings in (plain, asked)]
    assert learns == [False, True]
    errors = [
        json.loads((folder / "routes" / "networks" / "surrogate" / "metrics.json").read_text())["validation_mse"]
        for folder in folders
    ]
    assert errors[1] < errors[0] / 2
    in_rounds = configure(tmp_path / "asked", ASKED, "invert.surrogate.rounds=2")
    ledger = json.loads((run(in_rounds, "invert") / "routes" / "surrogate" / "ledger.json").read_text())
    # Each answer that was simulated came with its Jacobian; the network's own come with evaluations.
    assert ledger["gradients"] - ledger["evaluations"] == ledger["simulations"] > 200
    with pytest.raises(UserError, match="has no Jacobians; simulate it anew"):
        run(configure(tmp_path / "plain", ASKED), "train")


def test_a_plain_route_beside_pays_for_no_jacobian(tmp_path: Path) -> None:
    beside = "routes=[surrogate,second_order]", "train.second_order.training.jacobian_weight=1"
    folder = run(configure(tmp_path, *beside), "generate", "train", "invert")
    ledger = json.loads((folder / "routes" / "surrogate" / "ledger.json").read_text())
    assert ledger["gradients"] == ledger["evaluations"]
    task = configure(tmp_path).tasks["cannon_vacuum"]
    assert load_dataset(folder / "data" / "dataset.npz", task, jacobians=True).jacobians is not None


def test_replicas_and_the_networks_of_c9_learn_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aimback.learn import surrogate_training

    learned: list[bool] = []
    real = surrogate_training.train_surrogates

    def note(datasets: Sequence[Dataset], *rest: Any) -> Any:
        learned.extend(dataset.jacobians is not None for dataset in datasets)
        return real(datasets, *rest)

    monkeypatch.setattr(surrogate_training, "train_surrogates", note)
    run(configure(tmp_path, ASKED, "diagnose=default", "diagnose.replicas=2"), "generate", "train")
    assert learned == [True] * 3
    for jacobians in (False, True):
        case, given = schooled(one(lambda x, y: x + y), [one(lambda x, y: x + y)] * 6, [0.8, 1.0, 1.2])
        fidelity.examine(replace(case, jacobians=jacobians))
        assert [dataset.jacobians is not None for dataset in given] == [jacobians] * 2


def test_differences_take_a_simulation_more_a_control_and_the_budget_knows() -> None:
    settings = configure(Path(), ASKED, "budget.simulations=300", "diagnose=default")
    assert settings.count_examples("cannon_vacuum") == 200
    dear = settings.model_copy(update={"tasks": {"cannon_vacuum": Differenced()}})
    assert dear.count_examples("cannon_vacuum") == 150 and dear.price_examples("cannon_vacuum") == 300
    assert dear.replicas_of("surrogate", "cannon_vacuum") == 0
    plain = configure(Path(), "budget.simulations=600", "diagnose=default")
    assert plain.replicas_of("surrogate", "cannon_vacuum") == 2


@pytest.mark.parametrize(("derivatives", "each"), [("dual", 1), ("finite_differences", 2)])
def test_a_notebook_compares_such_a_route(derivatives: str, each: int) -> None:
    def square(x: Any) -> Any:
        return x * x

    settings = ["data.examples=100", "data.targets=5", "training.max_epochs=3", ASKED]
    how: dict[str, Any] = {"routes": ("surrogate",), "tolerance": 0.1, "derivatives": derivatives}
    found = compare(square, {"x": (1, 3)}, settings=settings, **how)
    ledger = found["surrogate"].ledger
    assert ledger.gradients - ledger.evaluations == 100
    assert ledger.simulations == ledger.training_examples == 100 * each


# ---- what is refused


@pytest.mark.parametrize(
    ("refuse", "line"),
    [
        (
            lambda: plan_training(optimizer="levenberg_marquardt", schedule="constant", jacobian_weight=1.0),
            "jacobian_weight: must be 0 with training.optimizer: levenberg_marquardt, got 1",
        ),
        (
            lambda: check_together(*plan(normalisation="batch", jacobian_weight=1.0)),
            "training.jacobian_weight: must be 0 with surrogate.normalisation: batch, got 1",
        ),
        (lambda: plan_training(jacobian_weight=-1.0), "greater than or equal to 0"),
        (lambda: plan_training(jacobian_weight=float("inf")), "finite number"),
    ],
)
def test_what_cannot_go_together_is_refused(refuse: Callable[[], Any], line: str) -> None:
    with pytest.raises((UserError, ValidationError), match=line):
        refuse()


def test_a_simulator_without_derivatives_and_measurements_are_refused_before_work_begins() -> None:
    from aimback.tasks.described import DescribedTask
    from aimback.tasks.measured import MeasuredTask

    axes: dict[str, Any] = {"controls": {"x": [0, 1]}, "outcomes": {"y": {"tolerance": 0.1, "range": [0, 1]}}}
    simulator: Any = {"call": "a.py:f", "arrays": "numpy", "cases": "batch", "derivatives": "none"}
    for task in (DescribedTask(simulator, **axes), MeasuredTask("runs.csv", **axes)):
        settings = configure(Path(), ASKED)
        line = r"^train\.surrogate\.training\.jacobian_weight: task\.mine has no derivatives to learn from; choose 0$"
        with pytest.raises(UserError, match=line):
            check_limits(settings.model_copy(update={"tasks": {"mine": task}}), {"mine": task})


# ---- for real


def test_params_yaml_names_the_tasks_whose_examples_have_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "PARAMS", tmp_path / "params.yaml")
    for chosen, named in (
        ([], []),
        ([ASKED], ["cannon_vacuum", "cannon_drag"]),
        (["+train.surrogate.by_task.cannon_drag.training.jacobian_weight=1"], ["cannon_drag"]),
    ):
        cfg = compose.compose_conf(*chosen)
        assert [compose.write_params(cfg) for _ in range(2)] == [True, False]
        assert yaml.safe_load((tmp_path / "params.yaml").read_text())["jacobians"] == named


@pytest.mark.slow
def test_dvc_simulates_anew_where_jacobians_are_asked_for_and_not_for_another_rate(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "copy", git=False)
    repository.set("conf/data/default.yaml", "examples", 200)
    repository.set("conf/training/default.yaml", "max_epochs", 3)
    turns = ("generate@cannon_vacuum", "train@cannon_vacuum-surrogate")
    dataset = repository.root / "outputs" / "cannon_vacuum" / "data" / "dataset.npz"
    with repository.preloaded():
        repository.run("dvc", "repro", *turns).ok()
        plain = dataset.read_bytes()
        repository.set("conf/training/default.yaml", "learning_rate", 0.02)
        done = repository.run("dvc", "repro", *turns).ok()
        assert [turn for turn in turns if turn in done.stages()] == [turns[1]]
        repository.set("conf/training/default.yaml", "jacobian_weight", 1.0)
        done = repository.run("dvc", "repro", *turns).ok()
        assert set(turns) <= set(done.stages()) and len(dataset.read_bytes()) > len(plain)
        repository.set("conf/training/default.yaml", "jacobian_weight", 0.0)
        repository.run("dvc", "repro", *turns).ok()
    assert dataset.read_bytes() == plain
