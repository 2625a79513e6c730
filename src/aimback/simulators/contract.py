"""What a simulator is to this room: it takes one case and gives whatever the user's code gives."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a process that is to be forked must not have NumPy's random state yet
    import numpy as np


class CaseSimulator(Protocol):
    """A simulator that runs one case at a time. It is pickled into the processes that run it: a frozen dataclass.

    It may also have a method `jacobian(case)`, which gives derivatives in as free a form: a number, nested sequences,
    or mappings by outcome and below it by control. It raises `NotImplementedError` where the foreign code has none.
    """

    def __call__(self, case: "Mapping[str, float | np.ndarray]") -> object:
        """Run one case.

        Args:
            case: every control and condition by its name, in its own unit, those that are pinned too.

        Returns:
            A number, a sequence of numbers, or a mapping from outcomes' names to them.

        Raises:
            Exception: whatever it is, this case has failed, and the message says why.
        """
        ...
