"""Arrays of a task in one npz file: written whole, checked on the way in, no pickle."""

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from aimback.errors import UserError
from aimback.files import written_whole
from aimback.identity import check_identity, identity
from aimback.tasks.base import Task

_CURE = "run `dvc repro` to make it anew"


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], task: Task) -> None:
    """Write the arrays and the identity of the task they belong to; same arrays, same bytes."""
    # numpy gives every member of the zip file the same fixed date.
    with written_whole(path) as temporary:
        np.savez(temporary, allow_pickle=False, identity=np.array(identity(task)), **arrays)


def read_arrays(path: Path, names: Iterable[str], task: Task) -> dict[str, np.ndarray]:
    """Read arrays back; every byte is checked against the file's own checksums.

    Raises:
        UserError: the file is missing, truncated, altered, or made for another task.
    """
    try:
        # Opened here: numpy leaves its own handle open where the file is damaged.
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            stored = str(archive["identity"])
            arrays = {name: archive[name] for name in names}
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; {_CURE}") from None
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError, NotImplementedError) as error:
        raise UserError(f"{path}: damaged or not one of aimback's files ({error}); {_CURE}") from error
    check_identity(path, stored, task, _CURE)
    return arrays


def damaged(path: Path, what: str) -> UserError:
    """The error for arrays that can be read and yet do not fit together."""
    return UserError(f"{path}: {what}; {_CURE}")
