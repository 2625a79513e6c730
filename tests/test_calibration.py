"""Bounds of the misses of believed hits: as many keep them as is said, and those of validation examples do not."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import seeded
from scipy.stats import binom
from test_revision import configure, run
from torch import Tensor

from aimback.core.errors import UserError
from aimback.core.ledger import Ledger
from aimback.core.randomness import make_generator
from aimback.data.dataset import load_dataset
from aimback.data.solution import load_solution
from aimback.data.targets import draw_targets
from aimback.learn.calibration import (
    CONFIDENCE,
    COVERAGE,
    STRATA,
    bound_error,
    bound_miss,
    bound_misses,
    measure_local_error,
)
from aimback.learn.surrogate import Surrogate
from aimback.settings.limits import check_limits
from aimback.tasks.cannon_vacuum import CannonVacuum


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scores, and misses that grow with them and have a heavy tail."""
    scores, chance = torch.rand(2, count, generator=generator, dtype=torch.float64)
    return scores, (scores + 0.1) * chance.reciprocal()


@pytest.mark.parametrize(("known", "rank"), [(22, 22), (37, 37), (38, 37), (100, 95), (200, 186), (1000, 913)])
def test_limits_are_of_the_published_ranks(known: int, rank: int) -> None:
    """Those of Wilks (1941) for 90 % with 90 %: of 22 the greatest, of 38 the second; then SciPy's."""
    misses = torch.arange(1.0, known + 1)
    assert bound_miss(misses.flip(0)) == rank
    assert binom.cdf(rank - 1, known, COVERAGE) >= CONFIDENCE > binom.cdf(rank - 2, known, COVERAGE)
    assert bound_miss(misses[:21]) == torch.inf


def test_nine_calibrations_in_ten_keep_what_is_said() -> None:
    """In every stratum, and in the mean of all of them no more than the rank of 200 says: 186 / 201."""
    kept, generator = [], seeded(1)
    for _ in range(400):
        (scores, misses), (others, known) = draw(5000, generator), draw(1000, generator)
        bounds = bound_misses(scores, others, known)
        place = torch.bucketize(scores, torch.linspace(0, 1, STRATA + 1, dtype=torch.float64)[1:-1])
        kept.append([(misses <= bounds)[place == stratum].double().mean() for stratum in range(STRATA)])
    coverage = torch.tensor(kept)
    # Of 2000 the deviation is 0.7 %; that of a single coverage, of 1000 misses, adds to its spread.
    assert float((coverage >= COVERAGE).double().mean()) > CONFIDENCE - 0.03
    assert float(coverage.mean()) == pytest.approx(186 / 201, abs=0.003)
    # Where a route knows that it errs little its bound is a small one.
    one = bound_misses(torch.tensor([0.01, 0.99], dtype=torch.float64), *draw(2000, generator))
    assert 4 * one[0] < one[1] < torch.inf


def test_where_there_is_too_little_to_go_by_there_is_no_bound() -> None:
    scores = torch.arange(STRATA, dtype=torch.float64)
    others = scores.repeat_interleave(22)
    misses = torch.arange(len(others), dtype=torch.float64)
    assert bound_misses(scores, others, misses).tolist() == [21.0, 43.0, 65.0, 87.0, 109.0]
    fewer = torch.arange(len(others)) != 3
    assert bound_misses(scores, others[fewer], misses[fewer]).tolist() == [torch.inf, 43.0, 65.0, 87.0, 109.0]
    assert bound_misses(scores, others[:0], misses[:0]).isinf().all()
    assert bound_misses(scores[:0], others, misses).tolist() == []
    assert bound_misses(scores[:0], others[:0], misses[:0]).tolist() == []


def test_the_local_error_is_that_of_the_examples_nearby(tmp_path: Path) -> None:
    """A network that is right for slow shots alone: examples of its own error say so."""
    folder = run(configure(tmp_path), "generate", "train")
    task = CannonVacuum()
    network = Surrogate.load(folder / "routes" / "networks" / "surrogate" / "weights.safetensors", task).double()
    dataset = load_dataset(folder / "data" / "dataset.npz", task)
    told = network(dataset.controls, dataset.conditions)
    far = dataset.controls[:, :1] > 5
    bent = type(dataset)(dataset.controls, dataset.conditions, told + 0.25 * far, dataset.n_validation)
    answers = torch.tensor([[1.0, 0.8], [9.0, 0.8]], dtype=torch.float64)
    local = measure_local_error(task, network, bent, answers, torch.empty(2, 0), like=answers)
    assert local.tolist() == pytest.approx([0.0, 0.25])


def test_answers_keep_bounds_of_their_like_and_not_those_of_examples(tmp_path: Path) -> None:
    """A search goes where the network believes in a hit: of the answers fewer keep what 90 % of the examples keep."""
    few = "data.targets=400", "data.validation_fraction=0.5", "data.examples=1000", "training.max_epochs=120"
    settings = configure(tmp_path, *few, "invert.surrogate.calibration=400", task="robotic_arm")
    folder = run(settings, "generate", "train", "invert", "evaluate")
    routes, task = folder / "routes", settings.tasks["robotic_arm"]
    metrics = json.loads((folder / "evaluate" / "metrics.json").read_text())["surrogate"]
    with (folder / "evaluate" / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    miss, bound = (np.array([float(row[name] or "nan") for row in rows]) for name in ("miss", "miss_bound"))
    finite = np.isfinite(bound)
    assert finite.sum() > 350 and metrics["coverage"] == np.mean((miss <= bound)[finite])
    assert metrics["certified_fraction"] == np.mean(bound <= task.tolerance)
    network = Surrogate.load(routes / "networks" / "surrogate" / "weights.safetensors", task).double()
    dataset = load_dataset(folder / "data" / "dataset.npz", task)
    errors = task.distance.measure(network(dataset.controls, dataset.conditions) - dataset.outcomes)
    kept = np.mean((miss <= float(bound_error(errors[dataset.n_training :, None])))[finite])
    assert kept < 0.8 and metrics["coverage"] > 0.88
    # Of those that are certified as many hit as is said, and they are not few.
    certified = bound <= task.tolerance
    assert np.mean(certified) > 0.1 and np.mean(miss[certified] <= task.tolerance) > 0.9
    # Drawn, and then simulated again; the answers of the others are what they are without.
    ledger = json.loads((routes / "surrogate" / "ledger.json").read_text())
    drawn = Ledger()
    draw_targets(task, 400, make_generator(0, "robotic_arm", "targets of calibration"), ledger=drawn)
    assert (ledger["simulations"], ledger["training_examples"]) == (1000 + drawn.simulations + 400, 1000)
    beside = load_solution(routes / "surrogate" / "solution.npz", task)
    run(configure(tmp_path, *few, task="robotic_arm"), "invert")
    alone = load_solution(routes / "surrogate" / "solution.npz", task)
    for name in ("controls", "believed_miss", "start_status", "steps"):
        assert torch.equal(getattr(alone, name), getattr(beside, name))


@pytest.mark.parametrize(("rounds", "least"), [(0, 0.8), (3, 1.0)])
def test_bounds_are_of_misses_as_they_are_judged(tmp_path: Path, rounds: int, least: float) -> None:
    """In its own steps the naive ball is another one than that which the answers are judged by.

    What a round has shown to hit, here all of them, is looked at again in as many steps, and so known exactly.
    """
    few = "data.targets=200", "data.examples=500", "invert.surrogate.calibration=200"
    # Less than a step of the ball's fall, so that what hits in its own steps may miss in truth.
    close = "task.bouncing_ball.tolerance=0.001", f"invert.surrogate.rounds={rounds}"
    folder = run(configure(tmp_path, *few, *close, task="bouncing_ball"), "generate", "train", "invert", "evaluate")
    metrics = json.loads((folder / "evaluate" / "metrics.json").read_text())["surrogate"]
    assert metrics["coverage"] >= least


def test_with_rounds_all_are_in_the_same_rounds_within_the_budget(tmp_path: Path) -> None:
    further = "invert.surrogate.calibration=60", "invert.surrogate.rounds=3"
    run(configure(tmp_path), "generate", "train")
    folder = run(configure(tmp_path, *further, "budget.simulations=450"), "invert") / "routes" / "surrogate"
    with (folder / "revision" / "rounds.csv").open() as file:
        rounds = [{name: int(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rounds[0]["open_targets"] == rounds[0]["simulations"] == 40
    ledger = json.loads((folder / "ledger.json").read_text())
    left = 450 - 200 - 2 * 60
    assert left == ledger["training_examples"] - 200 > sum(row["simulations"] for row in rounds)
    # What a round has shown to hit need not be simulated again, and is certified.
    assert 450 - left <= ledger["simulations"] <= 450
    known = rounds[-1]["solved_targets"]
    with np.load(folder / "revision" / "bounds.npz") as file:
        bounds = file["miss_bound"]
    assert (bounds == 0.01).sum() == known > 0


def test_what_the_budget_has_no_room_for_is_refused(tmp_path: Path) -> None:
    settings = configure(tmp_path, "budget.simulations=300", "invert.surrogate.calibration=60")
    with pytest.raises(UserError, match=r"^budget\.simulations: 120 for invert\.surrogate\.calibration do not fit"):
        check_limits(settings, settings.tasks)
