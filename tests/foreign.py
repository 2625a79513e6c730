"""Simulators as strangers write them, for tests to name in configs."""

import math
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CALLS: list[int] = []  # cases that each call of `count` had


def film(index: Tensor, thickness: Tensor) -> Tensor:
    """An array in, an array out; powers, sums and broadcasts that dual numbers do not know."""
    wave = torch.linspace(0.5, 1.5, 11, dtype=thickness.dtype)
    return torch.sin(thickness.sum(-1, keepdim=True) * wave) * index[..., None] ** 2


def in_dual_numbers(speed: Tensor, angle: Tensor) -> Tensor:
    return speed * torch.sin(angle)


def of_arrays(speed: Any, angle: Any, wind: Any) -> Any:
    return speed**2 * np.sin(2 * angle) / 9.81 + wind


def of_one_case(speed: float, angle: float, wind: float = 0.0) -> dict[str, float]:
    top = speed if speed > 5 else speed**2 / 5
    return {"top": top, "distance": speed**2 * math.sin(2 * angle) / 9.81 + wind}


def of_one_tensor(speed: Tensor, angle: Tensor) -> Tensor:
    return torch.sin(angle) * speed if speed > 5 else torch.cos(angle) * speed


def count(speed: Any, angle: Any) -> Any:
    CALLS.append(np.size(speed))
    return speed**2 * np.sin(2 * angle) / 9.81


def raising_for_some(speed: Any, angle: Any) -> Any:
    if np.max(speed) > 9.99:
        raise ValueError("too fast")
    return speed * np.sin(angle)


def rounded(speed: Any, angle: Any) -> Any:
    return np.round(speed**2 * np.sin(angle), 4)


def detached(speed: Tensor, angle: Tensor) -> Tensor:
    return torch.sin(angle.detach()) * speed


def energy(speed: float, angle: float) -> float:
    return speed**2


def sulk(speed: float, angle: float) -> str:
    return "dear"


def at_random(speed: float, angle: float) -> float:
    return float(np.random.default_rng().random())


def constant(speed: Any, angle: Any) -> Any:
    return 0 * np.sin(speed) + 3.0


def none(speed: float, angle: float) -> None:
    return None


def text(speed: float, angle: float) -> str:
    return "far"


def pair(speed: float, angle: float) -> tuple[float, float]:
    return speed, angle


def failing(speed: float, angle: float) -> float:
    raise RuntimeError("no convergence")


def failing_above_eight(speed: float, angle: float) -> float:
    if speed > 8:
        raise RuntimeError("no convergence")
    return speed * math.sin(angle)


def leaving(speed: float, angle: float) -> float:
    os._exit(3)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            parts = [nn.Linear(2, 16), nn.ELU(), nn.LayerNorm(16), nn.Dropout(0.5), nn.LeakyReLU(), nn.Linear(16, 1)]
        self.layers = nn.Sequential(*parts)

    def forward(self, inputs: Tensor) -> Any:
        return self.layers(inputs)
