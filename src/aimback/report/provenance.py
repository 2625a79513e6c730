"""Where a report is from: which code, settings, versions and machines made its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Provenance:
    """What made the numbers, as far as it is known.

    Attributes:
        commit: of the project, "" where there is none; it says whether files were edited since.
        seed: of all that is drawn.
        states: by task, the key of the state that DVC has recorded.
        settings: those that differ from what conf/ says: name, value, and the value there.
        versions: of what computed them, by package.
    """

    commit: str = ""
    seed: int | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    settings: Sequence[tuple[str, str, str]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
