"""A simulator that is a Tesseract (tesseract-core), run without a container."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aimback.core.errors import UserError
from aimback.core.extras import check_installed


@dataclass(frozen=True)
class TesseractFile:
    """What a `tesseract_api.py` computes. Its own dependencies must be installed here. Some 0.5 ms a call.

    Args:
        path: of the file.
        outcomes: those of its outputs that count.
        controls: those of its inputs that derivatives are taken by.

    Raises:
        UserError: tesseract-core is not installed, or there is no such file.
    """

    path: Path
    outcomes: tuple[str, ...]
    controls: tuple[str, ...]

    def __post_init__(self) -> None:
        check_installed("tesseract_core", "tesseract")
        if not self.path.is_file():
            raise UserError(f"tesseract: there is no file {self.path}")

    def __call__(self, case: Mapping[str, float | np.ndarray]) -> object:
        """-> its outputs by name."""
        outputs = self._call("apply", dict(case))
        return {name: outputs[name] for name in self.outcomes}

    def jacobian(self, case: Mapping[str, float | np.ndarray]) -> object:
        """-> derivatives, by the output's name and below it the control's.

        Raises:
            NotImplementedError: the file has no function `jacobian`.
        """
        return self._call("jacobian", dict(case), [*self.controls], [*self.outcomes])

    def _call(self, endpoint: str, *arguments: Any) -> Any:
        try:
            return getattr(_load(self.path), endpoint)(*arguments)
        except RuntimeError as error:  # tesseract-core puts a whole trace in its message
            raise error.__context__ or error from None


@functools.cache
def _load(path: Path) -> Any:
    from tesseract_core import Tesseract

    return Tesseract.from_tesseract_api(path)
