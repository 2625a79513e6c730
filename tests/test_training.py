import contextlib
import hashlib
import inspect
import logging
import os
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from plans import plan, plan_network, plan_training
from pydantic import ValidationError
from safetensors.torch import save

from aimback.core.errors import UserError
from aimback.core.randomness import derive_seed
from aimback.data.dataset import Dataset, save_dataset, simulate_dataset
from aimback.learn import callbacks, checkpoint
from aimback.learn import surrogate_training as training
from aimback.learn.callbacks import Epoch
from aimback.learn.learner import TrainingDiverged, schedule_rate
from aimback.learn.surrogate import Surrogate
from aimback.learn.surrogate_training import train_surrogate, train_surrogates, validation_mse
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum

TASK = CannonVacuum()
DATASET = simulate_dataset(TASK, 120, 0.25, torch.Generator().manual_seed(0))
# 90 training examples in batches of 32: three steps an epoch, the last one smaller.
SHORT = {"hidden_width": 8, "hidden_layers": 1, "batch_size": 32, "max_epochs": 6}
PLAIN: dict[str, Any] = {}
# As Ren, Padilla and Malof train: whatever has a state of its own is in here.
NORMALISED = {
    **{"hidden_layers": 2, "activation": "relu", "normalisation": "batch"},
    **{"schedule": "plateau", "plateau_patience": 0},
}
BY_LEVENBERG_MARQUARDT = {"activation": "tanh", "optimizer": "levenberg_marquardt", "schedule": "constant"}
SECOND_ORDER = {
    **BY_LEVENBERG_MARQUARDT,
    **{"hidden_width": 4, "hidden_layers": 2, "learning_rate": 10.0, "weight_decay": 1e-6},
}


class KilledError(Exception):
    pass


@pytest.fixture(autouse=True)
def a_checkpoint_every_epoch(monkeypatch):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)


def train(work_dir: Path, seed=0, dataset=DATASET, task=TASK, live=None, begin=None, **changes):
    return train_surrogate(dataset, task, *plan(**{**SHORT, **changes}), seed, "cpu", work_dir, live, begin)


def killed_at(epoch: int):
    def live(step, values):
        if values["epoch"] == epoch:
            raise KilledError

    return live


def assert_equal(one: tuple[Surrogate, list[Epoch]], two: tuple[Surrogate, list[Epoch]]) -> None:
    assert one[1] == two[1]
    for name, tensor in one[0].state_dict().items():
        assert torch.equal(tensor, two[0].state_dict()[name]), name


def test_it_learns(tmp_path: Path):
    task = CannonDrag()
    dataset = simulate_dataset(task, 2000, 0.2, torch.Generator().manual_seed(0))
    size = {"hidden_width": 24, "hidden_layers": 2, "batch_size": 256, "max_epochs": 60}
    surrogate, history = train(tmp_path, 0, dataset, task, **size)
    generator = torch.Generator().manual_seed(9)
    controls = task.box.sample(500, generator)
    conditions = task.conditions.sample(500, generator)
    error = surrogate.double()(controls, conditions) - task(controls, conditions)
    span = task.outcomes.upper - task.outcomes.lower
    assert (error.square().mean().sqrt() / span).item() < 0.01
    assert history[-1].validation_loss < history[0].validation_loss / 100


def test_history_has_one_row_an_epoch_and_live_sees_each(tmp_path: Path):
    seen = []
    _, history = train(tmp_path, live=lambda step, values: seen.append((step, values)))
    assert [row.epoch for row in history] == [1, 2, 3, 4, 5, 6]
    assert [row.step for row in history] == [3, 6, 9, 12, 15, 18]
    assert [Epoch(step=step, **values) for step, values in seen] == history
    wanted = [0.03 * schedule_rate("one_cycle", (row.step - 1) / 18) for row in history]
    assert [row.learning_rate for row in history] == pytest.approx(wanted)


def test_the_losses_are_those_of_the_returned_network(tmp_path: Path):
    surrogate, history = train(tmp_path, max_epochs=40)
    best = min(history, key=lambda row: row.validation_loss)
    outcome = surrogate.standardise_outcomes(surrogate(DATASET.controls.float(), DATASET.conditions.float()))
    wanted = surrogate.standardise_outcomes(DATASET.outcomes)
    loss = (outcome - wanted)[DATASET.n_training :].square().mean().item()
    assert loss == pytest.approx(best.validation_loss, rel=1e-4)


def test_the_seed_decides_the_bits(tmp_path: Path):
    state = torch.random.get_rng_state()
    one = train(tmp_path / "one")
    torch.manual_seed(5)
    two = train(tmp_path / "two")
    torch.random.set_rng_state(state)
    assert_equal(one, two)
    assert train(tmp_path, seed=1)[1] != one[1]


def test_it_begins_with_what_a_network_has_learned(tmp_path: Path):
    """A learning rate of almost nothing leaves the network that it was; and another one's checkpoint is no other's."""
    other = simulate_dataset(TASK, 120, 0.25, torch.Generator().manual_seed(5))
    still = {"learning_rate": 1e-12, "schedule": "constant"}
    for begin in (train(tmp_path, seed)[0] for seed in (0, 1)):
        network, _ = train(tmp_path, 0, other, begin=begin.double(), **still)
        kept, found = (one.double()(other.controls, other.conditions) for one in (begin, network))
        torch.testing.assert_close(found, kept, rtol=1e-5, atol=1e-5)
        assert torch.equal(network.outcome_mean, begin.outcome_mean)  # the scale that its weights are made for


# What schedulers tell a process of a job of four, and what Lightning would take for an argument.
SURROUNDINGS = {
    "SLURM": {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2", "SLURM_NODEID": "0", "SLURM_JOB_ID": "7"},
    "SLURM, one task a node": {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2"},
    "torchrun": {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "2", "GROUP_RANK": "0"},
    "LSF": {"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "x", "JSM_NAMESPACE_LOCAL_RANK": "2", "JSM_NAMESPACE_SIZE": "4"},
    "ranks": {"LOCAL_RANK": "2", "NODE_RANK": "1", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "x"},
    "one step": {"PL_TRAINER_MAX_STEPS": "1"},
    **{
        f"every argument is {value}": {
            f"PL_TRAINER_{name.upper()}": value for name in inspect.signature(pl.Trainer).parameters
        }
        for value in ("1", "0.5", "nonsense")
    },
}


@pytest.mark.parametrize("variables", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_settings_alone_decide_and_no_scheduler(tmp_path: Path, variables, monkeypatch):
    plain = train(tmp_path / "plain", max_epochs=2)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"what Lightning takes up in a SLURM job")
    assert_equal(plain, train(tmp_path / "other", max_epochs=2))


@pytest.mark.parametrize("epoch", [1, 2, 5, 6])
@pytest.mark.parametrize("how", [PLAIN, {"optimizer": "sgd"}, NORMALISED, SECOND_ORDER])
def test_killed_after_an_epoch_it_resumes_to_the_same_bits(tmp_path: Path, epoch, how):
    whole = train(tmp_path / "whole", **how)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", live=killed_at(epoch), **how)
    resumed_from = len(list((tmp_path / "killed").glob("*/*.ckpt")))
    assert resumed_from == min(epoch - 1, 2)
    assert_equal(train(tmp_path / "killed", **how), whole)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 11, 18])
@pytest.mark.parametrize("how", [PLAIN, NORMALISED])
def test_killed_at_a_step_it_resumes_to_the_same_bits(tmp_path: Path, step, how, monkeypatch):
    whole = train(tmp_path / "whole", **how)
    real, calls = training.F.mse_loss, []

    def deadly(*args, **options):
        if options["reduction"] == "mean":
            calls.append(1)
            if len(calls) == step:
                raise KilledError
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(training.F, "mse_loss", deadly)
        with pytest.raises(KilledError):
            train(tmp_path / "killed", **how)
    seen = []
    resumed = train(tmp_path / "killed", live=lambda step, values: seen.append(values["epoch"]), **how)
    assert_equal(resumed, whole)
    # It did go on and not start anew, except where no epoch had ended.
    assert seen[0] == (step - 1) // 3 + 1


# 20 examples to learn from and as many weights: the validation loss soon rises.
OVERFITTING = {
    **{**BY_LEVENBERG_MARQUARDT, "hidden_width": 5, "hidden_layers": 2, "learning_rate": 10.0},
    "dataset": simulate_dataset(TASK, 40, 0.5, torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("how", [{"learning_rate": 0.02, "schedule": "constant"}, OVERFITTING], ids=["adam", "lm"])
def test_killed_twice_and_with_an_early_stop(tmp_path: Path, how):
    how = {**how, "max_epochs": 200, "patience": 2}
    whole = train(tmp_path / "whole", **how)
    last = len(whole[1])
    assert 4 < last < 200
    for epoch in (2, last - 1, last):
        with pytest.raises(KilledError):
            train(tmp_path / "killed", live=killed_at(epoch), **how)
    assert_equal(train(tmp_path / "killed", **how), whole)
    best = min(whole[1], key=lambda row: row.validation_loss)
    assert best.epoch == last - 2


def test_batch_norm_and_plateau_resume_to_the_same_bits_while_the_rate_falls(tmp_path: Path):
    how = {**NORMALISED, "learning_rate": 0.1, "plateau_patience": 1, "max_epochs": 40}
    whole = train(tmp_path / "whole", **how)
    rates = [row.learning_rate for row in whole[1]]
    falls = [epoch for epoch, (rate, later) in enumerate(pairwise(rates), 1) if later < rate]
    assert len(falls) > 2
    # Before and after a fall, and where epochs without a better loss have been counted.
    for epoch in (falls[0], falls[0] + 1, falls[1] - 1, falls[2] + 2):
        with pytest.raises(KilledError):
            train(tmp_path / "killed", live=killed_at(epoch), **how)
    assert_equal(train(tmp_path / "killed", **how), whole)


def test_levenberg_marquardt_takes_one_step_an_epoch_and_each_lowers_the_loss(tmp_path: Path):
    _, history = train(tmp_path, max_epochs=30, **SECOND_ORDER)
    assert [(row.epoch, row.step) for row in history] == [(epoch, epoch) for epoch in range(1, 31)]
    losses = [row.train_loss for row in history]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 100
    # The damping's reciprocal: it starts where it is told to, or below, and goes its own way.
    assert history[0].learning_rate <= SECOND_ORDER["learning_rate"]
    assert len({row.learning_rate for row in history}) > 10


def test_levenberg_marquardt_fits_a_smooth_simulator_in_few_epochs(tmp_path: Path):
    how = {**BY_LEVENBERG_MARQUARDT, "hidden_width": 12, "hidden_layers": 2, "learning_rate": 100.0}
    dataset = simulate_dataset(TASK, 1500, 0.2, torch.Generator().manual_seed(0))
    surrogate, _ = train(tmp_path, dataset=dataset, max_epochs=80, **how)
    span = TASK.outcomes.upper - TASK.outcomes.lower
    assert validation_mse(surrogate, dataset) ** 0.5 / span.item() < 3e-4


def test_levenberg_marquardt_ends_the_training_where_no_step_helps(tmp_path: Path):
    # A linear map of 3 weights: the first step without damping is the last that can help.
    how = {**BY_LEVENBERG_MARQUARDT, "hidden_width": 1, "hidden_layers": 0, "learning_rate": 1e12}
    surrogate, history = train(tmp_path, max_epochs=50, dtype="float64", **how)
    assert 2 <= len(history) < 10
    inputs = surrogate.standardise_inputs(DATASET.controls, DATASET.conditions)[: DATASET.n_training]
    wanted = surrogate.standardise_outcomes(DATASET.outcomes)[: DATASET.n_training]
    design = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
    solution = torch.linalg.lstsq(design, wanted).solution[:, 0]
    (layer,) = surrogate.layers
    torch.testing.assert_close(torch.cat([layer.weight[0], layer.bias]), solution, rtol=1e-6, atol=1e-9)


def test_levenberg_marquardt_refuses_too_many_weights(tmp_path: Path):
    with pytest.raises(UserError, match=r"allows 5,000 of them, got 10,501; lower surrogate.hidden_width"):
        train(tmp_path, hidden_width=100, hidden_layers=2, **BY_LEVENBERG_MARQUARDT)


def test_levenberg_marquardt_refuses_batch_normalisation(tmp_path: Path):
    with pytest.raises(UserError, match=r"^surrogate\.normalisation: must be none with training\.optimizer: levenberg"):
        train(tmp_path, normalisation="batch", **BY_LEVENBERG_MARQUARDT)


@pytest.mark.parametrize("ends", ["finished", "killed"])
def test_the_precision_of_matrix_products_is_that_asked_for_and_put_back(tmp_path: Path, ends):
    seen = []

    def live(step, values):
        seen.append(torch.get_float32_matmul_precision())
        if ends == "killed":
            raise KilledError

    before = torch.get_float32_matmul_precision()
    with pytest.raises(KilledError) if ends == "killed" else contextlib.nullcontext():
        train(tmp_path, max_epochs=2, matmul_precision="medium", live=live)
    assert set(seen) == {"medium"}
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_plateau_lowers_the_rate_after_patience_epochs_without_a_better_training_loss(tmp_path: Path):
    how = {"learning_rate": 0.3, "schedule": "plateau", "plateau_factor": 0.25, "plateau_patience": 2}
    _, history = train(tmp_path, max_epochs=60, **how)
    rate, best, worse = 0.3, float("inf"), 0
    for row in history:
        assert row.learning_rate == pytest.approx(rate, rel=1e-12)
        if row.train_loss < best * (1 - 1e-4):
            best, worse = row.train_loss, 0
        else:
            worse += 1
        if worse > 2:
            rate, worse = rate * 0.25, 0
    assert history[-1].learning_rate < 0.3 * 0.25 * 1.01


def test_batch_norm_is_folded_into_a_plain_network_of_the_same_losses(tmp_path: Path):
    how = {**NORMALISED, "hidden_width": 16, "learning_rate": 0.01, "schedule": "constant"}
    surrogate, history = train(tmp_path, max_epochs=40, **how)
    kinds = [type(layer).__name__ for layer in surrogate.layers]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    best = min(history, key=lambda row: row.validation_loss)
    assert best.validation_loss < history[0].validation_loss / 3
    # The epochs' losses are those of batch normalisation in evaluation mode, the network's of the fold.
    mse = validation_mse(surrogate, DATASET)
    assert mse / surrogate.outcome_scale.item() ** 2 == pytest.approx(best.validation_loss, rel=1e-4)
    surrogate.save(tmp_path / "weights.safetensors", TASK)
    back = Surrogate.load(tmp_path / "weights.safetensors", TASK)
    assert validation_mse(back, DATASET) == mse
    assert not any(parameter.requires_grad for parameter in surrogate.parameters())


def test_training_normalises_batches_by_themselves_and_validation_by_the_running_statistics(tmp_path: Path):
    # One epoch of one batch at a rate too small to move a weight: all of it in closed form.
    task_rows = DATASET.n_training
    network = {"hidden_width": 4, "hidden_layers": 1, "activation": "relu", "normalisation": "batch"}
    how = {"optimizer": "sgd", "learning_rate": 1e-12, "schedule": "constant", "batch_size": task_rows, "max_epochs": 1}
    _, (row,) = train(tmp_path, dtype="float64", **network, **how)
    plain = Surrogate.for_dataset(DATASET, TASK, plan_network(**network), torch.Generator().manual_seed(0)).double()
    inputs = plain.standardise_inputs(DATASET.controls, DATASET.conditions)
    wanted = plain.standardise_outcomes(DATASET.outcomes)
    first, _, last = plain.layers
    hidden = inputs @ first.weight.T + first.bias
    mean, variance = hidden[:task_rows].mean(0), hidden[:task_rows].var(0, correction=0)
    # Momentum 0.1 towards the batch's mean and unbiased variance, from 0 and 1.
    running = 0.1 * mean, 0.9 + 0.1 * hidden[:task_rows].var(0)
    for part, statistics, loss in (
        (slice(None, task_rows), (mean, variance), row.train_loss),
        (slice(task_rows, None), running, row.validation_loss),
    ):
        normalised = (hidden[part] - statistics[0]) / (statistics[1] + 1e-5).sqrt()
        outcome = normalised.clamp_min(0) @ last.weight.T + last.bias
        assert loss == pytest.approx((outcome - wanted[part]).square().mean().item(), rel=1e-6)


def test_batch_norm_leaves_out_a_last_batch_of_one_row(tmp_path: Path):
    # 90 training examples: 89 and one left over, a different one each epoch.
    _, history = train(tmp_path, batch_size=89, max_epochs=3, **NORMALISED)
    assert [row.step for row in history] == [1, 2, 3]
    _, history = train(tmp_path, batch_size=89, max_epochs=3)
    assert [row.step for row in history] == [2, 4, 6]
    with pytest.raises(UserError, match=r"surrogate.normalisation: batch needs batches of at least 2 examples, got"):
        train(tmp_path, batch_size=1, **NORMALISED)


def test_validation_mse_is_in_raw_units_over_the_validation_rows(tmp_path: Path):
    surrogate, _ = train(tmp_path)
    error = surrogate(DATASET.controls.float(), DATASET.conditions.float()).double() - DATASET.outcomes
    wanted = sum(value**2 for (value,) in error[-DATASET.n_validation :].tolist()) / DATASET.n_validation
    assert validation_mse(surrogate, DATASET) == pytest.approx(wanted, rel=1e-12)


def test_killed_after_its_end_it_repeats_the_last_epochs_only(tmp_path: Path):
    """Its checkpoints are kept until whoever called for it has written what came out."""
    seen: list[int] = []
    whole = train(tmp_path)
    assert_equal(train(tmp_path, live=lambda step, values: seen.append(step)), whole)
    assert len(seen) < len(whole[1])


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path: Path):
    with pytest.raises(KilledError):
        train(tmp_path, live=killed_at(4))
    assert_equal(train(tmp_path, learning_rate=1e-3), train(tmp_path / "fresh", learning_rate=1e-3))
    changed = Dataset(DATASET.controls, DATASET.conditions, DATASET.outcomes + 1, DATASET.n_validation)
    assert_equal(train(tmp_path, dataset=changed), train(tmp_path / "fresh", dataset=changed))


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path: Path, damage, caplog):
    whole = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", live=killed_at(5))
    newest = max((tmp_path / "killed").glob("*/*.ckpt"))
    sound = newest.read_bytes()
    middle = len(sound) // 2
    flipped = sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :]
    newest.write_bytes({"torn": sound[:middle], "flipped": flipped, "empty": b""}[damage])
    seen = []
    with caplog.at_level(logging.WARNING):
        resumed = train(tmp_path / "killed", live=lambda step, values: seen.append(values["epoch"]))
    assert "damaged" in caplog.text
    assert newest.name in caplog.text
    assert seen[0] == 4
    assert_equal(resumed, whole)


def test_on_a_full_disk_training_goes_on_and_the_old_checkpoint_survives(tmp_path: Path, monkeypatch, caplog):
    whole = train(tmp_path / "whole")
    real, calls = checkpoint.write_state, []

    def full_after_two(path, state):
        calls.append(path)
        if len(calls) > 2:
            raise UserError(f"{path}: no space left on the disk")
        real(path, state)

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(checkpoint, "write_state", full_after_two)
        with pytest.raises(KilledError):
            train(tmp_path / "full", live=killed_at(6))
    assert "no space left" in caplog.text
    assert len(calls) == 5
    left = sorted(file.name for file in (tmp_path / "full").glob("*/*"))
    assert left == ["epoch-00000001.ckpt", "epoch-00000002.ckpt"]
    assert_equal(train(tmp_path / "full"), whole)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_at_that_step(tmp_path: Path, monkeypatch, value):
    real, calls = training.F.mse_loss, []

    def poisoned(*args, **options):
        calls.append(options["reduction"] == "mean")
        loss = real(*args, **options)
        return loss * value if sum(calls) == 8 else loss

    monkeypatch.setattr(training.F, "mse_loss", poisoned)
    with pytest.raises(TrainingDiverged, match=r"at step 8 \(epoch 3\).*last good checkpoint is kept in") as caught:
        train(tmp_path)
    assert isinstance(caught.value, UserError)
    kept = Path(str(caught.value).rsplit(" ", 1)[1])
    weights = checkpoint.read_state(kept)["state_dict"]
    assert kept.name == "epoch-00000002.ckpt"
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_a_training_that_explodes_is_no_success(tmp_path: Path):
    with pytest.raises(TrainingDiverged, match=r"lower training\.learning_rate"):
        train(tmp_path, activation="relu", optimizer="sgd", learning_rate=1e6, schedule="constant")


CHILD = """
    import signal
    import sys
    from pathlib import Path
    import torch
    from aimback.data.dataset import load_dataset
    from aimback.learn import callbacks
    from aimback.learn import surrogate_training as training
    from plans import plan
    from aimback.tasks.cannon_vacuum import CannonVacuum

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    callbacks.SECONDS_BETWEEN_CHECKPOINTS = 0.0
    task = CannonVacuum()
    settings = plan(hidden_width=8, hidden_layers=1, batch_size=32, max_epochs=int(sys.argv[2]))
    def live(step, values):
        print(values["epoch"], flush=True)
    dataset = load_dataset(folder / "dataset.npz", task)
    try:
        surrogate, _ = training.train_surrogate(dataset, task, *settings, 0, "cpu", folder / "work", live)
    except KeyboardInterrupt:
        sys.exit(130)
    surrogate.save(folder / "weights.safetensors", task)
"""


def start_child(folder: Path, epochs: int) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    save_dataset(folder / "dataset.npz", DATASET, TASK)
    code = textwrap.dedent(CHILD)
    places = Path(training.__file__).parents[2], Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(epochs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
    )


EPOCHS = 40


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    child = start_child(folder, EPOCHS)
    printed, complaints = child.communicate(timeout=120)
    # Quiet where nobody watches: no bar, no greeting, no hint, no warning.
    assert (child.returncode, complaints) == (0, "")
    assert printed.split() == [str(epoch) for epoch in range(1, EPOCHS + 1)]
    return (folder / "weights.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_is_no_success_and_the_training_resumes(tmp_path: Path, blow, code, undisturbed):
    child = start_child(tmp_path, EPOCHS)
    assert child.stdout is not None
    while int(child.stdout.readline()) < EPOCHS // 4:
        pass
    child.send_signal(blow)
    child.communicate(timeout=60)
    assert child.returncode == code
    assert not (tmp_path / "weights.safetensors").exists()
    child = start_child(tmp_path, EPOCHS)
    printed, complaints = child.communicate(timeout=120)
    assert (child.returncode, complaints) == (0, "")
    assert int(printed.split()[0]) >= EPOCHS // 4
    assert (tmp_path / "weights.safetensors").read_bytes() == undisturbed


def test_a_state_comes_back_as_it_went(tmp_path: Path):
    state = {
        "tensors": {0: torch.arange(3), 1: torch.tensor(0.5, dtype=torch.float64)},
        "nested": [(1, 2.5), {"a": None, ("b", 2): True}, "text", []],
        "rare": [float("inf"), 0.1 + 0.2, -0.0, 2**60],
    }
    state["tensors"]["same"] = state["tensors"][0]
    path = tmp_path / "state.ckpt"
    checkpoint.write_state(path, state)
    back = checkpoint.read_state(path)
    assert back["nested"] == state["nested"]
    assert back["rare"] == state["rare"]
    assert list(back["tensors"]) == [0, 1, "same"]
    assert all(torch.equal(back["tensors"][key], tensor) for key, tensor in state["tensors"].items())
    with pytest.raises(TypeError, match="cannot hold a object"):
        checkpoint.write_state(path, {"x": object()})


def weights_of(state, best: bool):
    return state["callbacks"]["BestAndHistory"]["weights"] if best else state["state_dict"]


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight * torch.nan,
        lambda weight: weight.double(),
        lambda weight: weight.to(torch.complex64),
        lambda weight: weight[None],
        lambda weight: weight[:1],
        lambda weight: None,
        lambda weight: "text",
    ],
)
def test_a_checkpoint_of_other_weights_is_skipped_for_the_one_before(tmp_path: Path, change, best, caplog):
    whole = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", live=killed_at(5))
    newest = max((tmp_path / "killed").rglob("*.ckpt"))
    state = checkpoint.read_state(newest)
    weights = weights_of(state, best)
    name = next(name for name in weights if name.endswith("layers.0.weight"))
    weights[name] = change(weights[name])
    checkpoint.write_state(newest, state)
    assert_equal(train(tmp_path / "killed"), whole)
    assert "taking up an earlier one" in caplog.text


@pytest.mark.parametrize("gone", ["optimizer_states", "loops", "callbacks"])
def test_a_state_that_cannot_be_taken_up_is_one_line(tmp_path: Path, gone):
    with pytest.raises(KilledError):
        train(tmp_path, live=killed_at(5))
    for file in tmp_path.rglob("*.ckpt"):
        state = checkpoint.read_state(file)
        state[gone] = (
            ["none"] if gone == "optimizer_states" else {**state[gone], "fit_loop": None, "EpochCheckpoints": 3}
        )
        checkpoint.write_state(file, state)
    with pytest.raises(UserError, match=r"epoch-0000000\d.ckpt: this training cannot go on from there .*; remove it"):
        train(tmp_path)


@pytest.mark.parametrize("tree", ["[", "5", '["tensor", "7"]', '["dict", ["tensor"]]', "[" * 100_000])
def test_a_file_with_the_right_checksum_that_is_no_state(tmp_path: Path, tree):
    payload, path = save({}, metadata={"tree": tree}), tmp_path / "epoch-00000001.ckpt"
    path.write_bytes(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    with pytest.raises(UserError, match="not a checkpoint that this version can read"):
        checkpoint.read_state(path)


@pytest.mark.parametrize("name", ["constant", "cosine", "one_cycle"])
def test_schedules(name):
    shares = [schedule_rate(name, step / 100) for step in range(101)]
    assert max(shares) == pytest.approx(1.0)
    assert min(shares) >= 0
    assert shares[-1] == pytest.approx(1.0 if name == "constant" else 0.0)
    peak = shares.index(max(shares))
    assert peak == (30 if name == "one_cycle" else 0)
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("max_epochs", -1),
        ("max_epochs", 1.5),
        ("patience", -1),
        ("dtype", "float16"),
        ("matmul_precision", "low"),
        ("optimizer", "lbfgs"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", "abc"),
        ("beta2", 1.0),
        ("weight_decay", -1.0),
        ("schedule", "linear"),
        ("plateau_factor", 1.0),
        ("plateau_factor", 0.0),
        ("plateau_patience", -1),
        ("hidden_width", 32),
    ],
)
def test_training_settings_refuse_what_is_not_allowed(key, value):
    with pytest.raises(ValidationError) as caught:
        plan_training(**{key: value})
    assert [error["loc"] for error in caught.value.errors()] == [(key,)]


def test_levenberg_marquardt_refuses_a_schedule():
    with pytest.raises(ValueError, match="schedule: must be constant with training.optimizer: levenberg_marquardt"):
        plan_training(optimizer="levenberg_marquardt", schedule="one_cycle")


MEMBERS = [simulate_dataset(TASK, 120, 0.25, torch.Generator().manual_seed(seed)) for seed in range(3)]
SHORTER = simulate_dataset(TASK, 70, 0.25, torch.Generator().manual_seed(3))


def train_all(work_dir: Path, datasets=MEMBERS, live=None, **changes):
    settings = plan(**{**SHORT, **changes})
    return train_surrogates(datasets, TASK, *settings, range(len(datasets)), "cpu", work_dir, live)


@pytest.mark.parametrize(
    "how", [PLAIN, NORMALISED, {**NORMALISED, "schedule": "cosine"}, SECOND_ORDER, {"patience": 1, "max_epochs": 60}]
)
@pytest.mark.parametrize("datasets", [MEMBERS, [*MEMBERS[:2], SHORTER]], ids=["in step", "not in step"])
def test_what_else_is_trained_makes_no_difference_to_a_network(tmp_path: Path, how, datasets):
    seen = []
    together = train_all(tmp_path / "together", datasets, live=lambda step, values: seen.append((step, values)), **how)
    for seed, (dataset, one) in enumerate(zip(datasets, together, strict=True)):
        assert_equal(one, train(tmp_path / "alone", seed, dataset, **how))
    assert [Epoch(step=step, **values) for step, values in seen] == together[0][1]
    assert len({history[-1].validation_loss for _, history in together}) == len(datasets)


def test_networks_that_walk_in_step_are_trained_in_one_go(tmp_path: Path):
    train_all(tmp_path / "in step")
    train_all(tmp_path / "not in step", [*MEMBERS[:2], SHORTER])
    assert [len(list((tmp_path / name).iterdir())) for name in ("in step", "not in step")] == [1, 3]


def test_the_mean_of_an_ensemble_is_seen_live_where_its_members_are_trained_side_by_side(tmp_path: Path):
    seen = []
    how = {"members": 2, "live": lambda step, values: seen.append((step, values))}
    (_, history), _ = train_all(tmp_path / "side by side", MEMBERS[:2], **how)
    assert [Epoch(step=step, **values) for step, values in seen] == history
    train_all(tmp_path / "one after the other", MEMBERS[:2], patience=1, **how)
    assert len(seen) == len(history)


@pytest.mark.parametrize("epoch", [1, 4])
@pytest.mark.parametrize("how", [PLAIN, NORMALISED])
def test_networks_killed_side_by_side_resume_to_the_same_bits(tmp_path: Path, epoch, how):
    whole = train_all(tmp_path / "whole", **how)
    with pytest.raises(KilledError):
        train_all(tmp_path / "killed", live=killed_at(epoch), **how)
    seen = []
    resumed = train_all(tmp_path / "killed", live=lambda step, values: seen.append(values["epoch"]), **how)
    assert seen[0] == epoch
    for one, two in zip(whole, resumed, strict=True):
        assert_equal(one, two)


@pytest.mark.parametrize("how", [PLAIN, NORMALISED, SECOND_ORDER, {"patience": 1, "max_epochs": 60}])
def test_each_member_of_an_ensemble_is_a_training_of_its_own(tmp_path: Path, monkeypatch, how):
    """It has the bits of a single network; a resume, and a training that goes on, give those of the whole."""
    whole = train(tmp_path / "whole", members=3, **how)
    go_on = callbacks.BestAndHistory.on_train_epoch_end

    def die(self, trainer, learner):
        if trainer.current_epoch == 3:
            raise KilledError
        go_on(self, trainer, learner)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(callbacks.BestAndHistory, "on_train_epoch_end", die)
        train(tmp_path / "killed", members=3, **how)
    assert_equal(whole, train(tmp_path / "killed", members=3, **how))
    seeds = [0, *(derive_seed(0, f"member {number}", "training") for number in (1, 2))]
    singles = [train(tmp_path / "single", seed, **how) for seed in seeds]
    first, *_ = members = whole[0].split()
    for member, (single, _) in zip(members, singles, strict=True):
        assert_equal((member, []), (single, []))
    assert len({float(one.layers[0].weight.sum()) for one in members}) == 3
    longest = max((history for _, history in singles), key=len)
    assert [row[:2] for row in whole[1]] == [row[:2] for row in longest]
    for epoch, row in enumerate(whole[1]):
        rows = [history[min(epoch, len(history) - 1)] for _, history in singles]
        assert row[2:] == pytest.approx(torch.tensor([one[2:] for one in rows], dtype=torch.float64).mean(0).tolist())
    further, _ = train(tmp_path / "further", begin=whole[0], members=3, **how)
    alone, _ = train(tmp_path / "alone", begin=first, **how)
    points = DATASET.controls.to(first.outcome_mean), DATASET.conditions.to(first.outcome_mean)
    assert len(further.members) == 3 and torch.equal(further.split()[0](*points), alone(*points))
