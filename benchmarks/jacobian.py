"""The price of a Jacobian."""

import statistics

import torch
from torch import Tensor

from aimback.tasks.cannon_drag import CannonDrag
from benchmarks.rounds import in_turns, one_core, ratio
from benchmarks.rows import columns_of, fused


def compiled_jacobian_against_forward() -> list[str]:
    """Rows of a Markdown list: the same two, each compiled."""
    task, count = CannonDrag(), 4096
    generator = torch.Generator().manual_seed(0)
    controls, wind = task.draw_controls(count, generator), task.conditions.sample(count, generator)
    forward, both = fused(task, controls, wind), fused(task.linearise, controls, wind)
    columns = columns_of(controls, wind)
    with one_core():
        seconds = in_turns({"both": lambda: both(columns), "forward": lambda: forward(columns)}, rounds=41)
    each = {name: 1e6 * statistics.median(times) / count for name, times in seconds.items()}
    return [
        f"{count} shots, compiled: value and Jacobian cost {ratio(seconds, 'both', 'forward')} the value "
        f"({each['both']:.3f} and {each['forward']:.3f} us a shot); asked: at most 2 x"
    ]


def jacobian_against_forward() -> list[str]:
    """Rows of a Markdown list: value and full Jacobian over the value alone, cannon_drag."""
    task = CannonDrag()
    generator = torch.Generator().manual_seed(0)
    rows = compiled_jacobian_against_forward()
    for count in (100, 1000, 10_000):
        controls, wind = task.draw_controls(count, generator), task.conditions.sample(count, generator)

        def forward(controls: Tensor = controls, wind: Tensor = wind) -> None:
            with torch.no_grad():
                task(controls, wind)

        def both(controls: Tensor = controls, wind: Tensor = wind) -> None:
            task.linearise(controls, wind)

        with one_core():
            seconds = in_turns({"both": both, "forward": forward}, rounds=9)
        rows.append(f"{count} shots: value and Jacobian cost {ratio(seconds, 'both', 'forward')} the value")
    return rows
