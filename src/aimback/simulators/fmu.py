"""A simulator that is a Functional Mock-up Unit (FMI 1, 2 or 3), run by FMPy."""

import contextlib
import functools
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aimback.core.errors import UserError
from aimback.core.extras import check_installed
from aimback.core.files import sha256


@dataclass(frozen=True)
class FmuFile:
    """An FMU, simulated from its start time on with a fresh instance each time: nothing is left of the run before.

    Args:
        path: of the .fmu file.
        folder: where it is extracted to, once for each content, however many runs and workers there are.
        outcomes: the variables whose final values are the outcome.
        stop_time: in the unit of the model's time; that of its own default experiment if None.

    Raises:
        UserError: FMPy is not installed, the file is not there or is no FMU, or has no such variables.
    """

    path: Path
    folder: Path
    outcomes: tuple[str, ...]
    stop_time: float | None = None

    def __post_init__(self) -> None:
        check_installed("fmpy", "fmu")
        if not self.path.is_file():
            raise UserError(f"fmu: there is no file {self.path}")
        self.check_names(self.outcomes)

    def check_names(self, names: Collection[str]) -> None:
        """Check that the model has variables of these names: the case's names become its start values.

        Raises:
            UserError: it has not.
        """
        there = [variable.name for variable in _open(self.path, self.folder)[1].modelVariables]
        for name in names:
            if name not in there:
                raise UserError(f"fmu: {self.path.name} has no variable {name}; it has {', '.join(there[:20])}")

    def __call__(self, case: Mapping[str, float | np.ndarray]) -> object:
        """-> the outcomes by name."""
        from fmpy import simulate_fmu

        folder, description = _open(self.path, self.folder)
        rows = simulate_fmu(
            str(folder),
            start_values=dict(case),
            output=[*self.outcomes],
            stop_time=self.stop_time,
            model_description=description,
        )
        return {name: rows[name][-1] for name in self.outcomes}


@functools.cache
def _open(path: Path, folder: Path) -> tuple[Path, Any]:
    """Extract an FMU, if that has not been done, and read its description."""
    from fmpy import extract, read_model_description

    there = folder / f"{path.stem}-{sha256(path)[:16]}"
    try:
        if not there.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as unfinished:
                extract(str(path), unzipdir=unfinished + "/fmu")
                with contextlib.suppress(OSError):  # another worker was first
                    Path(unfinished, "fmu").rename(there)
        return there, read_model_description(str(there))
    except Exception as error:
        raise UserError(f"fmu: {path} cannot be read: {' '.join(str(error).split())}") from error
