"""Arrays of a task in one npz file: written whole, checked on the way in, no pickle.

Where there are too many rows to hold them at once, the file has parts, each with all the arrays of some of the rows.
Those of the first part have their plain names, so that a file of one part is an ordinary npz file.
"""

import contextlib
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aimback.core.errors import UserError
from aimback.core.files import write_whole
from aimback.data.identity import check_identity, identify
from aimback.tasks.base import Task

_CURE = "run `dvc repro` to make it anew"


@dataclass(frozen=True)
class Stored:
    """What an array of a file must be.

    Args:
        dtypes: its dtype, or those that are allowed, in this machine's byte order; "str" is text of any length.
        shape: its size in each dimension. A name stands for any size, the same one wherever the file's arrays have it.
        finite: whether it holds no NaN and no infinity.
    """

    dtypes: str | tuple[str, ...]
    shape: tuple[int | str, ...]
    finite: bool = False


_IDENTITY = Stored("str", ())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], task: Task) -> None:
    """Write the arrays and the identity of the task they belong to; same arrays, same bytes."""
    write_parts(path, [arrays], task)


def write_parts(path: Path, parts: Iterable[Mapping[str, np.ndarray]], task: Task) -> None:
    """Write one part after the other, as they come, and none of them is held."""
    with write_whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _write(archive, "identity", np.array(identify(task)))
        for part, arrays in enumerate(parts):
            for name, array in arrays.items():
                _write(archive, _name(name, part), array)


def read_arrays(path: Path, declared: Mapping[str, Stored], task: Task, part: int = 0) -> dict[str, np.ndarray]:
    """Read the arrays of a part; bytes are checked against the file's own checksums, arrays against what they must be.

    Raises:
        UserError: the file is missing, truncated, altered, or made for another task, or an array is not as declared.
    """
    sizes: dict[str, int] = {}
    with _open(path) as archive:
        stored = _read(path, archive, "identity", _IDENTITY, sizes).item()
        check_identity(path, stored, task, _CURE)
        return {name: _read(path, archive, _name(name, part), array, sizes) for name, array in declared.items()}


def holds(path: Path, name: str) -> bool:
    """Whether a file has an array of this name.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _open(path) as archive:
        return f"{name}.npy" in archive.namelist()


def count_parts(path: Path) -> int:
    """How many parts a file has.

    Raises:
        UserError: the file is missing or damaged, or one of its parts is not there.
    """
    with _open(path) as archive:
        folders = {name.rpartition("/")[0] for name in archive.namelist()} - {""}
    if folders != {str(part) for part in range(1, len(folders) + 1)}:
        raise DamagedFileError(path, "its parts are not all there")
    return 1 + len(folders)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            yield archive
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; {_CURE}") from None
    except (UserError, MemoryError):
        raise
    except Exception as error:  # zipfile and numpy raise whatever comes to hand on bytes that are none of theirs
        raise DamagedFileError(
            path, f"damaged or not one of aimback's files ({error or type(error).__name__})"
        ) from error


def _name(name: str, part: int) -> str:
    return f"{part}/{name}" if part else name


def _write(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    member = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date
    # `np.savez` asks for the zip64 format whatever the size, and versions of Python write that differently.
    member.file_size = array.nbytes
    with archive.open(member, "w") as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)


class DamagedFileError(UserError):
    """The arrays of a file can be read and yet are not what they should be."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {' '.join(what.split())}; {_CURE}")


def _read(path: Path, archive: zipfile.ZipFile, name: str, declared: Stored, sizes: dict[str, int]) -> np.ndarray:
    """One array, if it is as declared; `sizes` holds those of the named dimensions that were seen before."""
    found = [member for member in archive.infolist() if member.filename == f"{name}.npy"]
    if len(found) != 1:
        raise DamagedFileError(
            path, f"damaged or not one of aimback's files (it holds {len(found)} arrays called {name})"
        )
    (member,) = found
    with archive.open(member) as stream:
        # The header first: before any memory is asked for, it is known to fit what was declared and what is there.
        if np.lib.format.read_magic(stream) != (1, 0):
            raise DamagedFileError(path, f"its array {name} is in a format that this version does not write")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        _check(path, name, dtype, shape, declared, sizes)
        length = stream.tell() + dtype.itemsize * math.prod(shape)
        if not length == member.file_size == member.compress_size <= path.stat().st_size:
            raise DamagedFileError(path, f"its array {name} is not as long as it says")
        stream.seek(0)
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    if declared.finite and not np.isfinite(array).all():
        raise DamagedFileError(path, f"its array {name} is not finite everywhere")
    return np.asarray(array, order="C")


def _check(
    path: Path, name: str, dtype: np.dtype, shape: tuple[int, ...], declared: Stored, sizes: dict[str, int]
) -> None:
    """Compare an array's header with the declaration."""
    dtypes = (declared.dtypes,) if isinstance(declared.dtypes, str) else declared.dtypes
    kind = "str" if dtype.kind == "U" else dtype.name
    if kind not in dtypes or not dtype.isnative:
        raise DamagedFileError(path, f"its array {name} is {dtype}, not {' or '.join(dtypes)}")
    fits = len(shape) == len(declared.shape)
    for wanted, size in zip(declared.shape, shape, strict=False):
        fits &= size == (wanted if isinstance(wanted, int) else sizes.setdefault(wanted, size))
    if not fits:
        shown = ", ".join(str(size if isinstance(size, int) else sizes.get(size, size)) for size in declared.shape)
        raise DamagedFileError(path, f"its array {name} has the shape {shape}, not ({shown})")
