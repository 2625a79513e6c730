"""All claims, one after the other."""

from collections.abc import Callable

from aimback.diagnose import conditioning, gradients, minima, roughness
from aimback.diagnose.claim import Claim
from aimback.diagnose.subject import Pictures, Subject

Examination = Callable[[Subject], tuple[Claim, Pictures]]

# Each module measures one claim; in the order of their keys.
EXAMINATIONS: tuple[Examination, ...] = (
    roughness.examine,
    minima.examine,
    conditioning.examine,
    gradients.examine,
)


def examine(subject: Subject) -> list[tuple[Claim, Pictures]]:
    """Every claim decided, with the arrays of its pictures."""
    return [examination(subject) for examination in EXAMINATIONS]
