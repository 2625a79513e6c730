"""Trainings of several processes: the same numbers up to rounding, and no process left behind."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import torch
from conftest import Repository
from plans import plan, plan_hybrid, plan_training
from problems import seeded
from test_training import SURROUNDINGS
from torch import Tensor

from aimback.core.errors import UserError
from aimback.core.ledger import Ledger
from aimback.data.dataset import simulate_dataset
from aimback.data.targets import draw_targets
from aimback.learn import callbacks, checkpoint
from aimback.learn.learner import TrainingDiverged
from aimback.learn.proposer_training import train_proposer
from aimback.learn.surrogate_training import train_surrogates
from aimback.settings.learning import check_together
from aimback.settings.limits import check_limits
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.workflow.defaults import read_defaults

TASK = CannonVacuum()
DATASETS = [simulate_dataset(TASK, 120, 0.25, torch.Generator().manual_seed(seed)) for seed in range(2)]
# 90 training examples in batches of 89: each epoch ends with a batch of which all ranks but the first get nothing.
SHORT = {"hidden_width": 8, "hidden_layers": 2, "batch_size": 89, "max_epochs": 6, "dtype": "float64"}
BY_BATCHES_OF_7 = {"batch_size": 7, "max_epochs": 3}
# What goes by the loss: the rate has fallen before it stops, after 7 epochs of one network and 6 of the other.
BY_THE_LOSS = {"schedule": "plateau", "plateau_patience": 0, "learning_rate": 0.1, "patience": 3, "max_epochs": 40}


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    yield
    assert find_ranks() == []
    assert not torch.distributed.is_initialized()


def find_ranks(above: int | None = None) -> list[psutil.Process]:
    """The other processes of a training that a process has called for."""
    children = psutil.Process(above).children() if above is None or psutil.pid_exists(above) else []
    return [child for child in children if "take_part" in " ".join(child.cmdline())]


def train(work_dir: Path, devices=2, live=None, **changes):
    settings = plan(**{**SHORT, **changes}, devices=devices)
    return train_surrogates(DATASETS, TASK, *settings, range(len(DATASETS)), "cpu", work_dir, live)


def flatten_weights(network: torch.nn.Module) -> Tensor:
    return torch.cat([weight.flatten() for weight in network.parameters()])


def assert_close(alone, together, tolerance: float) -> None:
    for (network, history), (other, told) in zip(alone, together, strict=True):
        torch.testing.assert_close(flatten_weights(network), flatten_weights(other), rtol=tolerance, atol=tolerance)
        assert torch.tensor(history).allclose(torch.tensor(told), rtol=tolerance, atol=tolerance)


def assert_equal(one, two) -> None:
    for (network, history), (other, told) in zip(one, two, strict=True):
        assert history == told
        assert torch.equal(flatten_weights(network), flatten_weights(other))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "how", [{}, *(pytest.param(how, marks=pytest.mark.slow) for how in (BY_BATCHES_OF_7, BY_THE_LOSS))]
)
def test_two_processes_learn_what_one_learns(tmp_path: Path, how, undisturbed):
    seen: list[int] = []
    together = train(tmp_path / "two", **how, live=lambda step, values: seen.append(step)) if how else undisturbed
    alone = train(tmp_path / "one", devices=1, **how)
    assert_close(alone, together, 1e-9)
    assert not how or seen == [row.step for row in alone[0][1]]
    # What is told and what is kept belong together, as they do for one.
    assert len({min(row.validation_loss for row in history) for _, history in together}) == 2


def test_a_rank_that_is_killed_is_told_of_and_the_training_resumes_to_the_same_bits(tmp_path: Path, undisturbed):
    def kill_the_other(step, values):
        if values["epoch"] == 4:
            (other,) = find_ranks()
            other.kill()

    with pytest.raises(UserError, match=r"^training.devices: of 2 processes number 2 killed by SIGKILL; run"):
        train(tmp_path, live=kill_the_other)
    seen: list[float] = []
    assert_equal(train(tmp_path, live=lambda step, values: seen.append(values["epoch"])), undisturbed)
    assert seen[0] > 3


@pytest.mark.slow
def test_settings_alone_decide_and_no_scheduler(tmp_path: Path, monkeypatch, undisturbed):
    for variables in ("SLURM", "torchrun", "LSF", "ranks"):
        for name, value in SURROUNDINGS[variables].items():
            monkeypatch.setenv(name, value)
    assert_equal(train(tmp_path), undisturbed)


def test_somebody_elses_group_is_left_alone(tmp_path: Path):
    torch.distributed.init_process_group("gloo", init_method=(tmp_path / "x").as_uri(), rank=0, world_size=1)
    try:
        with pytest.raises(UserError, match=r"^training.devices: must be 1 in a process that torch.distributed has"):
            train(tmp_path)
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_three_processes_resume_to_the_same_bits(tmp_path: Path):
    """With more than two the order of their sum matters."""

    def fail(step, values):
        if values["epoch"] == 4:
            raise ZeroDivisionError

    whole = train(tmp_path / "whole", 3, dtype="float32")
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "failed", 3, fail, dtype="float32")
    assert_equal(train(tmp_path / "failed", 3, dtype="float32"), whole)


CHILD = """
    import signal
    import sys
    import time
    from pathlib import Path

    import test_ddp as tests
    from aimback.learn import callbacks, ranks

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    callbacks.SECONDS_BETWEEN_CHECKPOINTS = 0.0
    ranks._SECONDS_WITHOUT = 0.5
    tests.torch.set_num_threads(1)

    def live(step, values):
        print(values["epoch"], flush=True)
        time.sleep(0.02)
        if len(sys.argv) > 2 and values["epoch"] == 4:
            (other,) = tests.find_ranks()
            other.kill()
            time.sleep(1000)

    try:
        tests.train(Path(sys.argv[1]), live=live, max_epochs=tests.MANY)
    except KeyboardInterrupt:
        sys.exit(130)
"""
MANY = 60


@pytest.fixture(scope="module")
def undisturbed_for_long(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), max_epochs=MANY)


def start_child(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_to_the_first_ends_all_and_the_training_resumes(tmp_path: Path, blow, code, undisturbed_for_long):
    child = start_child(str(tmp_path))
    assert child.stdout is not None
    while int(child.stdout.readline()) < 10:
        pass
    (other,) = find_ranks(child.pid)
    child.send_signal(blow)
    _, complaints = child.communicate(timeout=60)
    assert (child.returncode, complaints) == (code, "")
    other.wait(timeout=10)
    seen: list[float] = []
    resumed = train(tmp_path, live=lambda step, values: seen.append(values["epoch"]), max_epochs=MANY)
    assert seen[0] >= 10
    assert_equal(resumed, undisturbed_for_long)


@pytest.mark.slow
def test_the_first_ends_too_where_it_does_not_notice_that_another_is_dead(tmp_path: Path):
    child = start_child(str(tmp_path), "and kill the other")
    child.communicate(timeout=60)
    assert child.returncode == 143


@pytest.mark.slow
def test_what_fails_on_one_rank_alone_is_told_or_gone_on_from(tmp_path: Path, monkeypatch, caplog, undisturbed):
    def refuse(path, state):
        raise UserError(f"{path}: no space left on the disk")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_state", refuse)
        assert_equal(train(tmp_path), undisturbed)
    assert "no space left" in caplog.text
    with pytest.raises(TrainingDiverged, match=r"^training diverged at step \d+ .* lower training.learning_rate"):
        train(tmp_path, activation="relu", optimizer="sgd", learning_rate=1e6, schedule="constant")


# ---- the hybrid's training


def train_hybrid(work_dir: Path, devices: int, ledger: Ledger, live=None, task=TASK):
    size = {"targets": 77, "validation_targets": 31, "batch_size": 19, "batches_a_simulation": 2, "max_epochs": 5}
    settings = plan_hybrid(dtype="float64", hidden_width=8, devices=devices, **size)
    targets = draw_targets(TASK, 108, seeded(1), ledger=ledger)
    proposer, history, lost = train_proposer(task, targets, settings, ledger, 0, "cpu", torch.float64, work_dir, live)
    return [(proposer, history)], lost


@pytest.mark.slow
def test_a_proposer_learns_the_same_and_its_ledger_holds_what_all_have_spent(tmp_path: Path):
    ledgers = [Ledger() for _ in range(4)]
    alone, lost = train_hybrid(tmp_path / "one", 1, ledgers[0])
    whole, lost_by_two = train_hybrid(tmp_path / "two", 2, ledgers[1])
    assert_close(alone, whole, 1e-9)

    def fail(step, values):
        if values["epoch"] == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_hybrid(tmp_path / "failed", 2, ledgers[2], fail)
    resumed, _ = train_hybrid(tmp_path / "failed", 2, ledgers[3])
    assert_equal(resumed, whole)
    assert ledgers[0] == ledgers[1] == ledgers[3]
    assert lost == lost_by_two


def test_a_simulator_that_cannot_be_handed_on_is_told_of(tmp_path: Path):
    class Local(CannonVacuum):
        pass

    with pytest.raises(UserError, match=r"^hybrid.devices: .*Local.*; choose hybrid.devices=1$"):
        train_hybrid(tmp_path, 2, Ledger(), task=Local())


# ---- settings


def test_what_cannot_go_together_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="devices: must be 1 with training.optimizer: levenberg_marquardt, got 2"):
        plan_training(optimizer="levenberg_marquardt", schedule="constant", devices=2)
    with pytest.raises(UserError, match=r"^training.devices: must be 1 with surrogate.normalisation: batch, got 2"):
        check_together(*plan(normalisation="batch", devices=2))
    settings = read_defaults("hybrid.devices=2", "hardware.compile=on")
    with pytest.raises(UserError, match=r"^hybrid.devices: must be 1 with hardware.compile=on, .*; got 2"):
        check_limits(settings, settings.tasks)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for section in ("training", "hybrid"):
        settings = read_defaults(f"{section}.devices=2", "hardware=gpu")
        with pytest.raises(UserError, match=rf"^{section}.devices: 2 GPUs are asked for, PyTorch finds 1; lower it"):
            check_limits(settings, settings.tasks)


@pytest.mark.slow
def test_dvc_trains_with_two_processes_below_a_stage_that_is_a_fork(tmp_path: Path):
    repository = Repository(tmp_path / "copy", git=False)
    for file in ("training", "hybrid"):
        repository.set(f"conf/{file}/default.yaml", "devices", 2)
        repository.set(f"conf/{file}/default.yaml", "max_epochs", 3)
    repository.set("conf/data/default.yaml", "examples", 500)
    turns = ("train@cannon_vacuum-surrogate", "amortise@cannon_vacuum-hybrid")
    with repository.preloaded():
        done = repository.run("dvc", "repro", *turns).ok()
        assert set(turns) <= set(done.stages())
        repository.set("conf/hybrid/default.yaml", "devices", 1)
        done = repository.run("dvc", "repro", *turns).ok()
    assert [turn for turn in turns if turn in done.stages()] == [turns[1]]
