"""A surrogate route in rounds: what it learns from its own answers, what that costs, and kills."""

import csv
import inspect
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import Off, Poisoned, seeded
from torch import Tensor

from aimback.core.box import Axis, Box
from aimback.core.errors import UserError
from aimback.core.ledger import Ledger
from aimback.core.problem import Solution
from aimback.data import targets as parts
from aimback.data.dataset import Dataset
from aimback.data.question import pose_problem
from aimback.data.targets import Targets
from aimback.learn import surrogate_training
from aimback.learn.revision import Revision, Round
from aimback.learn.surrogate import Surrogate
from aimback.report.result import list_routes, read_result
from aimback.settings.limits import check_limits
from aimback.settings.tree import Inversion, Settings
from aimback.solve.starts import Starts
from aimback.tasks.base import Task
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.workflow.compose import compose_settings
from aimback.workflow.stage import Job

EXAMPLES, TARGETS = 50, 7
TOLERANCE = 0.01


class Line(Task):
    """The outcome is the control; it counts what is simulated."""

    def __init__(self) -> None:
        self.box, self.conditions = Box([Axis("x", "", 0.0, 1.0)]), Box([])
        self.outcomes, self.tolerance = Box([Axis("y", "", 0.0, 1.0)]), TOLERANCE
        self.simulated = 0

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        self.simulated += len(controls)
        return controls


class Believing(Off):
    """A network that is off by so much where the outcome is above one half."""

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self.linearise(controls, conditions)[0]

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return controls + self.by * (controls > self.factor), torch.ones_like(controls)[..., None]

    def to(self, like: Tensor) -> "Believing":
        return self


class Folded(Line):
    """|x - 1/2|, which has two answers to every target."""

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return (controls - 0.5).abs()

    def linearise(self, controls: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        return self(controls, conditions), (controls - 0.5).sign()[..., None]

    def measure_spread(self, controls: Tensor, conditions: Tensor) -> Tensor:
        """As a network whose members disagree above one half."""
        return (controls > 0.5) * TOLERANCE

    def to(self, like: Tensor) -> "Folded":
        return self


def off(by: float, above: float = -1.0) -> Any:
    return Believing(Line(), by, above)


def halve(dataset: Dataset, begin: Any, number: int) -> Any:
    return off(begin.by / 2)


def keep(dataset: Dataset, begin: Any, number: int) -> Any:
    return begin


def revise(
    task: Task,
    rounds: int,
    train: Callable[..., Any] = halve,
    network: Any = None,
    limit: int | None = None,
    exploration: float = 0.0,
    counted: int | None = None,
) -> tuple[Revision, Solution, Tensor]:
    """Rounds on seven targets from a network that is off by 3.9 tolerances; and the true misses."""
    data = torch.linspace(0, 1, EXAMPLES, dtype=torch.float64)[:, None]
    dataset = Dataset(data, data[:, :0], data, 5)
    starts = Starts(number=2, drawn_from="box", until_solved=False)
    solver: Any = {"_target_": "aimback.solve.levenberg_marquardt.LevenbergMarquardt"}
    asks = {"rounds": rounds, "exploration": exploration, "calibration": 0}
    route = Inversion(network="", solver=solver, dtype="float64", margin=0.0, starts=starts, **asks)
    wanted = torch.linspace(0.2, 0.8, TARGETS, dtype=torch.float64)[:, None]
    targets = Targets(wanted, wanted[:, :0], torch.zeros(TARGETS, dtype=torch.int64), ("",) * TARGETS)
    problem, generator = pose_problem(task, targets, starts, lambda purpose: seeded())
    revision = Revision(task, route, network or off(3.9 * TOLERANCE), dataset, train, Ledger(EXAMPLES, 0, 0, EXAMPLES))
    revision.limit = limit
    solution = revision.search(targets, problem, generator, counted=counted)
    answers = solution.controls[torch.arange(TARGETS), solution.best()]
    return revision, solution, (answers - wanted)[:, 0].abs()


def test_rounds_go_on_until_all_is_solved_and_no_further() -> None:
    """A network that is off by b answers y - b, so it misses by b: 3.9, 1.95 and 0.975 tolerances."""
    task = Line()
    revision, _, misses = revise(task, 10)
    assert revision.rounds == [Round(1, 7, 7, 0), Round(2, 7, 7, 0), Round(3, 7, 7, 7)]
    assert misses.tolist() == pytest.approx([0.975 * TOLERANCE] * TARGETS)
    assert revision.ledger.simulations == revision.ledger.training_examples == EXAMPLES + task.simulated == 50 + 21
    # The answers are among the training rows, and the validation rows are what they were.
    assert (revision.dataset.n_training, revision.dataset.n_validation) == (45 + 21, 5)
    assert revision.dataset.controls[-5:, 0].tolist() == torch.linspace(0, 1, 50, dtype=torch.float64)[-5:].tolist()
    asked = revision.dataset.controls[45:52, 0]
    assert asked.tolist() == pytest.approx([0.2 + 0.1 * place - 3.9 * TOLERANCE for place in range(7)])


def test_what_the_last_network_answers_is_not_simulated() -> None:
    task = Line()
    revision, _, misses = revise(task, 1)
    assert revision.rounds == [Round(1, 7, 7, 0)] and task.simulated == 7
    assert misses.tolist() == pytest.approx([1.95 * TOLERANCE] * TARGETS)


def test_without_rounds_nothing_is_simulated() -> None:
    task = Line()
    revision, _, misses = revise(task, 0)
    assert (revision.rounds, task.simulated) == ([], 0) and misses.tolist() == pytest.approx([0.039] * 7)


def test_a_solved_target_keeps_its_answer() -> None:
    """The first network is right below one half; the next one is off everywhere."""
    first, kept, _ = revise(Line(), 0, network=off(3.9 * TOLERANCE, above=0.45))
    revision, solution, misses = revise(Line(), 1, network=off(3.9 * TOLERANCE, above=0.45))
    assert revision.rounds == [Round(1, 7, 7, 3)]
    for name in ("controls", "believed_miss", "start_status", "steps"):
        assert getattr(solution, name)[:3].equal(getattr(kept, name)[:3])
    assert misses.tolist() == pytest.approx([0.0] * 3 + [1.95 * TOLERANCE] * 4, abs=1e-9)
    # A path ends where its answer is, whichever network has led there.
    assert solution.history.controls[-1].equal(solution.controls)
    assert first.network.by == 3.9 * TOLERANCE


def test_the_budget_ends_the_rounds() -> None:
    task = Line()
    revision, _, misses = revise(task, 10, limit=EXAMPLES + 10)
    assert revision.rounds == [Round(1, 7, 7, 0), Round(2, 7, 3, 0)] and revision.cut_short
    assert revision.ledger.simulations == EXAMPLES + task.simulated == EXAMPLES + 10
    assert misses.tolist() == pytest.approx([0.975 * TOLERANCE] * TARGETS)
    nothing, _, _ = revise(Line(), 10, limit=EXAMPLES)
    assert nothing.rounds == []
    assert not revise(Line(), 10, limit=EXAMPLES + 21)[0].cut_short  # just enough


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_failed_simulation_is_paid_for_and_not_learned_from(poison: float, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Line()
    monkeypatch.setattr(Line, "__call__", lambda self, controls, _: Poisoned(Off(self, 0), poison, 0.65).ask(controls))
    monkeypatch.setattr(Poisoned, "ask", lambda self, x: torch.where(x > self.above, self.poison, x), raising=False)
    revision, _, _ = revise(task, 3, network=off(0.0))
    assert revision.rounds == [Round(1, 7, 7, 5), Round(2, 2, 2, 5), Round(3, 2, 2, 5)]
    assert (revision.dataset.n_training, revision.dataset.n_left_out) == (45 + 5, 6)
    assert revision.ledger.simulations == EXAMPLES + 11


def test_the_answer_that_is_simulated_is_the_one_that_the_user_prefers() -> None:
    for sign in (1.0, -1.0):
        task = Folded()
        vars(task)["_costs"] = lambda controls, sign=sign: sign * controls[..., 0]
        revision, _, _ = revise(task, 1, network=Folded(), train=keep)
        assert revision.rounds == [Round(1, 7, 7, 4)]  # no outcome is above 0.5
        asked = revision.dataset.controls[45:49, 0]
        assert bool((sign * (asked - 0.5) < 0).all())


def test_exploring_asks_where_the_members_disagree_and_keeps_what_hits() -> None:
    """Only above one half is the network right, and only there do its members disagree; it believes in both answers."""

    class Half(Folded):
        def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
            return (controls - 0.5).clamp(min=0)

    none, _, _ = revise(Half(), 0, network=Folded())
    revision, solution, _ = revise(Half(), 1, network=Folded(), train=keep, exploration=1.0)
    assert revision.rounds == [Round(1, 7, 7, 4)] and none.rounds == []  # no outcome is above 0.5
    asked = revision.dataset.controls[45:49, 0]
    assert asked.tolist() == pytest.approx([0.7, 0.8, 0.9, 1.0])
    assert solution.controls[:4, :, 0].equal(asked[:, None].expand(-1, 2))  # from both starts
    assert solution.history.controls[-1].equal(solution.controls)


def choose(controls: Tensor, believed: Tensor, exploration: float) -> list[int]:
    revision, solution, _ = revise(Line(), 0, network=Folded(), exploration=exploration)
    status = torch.zeros(believed.shape, dtype=torch.int8)
    stopped = replace(solution, controls=controls, believed_miss=believed, start_status=status)
    starts: list[int] = revision._choose(stopped, torch.empty(len(controls), 0)).tolist()
    return starts


@pytest.mark.parametrize(("exploration", "start"), [(0.0, 0), (0.4, 0), (0.6, 1)])
def test_so_many_times_the_spread_is_weighed_against_the_believed_miss(exploration: float, start: int) -> None:
    """The second start believes in half a tolerance more, and its members differ by one."""
    controls = torch.tensor([[[0.2], [0.8], [0.9]]], dtype=torch.float64)
    believed = torch.tensor([[0.0, 0.5 * TOLERANCE, torch.nan]], dtype=torch.float64)
    assert choose(controls, believed, exploration) == [start]


def test_answers_beyond_soft_walls_are_not_explored_where_there_are_others() -> None:
    controls = torch.tensor([[[0.2], [1.1]], [[-0.1], [1.1]]], dtype=torch.float64)
    assert choose(controls, torch.zeros(2, 2, dtype=torch.float64), exploration=1.0) == [0, 1]


def test_what_a_calibration_asks_is_not_among_what_rounds_are_told_to_have_done() -> None:
    task = Line()
    revision, _, _ = revise(task, 10, counted=3)
    assert revision.rounds == [Round(1, 3, 3, 0), Round(2, 3, 3, 0), Round(3, 3, 3, 3)]
    assert task.simulated == 21


# ---- the stage

SMALL = (
    *("routes=[surrogate]", "diagnose=none", "tracking=off", "hardware=cpu"),
    *("data.examples=200", "data.targets=40", "starts.number=4", "surrogate.hidden_width=16"),
    *("hardware.compile=off", "training.max_epochs=60", "training.batch_size=64"),
)


def configure(root: Path, *overrides: str, task: str = "cannon_vacuum") -> Settings:
    return compose_settings(*SMALL, f"task=[{task}]", f"inputs=[{root}]", *overrides)


def run(settings: Settings, *stages: str) -> Path:
    """Stages in this process; the folder of what they made."""
    (root,), (name,) = settings.inputs, settings.tasks
    for stage in stages:
        route = "surrogate" if stage in ("train", "invert") else ""
        job = Job(name, route, settings, stage, root)
        job.outputs.mkdir(parents=True, exist_ok=True)
        inspect.unwrap(import_module(f"pipelines.{stage}").main)(job)
        job.write_meters()
    return root / name


def read_metrics(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "evaluate" / "metrics.json").read_text())["surrogate"]
    return metrics


def test_a_poor_network_solves_more_by_its_own_answers(tmp_path: Path) -> None:
    counted = {"simulations": 0}
    simulate = CannonVacuum.__call__

    def count(self: CannonVacuum, controls: Tensor, conditions: Tensor) -> Tensor:
        counted["simulations"] += len(controls)
        return simulate(self, controls, conditions)

    folder = run(configure(tmp_path), "generate", "train", "invert", "evaluate")
    before = read_metrics(folder)
    routes = folder / "routes" / "surrogate"
    assert [file.name for file in (routes / "revision").iterdir()] == ["rounds.csv"]
    assert (routes / "revision" / "rounds.csv").read_text() == ",".join(Round._fields) + "\n"
    settings = configure(tmp_path, "invert.surrogate.rounds=3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CannonVacuum, "__call__", count)
        run(settings, "invert")
    run(settings, "evaluate")
    after = read_metrics(folder)
    assert after["solved_fraction"] > before["solved_fraction"] + 0.2
    assert after["simulations"] == after["training_examples"] == 200 + counted["simulations"] > 240
    with (routes / "revision" / "rounds.csv").open() as file:
        rounds = [{name: int(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert sum(row["simulations"] for row in rounds) == counted["simulations"]
    assert [row["open_targets"] for row in rounds[1:]] == [40 - row["solved_targets"] for row in rounds[:-1]]
    assert after["status"]["solved"] >= rounds[-1]["solved_targets"]  # what was known to be hit is judged so
    task = settings.tasks["cannon_vacuum"]
    Surrogate.load(routes / "revision" / "weights.safetensors", task)
    # What was simulated for the targets was not simulated before the first one.
    (folder / "figures").mkdir()
    found = read_result(
        "cannon_vacuum",
        task,
        list_routes(settings),
        metrics=folder / "evaluate" / "metrics.json",
        answers=folder / "evaluate" / "answers.csv",
        meters=tmp_path / "meters" / "cannon_vacuum",
        results=folder,
        diagnosis=None,
        figures=folder / "figures",
        panels=folder / "interactive",
    )
    assert found.prepared == {"surrogate": 200}
    assert found.rounds["surrogate"]["solved_targets"].tolist() == [row["solved_targets"] for row in rounds]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("members", [1, 3])
def test_killed_between_and_within_trainings_it_comes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: int
) -> None:
    words = f"surrogate.members={members}", f"invert.surrogate.exploration={members - 1}"
    settings = configure(tmp_path, "invert.surrogate.rounds=2", *words)
    monkeypatch.setattr("aimback.learn.callbacks.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    folder = run(settings, "generate", "train", "invert") / "routes" / "surrogate"
    made = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert len(made) == 5
    last = Surrogate.load(folder / "revision" / "weights.safetensors", settings.tasks["cannon_vacuum"])
    assert len(last.members) == members
    train, begun, epochs = surrogate_training.train_surrogate, 0, []

    def train_and_die(*arguments: Any, **named: Any) -> Any:
        nonlocal begun
        begun += 1

        def live(step: int, values: Any) -> None:
            epochs.append((begun, values["epoch"]))
            if begun == 2 and values["epoch"] == 20:
                raise KilledError

        return train(*arguments, **named, live=live)

    for file in made:
        file.unlink()
    monkeypatch.setattr(surrogate_training, "train_surrogate", train_and_die)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(KilledError):
        run(settings, "invert")
    assert not any(file.exists() for file in made)
    run(settings, "invert")
    assert {file: file.read_bytes() for file in made} == made
    assert epochs[-1] == (4, 60) and (4, 19) not in epochs  # the second training went on where it was


def test_a_single_network_has_nothing_to_explore_by(tmp_path: Path) -> None:
    settings = configure(tmp_path, "invert.surrogate.exploration=1")
    with pytest.raises(UserError, match=r"^invert\.surrogate\.exploration: a single network has no spread"):
        check_limits(settings, settings.tasks)


def test_more_than_one_part_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART", 16)
    settings = configure(tmp_path, "invert.surrogate.rounds=1")
    run(settings, "generate", "train")
    with pytest.raises(UserError, match=r"^invert\.surrogate: .* in 3 parts; choose 0 for both, or"):
        run(settings, "invert")
