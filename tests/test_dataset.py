import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from aimback.core.errors import UserError, is_out_of_memory
from aimback.data.dataset import Dataset, load_dataset, save_dataset, simulate_dataset
from aimback.data.identity import identify
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum


class Holed(CannonVacuum):
    """A cannon whose simulator fails where the speed is above a bound."""

    sound_below = math.inf

    def __init__(self, sound_below: float) -> None:
        super().__init__()
        self.sound_below = sound_below

    def __call__(self, controls, conditions):
        outcome = super().__call__(controls, conditions)
        return torch.where(controls[..., :1] > self.sound_below, math.nan, outcome)


def drawn(task, examples=50, seed=0, **options) -> Dataset:
    return simulate_dataset(task, examples, 0.2, torch.Generator().manual_seed(seed), **options)


def test_rows_are_what_the_simulator_says():
    task = CannonDrag()
    dataset = drawn(task)
    assert (len(dataset), dataset.n_training, dataset.n_validation, dataset.n_left_out) == (50, 40, 10, 0)
    assert dataset.controls.dtype == dataset.outcomes.dtype == torch.float64
    torch.testing.assert_close(task(dataset.controls, dataset.conditions), dataset.outcomes, rtol=0, atol=0)
    assert task.box.contains(dataset.controls).all()
    assert task.conditions.contains(dataset.conditions).all()


def test_the_seed_decides_and_the_chunk_does_not():
    task = CannonDrag()
    assert torch.equal(drawn(task).outcomes, drawn(task, chunk=7).outcomes)
    assert not torch.equal(drawn(task).outcomes, drawn(task, seed=1).outcomes)


class Crowded(CannonDrag):
    """A cannon on a device that holds only so many rows."""

    room = math.inf  # while the cannon is made

    def __init__(self, room: int, refuse: Callable[[], None]) -> None:
        super().__init__()
        self.room = room
        self.refuse = refuse

    def __call__(self, controls, conditions):
        if len(controls) > self.room:
            self.refuse()
        return super().__call__(controls, conditions)


def by_a_gpu() -> None:
    raise torch.OutOfMemoryError


def by_the_cpu() -> None:
    torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("refuse", [by_a_gpu, by_the_cpu])
@pytest.mark.parametrize("room", [49, 20, 1])
def test_out_of_memory_halves_the_chunk_and_changes_no_bit(room, refuse):
    done: list[int] = []
    assert torch.equal(drawn(Crowded(room, refuse), progress=done.append).outcomes, drawn(CannonDrag()).outcomes)
    assert sum(done) == 50 and max(done) <= room


@pytest.mark.parametrize("refuse", [by_a_gpu, by_the_cpu])
def test_out_of_memory_for_a_single_row_is_an_error(refuse):
    with pytest.raises(RuntimeError) as caught:
        drawn(Crowded(0, refuse))
    assert is_out_of_memory(caught.value)


def test_another_error_is_not_taken_for_too_little_memory():
    def broken() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        drawn(Crowded(20, broken))


def test_progress_counts_every_row():
    done: list[int] = []
    drawn(CannonVacuum(), chunk=20, progress=done.append)
    assert done == [20, 20, 10]


def test_rows_without_a_finite_outcome_are_left_out_and_counted():
    dataset = drawn(Holed(5.0), 200)
    assert len(dataset) + dataset.n_left_out == 200
    assert 50 < dataset.n_left_out < 150
    assert torch.isfinite(dataset.outcomes).all()
    assert (dataset.controls[:, 0] <= 5).all()


def test_too_few_finite_rows_are_an_error():
    with pytest.raises(UserError, match=r"only 0 of 50 .* at least 10"):
        drawn(Holed(-1.0))


@pytest.mark.parametrize("examples", [-1, 0, 1, 9])
def test_too_few_examples_asked_for(examples):
    with pytest.raises(UserError, match="at least 10"):
        drawn(CannonVacuum(), examples)


@pytest.mark.parametrize("fraction", [-0.1, 0.0, 1.0, math.nan])
def test_validation_fraction_out_of_range(fraction):
    with pytest.raises(UserError, match="validation_fraction"):
        simulate_dataset(CannonVacuum(), 20, fraction, torch.Generator())


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_there_is_always_a_row_on_either_side(fraction):
    dataset = simulate_dataset(CannonVacuum(), 10, fraction, torch.Generator())
    assert dataset.n_validation >= 1
    assert dataset.n_training >= 1


def test_a_file_gives_back_the_same_bits_and_the_same_bytes(tmp_path: Path):
    task, dataset = CannonDrag(), drawn(CannonDrag())
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    save_dataset(one, dataset, task)
    back = load_dataset(one, task)
    for name in ("controls", "conditions", "outcomes"):
        assert torch.equal(getattr(back, name), getattr(dataset, name))
    assert (back.n_validation, back.n_left_out) == (dataset.n_validation, dataset.n_left_out)
    save_dataset(two, back, task)
    assert one.read_bytes() == two.read_bytes()
    # A fixed date in every member: no clock in the bytes.
    assert b"\x00\x00\x21\x00" in one.read_bytes()[:32]


def test_every_flipped_or_missing_byte_is_noticed(tmp_path: Path):
    task, path = CannonVacuum(), tmp_path / "dataset.npz"
    save_dataset(path, drawn(task, 10), task)
    sound, whole = path.read_bytes(), load_dataset(path, task)
    told = []
    for where in range(0, len(sound), 13):
        path.write_bytes(sound[:where] + bytes([sound[where] ^ 16]) + sound[where + 1 :])
        try:
            loaded = load_dataset(path, task)
        except UserError as error:
            told.append(str(error))
        else:  # a flip in a field that zip has twice or does not use
            assert torch.equal(loaded.outcomes, whole.outcomes)
            assert torch.equal(loaded.controls, whole.controls)
    assert len(told) > len(sound) / 13 / 2
    assert all("dataset.npz" in line and "dvc repro" in line for line in told)
    for end in range(0, len(sound), 97):
        path.write_bytes(sound[:end])
        with pytest.raises(UserError, match="dvc repro"):
            load_dataset(path, task)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (CannonDrag(drag=0.06), "drag is 0.05 there, 0.06 here"),
        (CannonDrag(speed=[0, 9]), "box"),
        (CannonDrag(wind=[-1, 2]), "conditions"),
        (CannonVacuum(), "task is CannonDrag there, CannonVacuum here"),
    ],
)
def test_a_file_of_another_task_is_refused(tmp_path: Path, other, differs):
    path = tmp_path / "dataset.npz"
    save_dataset(path, drawn(CannonDrag()), CannonDrag())
    with pytest.raises(UserError, match="another task") as caught:
        load_dataset(path, other)
    assert differs in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_identity_tells_simulators_apart_and_not_tolerances():
    assert identify(CannonDrag()) == identify(CannonDrag(tolerance=0.5))
    assert identify(CannonDrag()) != identify(CannonDrag(gravity=1.62))


def test_missing_and_foreign_files(tmp_path: Path):
    with pytest.raises(UserError, match="no such file"):
        load_dataset(tmp_path / "none.npz", CannonVacuum())
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, x=np.zeros(3))
    with pytest.raises(UserError, match="not one of aimback's files"):
        load_dataset(foreign, CannonVacuum())


class Planted:
    """What unpickles into a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["identity", "controls"])
def test_no_pickle_is_read(tmp_path: Path, name):
    path, task = tmp_path / "pickled.npz", CannonVacuum()
    sound = {"identity": np.array(identify(task)), "controls": np.zeros((9, 2))}
    np.savez(path, **sound | {name: np.array([Planted(tmp_path / "planted")], dtype=object)})
    with pytest.raises(UserError, match=f"its array {name} is object, not "):
        load_dataset(path, task)
    assert not (tmp_path / "planted").exists()
