"""How far a solver has come, for those who wait."""

from collections.abc import Callable

# (targets all of whose starts have stopped, targets with a start within the tolerance)
Progress = Callable[[int, int], None]
