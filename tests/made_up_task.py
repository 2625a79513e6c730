"""What a made-up task needs besides its formula."""

import torch
from torch import Tensor

from aimback.box import Box


class Uniform:
    """Draws all over the box, cannot tell its reach, and has nothing to draw."""

    box: Box

    def draw_controls(self, count: int, generator: torch.Generator) -> Tensor:
        return self.box.sample(count, generator)

    draw_starts = draw_controls

    def reach(self, conditions: Tensor) -> None:
        return None

    def trajectory(self, controls: Tensor, conditions: Tensor, points: int) -> None:
        return None
