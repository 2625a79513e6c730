"""Networks that learn side by side, as a module of Lightning: their losses, their optimizer and its schedule."""

import math
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, distributed, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from aimback.core.errors import UserError
from aimback.learn.perceptron import Perceptron
from aimback.settings.learning import Descent


class TrainingDiverged(UserError):  # noqa: N818 - a state of affairs, as StopIteration
    """The loss is not finite; names the step and the last good checkpoint."""


class Learner(pl.LightningModule):
    """What is descended, and how the weights are moved.

    Networks learn side by side without seeing one another: each has its own loss, their sum is descended by one
    optimizer, and every step of a network has the bits that it has when it learns alone.

    Args:
        networks: whose weights are learned.
        settings: how.
        total_steps: optimizer steps of the whole training; what the schedule is stretched over.
        section: of the configuration that the settings come from, for messages.

    Attributes:
        train_loss, validation_loss: of the epoch, a network each, `(n_networks,)`.
        learning_rate: of the step taken last.
    """

    def __init__(self, networks: Sequence[Perceptron], settings: Descent, total_steps: int, section: str) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.settings = settings
        self.total_steps = total_steps
        self.section = section
        self.learning_rate = settings.learning_rate
        self.train_loss = self.validation_loss = torch.zeros(len(networks))
        self.rows = self.validation_rows = 0
        self.validation_sums: list[Tensor] = []

    def take_shares(self, batches: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Of the rows of whole batches, `(n, ...)`, those that this rank learns from."""
        own = slice(self.global_rank, None, self.settings.devices)
        return [[part[own] for part in parts] for parts in batches]

    def on_train_epoch_start(self) -> None:
        self.train_loss, self.rows = torch.zeros(len(self.networks), device=self.device), 0

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.learning_rate = optimizer.param_groups[0]["lr"]

    def on_validation_epoch_start(self) -> None:
        self.validation_sums, self.validation_rows = [], 0

    def on_validation_epoch_end(self) -> None:
        self.train_loss /= self.rows
        sums, rows = self._add_ranks(torch.stack(self.validation_sums, dim=-1).sum(-1), self.validation_rows)
        self.validation_loss = sums / rows
        self._check_finite("validation loss", self.validation_loss, self.global_step)
        means = {"train_loss": self.train_loss.mean(), "validation_loss": self.validation_loss.mean()}
        self.log_dict(means, prog_bar=True)

    def note_loss(self, losses: Tensor, rows: int) -> Tensor:
        """Count the mean losses of this rank's share of a batch, `(n_networks,)`, towards the epoch's.

        Returns:
            Their sum, `()`, weighted so that those of all ranks, whose gradients are added up, make that of the batch.

        Raises:
            TrainingDiverged: one is not finite, on any rank.
        """
        # The mean over no rows is not a number, and its gradient is zero.
        sums, whole = self._add_ranks(losses.detach() * rows if rows else torch.zeros_like(losses), rows)
        self._check_finite("loss", losses if whole == rows else sums / whole, self.global_step + 1)
        self.train_loss += sums
        self.rows += whole
        return losses.sum() * (rows / whole)

    def note_validation(self, sums: Tensor, rows: int) -> None:
        """Count the sums of the losses of some validation examples, `(n_networks,)`."""
        self.validation_sums.append(sums)
        self.validation_rows += rows

    def make_optimizer(self, name: str) -> Optimizer:
        """One of PyTorch's, for the weights of all networks."""
        # fused: one kernel for all weights; for networks this small it halves the cost of a step.
        settings = self.settings
        common: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "fused": True}
        if name == "sgd":
            return SGD(self.networks.parameters(), momentum=0.9, **common)
        kind = Adam if name == "adam" else AdamW
        return kind(self.networks.parameters(), betas=(0.9, settings.beta2), **common)

    def make_schedule(self, optimizer: Optimizer) -> LambdaLR:
        """The learning rate by the step."""
        name = self.settings.schedule
        return LambdaLR(optimizer, lambda step: schedule_rate(name, step / self.total_steps))

    def _add_ranks(self, sums: Tensor, rows: int) -> tuple[Tensor, int]:
        """Sums over some rows, `(n_networks,)`, and the number of these, added up over all ranks."""
        if self.settings.devices > 1:
            both = torch.cat([sums, sums.new_tensor([rows])])
            distributed.all_reduce(both)
            sums, rows = both[:-1], int(both[-1])
        return sums, rows

    def _check_finite(self, what: str, values: Tensor, step: int) -> None:
        finite = torch.isfinite(values)
        if not finite.all():
            raise TrainingDiverged(
                f"training diverged at step {step} (epoch {self.current_epoch + 1}): the {what} is "
                f"{values[~finite][0].item()}; lower {self.section}.learning_rate "
                f"(now {self.settings.learning_rate:g})"
            )


def schedule_rate(name: str, progress: float) -> float:
    """The learning rate as a share of its maximum, at a share of the training in [0, 1].

    Not plateau, which goes by the loss.
    one_cycle (Smith and Topin 2018): from 4 % up to the maximum over the first 30 %, then down to zero.
    """
    if name == "constant":
        return 1.0
    if name == "one_cycle" and progress < (rise := 0.3):
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / rise)) / 2
    if name == "one_cycle":
        progress = (progress - rise) / (1 - rise)
    return (1 + math.cos(math.pi * progress)) / 2
