"""The routes from a target to controls: which stages work for each, once for all targets or target by target."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Route:
    """One way to the controls.

    Args:
        solving: the stage that finds the answers, and its folder, with the solution and the ledger.
        fixed: the stages that are paid for once, however many targets are asked, by what their seconds are called.
    """

    solving: str
    fixed: Mapping[str, str]


ROUTES = {
    "surrogate": Route("invert", {"seconds_generate": "generate", "seconds_train": "train"}),
    "direct": Route("optimise", {}),
    "hybrid": Route("refine", {"seconds_train": "amortise"}),
}
