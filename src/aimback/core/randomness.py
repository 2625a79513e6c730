"""Random streams: one for each purpose, so that none is moved by what another one draws."""

import hashlib

import torch
from torch import Tensor


def derive_seed(seed: int, name: str, purpose: str) -> int:
    """The seed of one purpose of the work on a task, from that of the whole; at least 0 and below 2**63."""
    text = f"{seed} {name} {purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(seed: int, name: str, purpose: str) -> torch.Generator:
    """The stream that belongs to `derive_seed`, on the CPU."""
    return torch.Generator().manual_seed(derive_seed(seed, name, purpose))


def draw_words(key: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Draw numbers of 64 random bits, `(count,)`, int64: those of SplitMix64 seeded by `key`, from number `first` on.

    Number n is a hash of the key and n alone (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195, with
    Stafford's Mix13), so any part of the sequence is had without the rest, and no two of its numbers are equal. Whole
    numbers wrap in the same way on every device, so each draws the same.

    Args:
        key: at least 0 and below 2**63.
    """
    # Constants less 2**64 where they are too great for an int64: products wrap to the same bits.
    words = torch.arange(first + 1, first + count + 1, device=device).mul_(0x9E3779B97F4A7C15 - 2**64).add_(key)
    shifted = torch.empty_like(words)
    for shift, factor in (30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1):
        torch.bitwise_right_shift(words, shift, out=shifted)
        words ^= shifted.bitwise_and_((1 << 64 - shift) - 1)  # the sign must not move in
        words *= factor
    return words
