"""Random streams: one for each purpose, so that none is moved by what another one draws."""

import hashlib

import torch

_AT_ONCE = 1_048_576


def derive_seed(seed: int, name: str, purpose: str) -> int:
    """The seed of one purpose of the work on a task, from that of the whole; at least 0 and below 2**63."""
    text = f"{seed} {name} {purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def skip(generator: torch.Generator, numbers: int) -> torch.Generator:
    """Another generator, where this one will be after so many numbers of float64."""
    ahead = generator.clone_state()
    for first in range(0, numbers, _AT_ONCE):
        torch.rand(min(_AT_ONCE, numbers - first), generator=ahead, dtype=torch.float64)
    return ahead


def make_generator(seed: int, name: str, purpose: str) -> torch.Generator:
    """The stream that belongs to `derive_seed`, on the CPU."""
    return torch.Generator().manual_seed(derive_seed(seed, name, purpose))
