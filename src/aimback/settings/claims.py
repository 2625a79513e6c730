"""How finely the claims are looked at."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from aimback.core.checks import MOST_ROWS, MOST_STEPS
from aimback.core.section import Section
from aimback.data.dataset import LEAST_EXAMPLES


class DiagnoseSettings(Section):
    """How finely the claims are looked at; see conf/diagnose."""

    enabled: bool
    replicas: Annotated[int, Field(ge=0, le=100)]
    targets: Annotated[int, Field(ge=2, le=10_000)]
    starts: Annotated[int, Field(ge=1, le=10_000)]
    points: Annotated[int, Field(ge=8, le=2_048)]
    basin_points: Annotated[int, Field(ge=3, le=2_048)]
    planes: Annotated[int, Field(ge=1, le=1_000)]
    max_steps: Annotated[int, Field(ge=1, le=MOST_STEPS)]
    step_sizes: Annotated[Sequence[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    resamples: Annotated[int, Field(ge=100, le=MOST_STEPS)]
    examples: Sequence[Annotated[int, Field(ge=LEAST_EXAMPLES, le=MOST_ROWS)]]
