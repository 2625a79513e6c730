"""PyTorch as in the tutorials, one target at a time: Adam on one angle."""

import numpy as np

from benchmarks.cannon import Aim, Array, Cannon
from benchmarks.peers import torch_adam


def prepare(cannon: Cannon) -> Aim:
    one = torch_adam.prepare(cannon)

    def aim(targets: Array, wind: Array) -> Array:
        return np.concatenate([one(targets[row : row + 1], wind[row : row + 1]) for row in range(len(targets))])

    return aim
