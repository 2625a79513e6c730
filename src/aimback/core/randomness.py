"""Random streams: one for each purpose, so that none is moved by what another one draws."""

import hashlib

import torch


def derive_seed(seed: int, name: str, purpose: str) -> int:
    """The seed of one purpose of the work on a task, from that of the whole; at least 0 and below 2**63."""
    text = f"{seed} {name} {purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(seed: int, name: str, purpose: str) -> torch.Generator:
    """The stream that belongs to `derive_seed`, on the CPU."""
    return torch.Generator().manual_seed(derive_seed(seed, name, purpose))
