"""What networks learn from: rows of tensors that lie on the training device, handed out in whole batches."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

# Full reductions over more rows would depend on the number of threads.
VALIDATION_BATCH = 32768


class Examples(pl.LightningDataModule):
    """The examples of networks that learn side by side; a batch is a list of one batch a network.

    Args:
        sets: for each network what belongs to an example, `(n, ...)` each; the last `n_validation` rows are for
            validation. All have the same n.
        seeds: for each network, of the order in which its examples are shown.
        batch_size: examples an optimizer step.
        portion: batches that are handed out together.
        least_batch: fewest examples an optimizer step can do with. Where the last batch of an epoch
            would be smaller, its examples sit out that epoch.
        device: where they are learned from.
    """

    def __init__(
        self,
        sets: Sequence[Sequence[Tensor]],
        seeds: Sequence[int],
        n_validation: int,
        batch_size: int,
        *,
        portion: int = 1,
        least_batch: int = 1,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self.sets = [TensorDataset(*(part.to(device) for part in parts)) for parts in sets]
        self.seeds = seeds
        self.n_training = len(self.sets[0]) - n_validation
        self.batch_size = min(batch_size, self.n_training)
        self.portion = portion
        left_over = self.n_training % self.batch_size
        self.n_shown = self.n_training - (left_over if left_over < least_batch else 0)

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(self.n_shown / self.batch_size)

    def train_dataloader(self) -> CombinedLoader:
        rows = self.batch_size * self.portion
        return self._load(Shuffled(seed, self.n_training, self.n_shown, rows) for seed in self.seeds)

    def val_dataloader(self) -> CombinedLoader:
        end = len(self.sets[0])
        firsts = range(self.n_training, end, VALIDATION_BATCH)
        batches = [slice(first, min(first + VALIDATION_BATCH, end)) for first in firsts]
        return self._load(batches for _ in self.sets)

    def _load(self, samplers: Iterable[Any]) -> CombinedLoader:
        # Without a generator of its own a loader would draw from the global random state.
        generator = torch.Generator()
        loaders = [
            DataLoader(examples, batch_size=None, sampler=sampler, generator=generator)
            for examples, sampler in zip(self.sets, samplers, strict=True)
        ]
        return CombinedLoader(loaders, "min_size")


class Shuffled:
    """The rows shown in an epoch, in portions: a function of (seed, epoch).

    Args:
        seed: of the order.
        n_training, n_shown: how many rows there are, and how many of them are shown.
        portion: rows that are handed out together.
    """

    def __init__(self, seed: int, n_training: int, n_shown: int, portion: int) -> None:
        self.seed = seed
        self.n_training = n_training
        self.n_shown = n_shown
        self.portion = portion
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning says here which epoch begins, as it does to PyTorch's `DistributedSampler`."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.n_shown / self.portion)

    def __iter__(self) -> Iterator[Tensor]:
        # Nothing of this is done before the first portion is asked for: Lightning may say later which epoch it is.
        # One seed from two, without the collisions of their sum.
        mixed = int.from_bytes(hashlib.sha256(f"{self.seed} {self.epoch}".encode()).digest()[:8], "little")
        order = torch.randperm(self.n_training, generator=torch.Generator().manual_seed(mixed))
        yield from order[: self.n_shown].split(self.portion)
