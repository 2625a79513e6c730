"""The price of a Jacobian."""

import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aimback.compiled import CONFIGS
from aimback.tasks.cannon_drag import CannonDrag
from benchmarks.rounds import in_turns, one_core, ratio


class _Program(nn.Module):
    """A function of controls and conditions, as `torch.export` takes it; rows last in memory."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, controls: Tensor, wind: Tensor) -> Any:
        return self._function(controls.movedim(-1, 0), wind.movedim(-1, 0))


def compiled(function: Callable[[Tensor, Tensor], Any], controls: Tensor, wind: Tensor) -> Callable[..., Any]:
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(_Program(function), (controls.T.contiguous(), wind.T.contiguous()), strict=False)
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(Path(folder) / "program.pt2"), inductor_configs=CONFIGS
        )
        return torch._inductor.aoti_load_package(path)


def compiled_jacobian_against_forward() -> list[str]:
    """Rows of a Markdown list: the same two, each compiled."""
    task, count = CannonDrag(), 2048
    generator = torch.Generator().manual_seed(0)
    controls, wind = task.draw_controls(count, generator), task.conditions.sample(count, generator)
    with one_core():
        forward, both = compiled(task, controls, wind), compiled(task.linearise, controls, wind)
        rows_last = controls.T.contiguous(), wind.T.contiguous()
        rivals = {"both": lambda: both(*rows_last), "forward": lambda: forward(*rows_last)}
        seconds = in_turns(rivals, rounds=41)
        each = {name: 1e6 * statistics.median(times) / count for name, times in seconds.items()}
    return [
        f"{count} shots, compiled: value and Jacobian cost {ratio(seconds, 'both', 'forward')} the value "
        f"({each['both']:.2f} and {each['forward']:.2f} us a shot); asked: at most 2 x"
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
