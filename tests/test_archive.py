"""Arrays with the right checksum that are not what the file should hold."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import pose

from aimback.core.errors import UserError
from aimback.data.archive import Stored, read_arrays, write_arrays
from aimback.data.dataset import load_dataset, save_dataset, simulate_dataset
from aimback.data.identity import identify
from aimback.data.solution import load_solution, save_solution
from aimback.data.targets import draw_targets, load_targets, save_targets
from aimback.solve.gauss_newton import GaussNewton
from aimback.solve.multistart import solve
from aimback.tasks.cannon_drag import CannonDrag

TASK = CannonDrag()
LOADERS: dict[str, Callable[..., object]] = {
    "dataset": load_dataset,
    "targets": load_targets,
    "solution": load_solution,
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small file of each kind."""
    folder, generator = tmp_path_factory.mktemp("sound"), torch.Generator().manual_seed(0)
    targets = draw_targets(TASK, 6, generator)
    save_dataset(folder / "dataset.npz", simulate_dataset(TASK, 20, 0.2, generator), TASK)
    save_targets(folder / "targets.npz", [targets], TASK)
    problem = pose(targets.targets, targets.conditions, TASK.box, TASK.tolerance, 10.0, 2)
    solution = solve(TASK, problem, GaussNewton(max_steps=3), generator)
    save_solution(folder / "solution.npz", [solution], TASK)
    return folder


def refused(folder: Path, kind: str, **changed: object) -> str:
    """What is said of a file in which arrays were replaced and all checksums made anew."""
    with np.load(folder / f"{kind}.npz") as archive:
        arrays = dict(archive)
    path = folder / "changed.npz"
    np.savez(path, **arrays | {name: np.asanyarray(array) for name, array in changed.items()})
    with pytest.raises(UserError) as caught:
        LOADERS[kind](path, TASK)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.endswith("; run `dvc repro` to make it anew")
    assert "\n" not in message
    return message


def with_one(value: float, like: np.ndarray) -> np.ndarray:
    array = like.copy()
    array.flat[-1] = value
    return array


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.empty((20, 1), dtype=object), "is object, not float64"),
        (np.zeros((20, 1), dtype="f8,i4"), "is [('f0', '<f8'), ('f1', '<i4')], not float64"),
        (np.zeros((20, 1), dtype=">f8"), "is >f8, not float64"),
        (np.zeros((20, 1), dtype=np.complex128), "is complex128, not float64"),
        (np.zeros((20, 1), dtype=np.float32), "is float32, not float64"),
        (np.zeros((20, 1), dtype=np.int64), "is int64, not float64"),
        (np.zeros((20, 1), dtype=bool), "is bool, not float64"),
        (np.zeros((20, 1), dtype="U4"), "is <U4, not float64"),
        (np.zeros((20, 1), dtype="M8[s]"), "is datetime64[s], not float64"),
        (np.zeros(()), "has the shape (), not (20, 1)"),
        (np.zeros(20), "has the shape (20,), not (20, 1)"),
        (np.zeros((1, 20)), "has the shape (1, 20), not (20, 1)"),
        (np.zeros((20, 2)), "has the shape (20, 2), not (20, 1)"),
        (np.zeros((19, 1)), "has the shape (19, 1), not (20, 1)"),
        (np.zeros((0, 1)), "has the shape (0, 1), not (20, 1)"),
        (np.zeros((20, 1, 1)), "has the shape (20, 1, 1), not (20, 1)"),
        (with_one(np.nan, np.zeros((20, 1))), "is not finite everywhere"),
        (with_one(-np.inf, np.zeros((20, 1))), "is not finite everywhere"),
    ],
)
def test_an_array_that_is_none_of_a_data_set(sound: Path, array: np.ndarray, reason: str) -> None:
    assert f"its array outcomes {reason}; " in refused(sound, "dataset", outcomes=array)


@pytest.mark.parametrize(
    ("kind", "changed", "reason"),
    [
        ("dataset", {"counts": [20, 0]}, "counts are 20 for validation and 0 left out of 20"),
        ("dataset", {"counts": [4, -1]}, "counts are 4 for validation and -1 left out of 20"),
        ("dataset", {"counts": [4]}, "counts has the shape (1,), not (2)"),
        ("dataset", {"identity": ["{}"]}, "identity has the shape (1,), not ()"),
        ("dataset", {"identity": "[[1, 2]]"}, "does not say which task it was made for"),
        ("dataset", {"identity": "[" * 100_000}, "does not say which task it was made for"),
        ("targets", {"targets": np.full((6, 1), np.nan)}, "valid rows are none, or not all finite"),
        ("targets", {"conditions": np.full((6, 1), np.inf)}, "valid rows are none, or not all finite"),
        ("targets", {"problems": ["line 2: bad"] * 6}, "valid rows are none"),
        ("targets", {"problems": np.zeros(6, "S1")}, "problems is |S1, not str"),
        ("targets", {"lines": np.zeros(6)}, "lines is float64, not int64"),
        ("solution", {"controls": np.zeros((6, 2, 3))}, "controls has the shape (6, 2, 3), not (6, 2, 2)"),
        ("solution", {"controls": np.full((6, 2, 2), np.nan)}, "controls is not finite"),
        ("solution", {"steps": np.zeros((5, 2), np.int32)}, "steps has the shape (5, 2), not (6, 2)"),
        ("solution", {"start_status": np.full((6, 2), 6, np.int8)}, "start_status are not all codes"),
        ("solution", {"start_status": np.full((6, 2), -1, np.int8)}, "start_status are not all codes"),
        ("solution", {"history_believed_miss": np.zeros((1, 6, 2))}, "history_believed_miss has the shape (1, 6, 2)"),
        (
            "solution",
            {"history_believed_miss": np.zeros((1, 7, 2)), "history_controls": np.zeros((1, 7, 2, 2))},
            "do not fit together",
        ),
    ],
)
def test_arrays_that_do_not_fit_their_kind_of_file(
    sound: Path, kind: str, changed: dict[str, object], reason: str
) -> None:
    assert reason in refused(sound, kind, **changed)


def test_a_solution_of_other_targets_is_refused(sound: Path) -> None:
    assert len(load_solution(sound / "solution.npz", TASK, 6).steps) == 6
    with pytest.raises(UserError, match=r"controls has the shape \(6, 2, 2\), not \(7, 2, 2\)"):
        load_solution(sound / "solution.npz", TASK, 7)


def test_columns_stored_one_after_the_other_are_rows_in_memory(tmp_path: Path) -> None:
    path, array = tmp_path / "a.npz", np.asfortranarray(np.arange(6.0).reshape(3, 2))
    write_arrays(path, {"a": array}, TASK)
    back = read_arrays(path, {"a": Stored("float64", ("rows", 2))}, TASK)["a"]
    assert back.flags.c_contiguous and np.array_equal(back, array)


@pytest.mark.parametrize("shape", ["(10**12, 1)", "(1000000000000, 1)", "(-20, 1)", "(True, 20)", "((((", "(2.0, 1)"])
@pytest.mark.parametrize("lies", [False, True])
def test_a_header_that_claims_more_than_there_is_takes_no_memory(
    sound: Path, tmp_path: Path, shape: str, lies: bool
) -> None:
    path, stated = tmp_path / "dataset.npz", 10**12 * 8
    with zipfile.ZipFile(sound / "dataset.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    before = members["outcomes.npy"]
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    members["outcomes.npy"] = before[:8] + len(header).to_bytes(2, "little") + header + before[128:]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        if lies:  # the table of contents too
            member = archive.getinfo("outcomes.npy")
            member.file_size = member.compress_size = stated + 10 + len(header)
    with pytest.raises(UserError, match="dvc repro"):
        load_dataset(path, TASK)


@pytest.mark.parametrize("count", [0, 2])
def test_a_member_is_there_once(sound: Path, tmp_path: Path, count: int) -> None:
    path = tmp_path / "dataset.npz"
    with zipfile.ZipFile(sound / "dataset.npz") as archive, zipfile.ZipFile(path, "w") as made:
        for name in archive.namelist():
            for _ in range(count if name == "outcomes.npy" else 1):
                if name in made.namelist():
                    with pytest.warns(UserWarning, match="Duplicate name"):
                        made.writestr(name, archive.read(name))
                else:
                    made.writestr(name, archive.read(name))
    with pytest.raises(UserError, match=f"it holds {count} arrays called outcomes"):
        load_dataset(path, TASK)


def test_a_compressed_file_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, identity=np.array(identify(TASK)), a=np.zeros(100_000))
    with pytest.raises(UserError, match="is not as long as it says"):
        read_arrays(path, {"a": Stored("float64", ("rows",))}, TASK)


def test_the_bytes_are_the_same_whatever_python_writes_them(sound: Path) -> None:
    """Versions of Python differ in how they write the zip64 format, which files of this size do not need."""
    for kind in LOADERS:
        with zipfile.ZipFile(sound / f"{kind}.npz") as archive:
            assert {member.extract_version for member in archive.infolist()} == {20}
            assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
