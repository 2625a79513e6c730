"""What Lightning calls at the end of every epoch: what came of it, and the state that a resume goes on from."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from aimback.core.errors import UserError
from aimback.learn import checkpoint
from aimback.learn.learner import Learner

log = logging.getLogger(__name__)

# Exact resume holds from any epoch's end, so epochs of milliseconds need not be saved one by one.
SECONDS_BETWEEN_CHECKPOINTS = 2.0

Live = Callable[[int, Mapping[str, float]], None]


class Epoch(NamedTuple):
    """One row of the training history; what the losses are, the `Learner` says.

    Attributes:
        step: optimizer steps taken so far.
        epoch: number of this epoch, from 1.
        train_loss: mean over the epoch, while the weights moved.
        validation_loss: at the end of the epoch.
        learning_rate: of the epoch's last step.
    """

    step: int
    epoch: int
    train_loss: float
    validation_loss: float
    learning_rate: float


def average_rows(rows: Sequence[Epoch]) -> Epoch:
    """Make the row of an ensemble: the means over its members; step and epoch are those of the member that is last."""
    last = max(rows)
    return Epoch(last.step, last.epoch, *map(fmean, zip(*(row[2:] for row in rows), strict=True)))


class BestAndHistory(Checkpoint):
    """Keeps each network's weights of the least validation loss and its row an epoch; both survive a resume.

    Args:
        n_networks: that learn side by side.
        live: called once an epoch with the step and the values worth watching.
        watched: of the first so many networks, their mean.
    """

    def __init__(self, n_networks: int, live: Live | None, watched: int) -> None:
        self.live, self.watched = live, watched
        self.histories: list[list[Epoch]] = [[] for _ in range(n_networks)]
        self.least = [math.inf] * n_networks
        self.weights: dict[str, Tensor] = {}
        self.began = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = True  # whatever a checkpoint holds has been taken up by now

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        learner = pl_module
        losses = zip(learner.train_loss.tolist(), learner.validation_loss.tolist(), strict=True)
        for place, (train_loss, validation_loss) in enumerate(losses):
            row = Epoch(
                trainer.global_step, trainer.current_epoch + 1, train_loss, validation_loss, learner.learning_rate
            )
            self.histories[place].append(row)
            if validation_loss < self.least[place]:
                self.least[place] = validation_loss
                best = learner.networks[place].state_dict(prefix=f"{place}.")
                self.weights |= {name: weight.clone() for name, weight in best.items()}
        if self.live is not None:
            values = average_rows([history[-1] for history in self.histories[: self.watched]])._asdict()
            self.live(values.pop("step"), values)

    def state_dict(self) -> dict[str, Any]:
        rows = [[tuple(row) for row in history] for history in self.histories]
        return {"histories": rows, "weights": self.weights, "least": self.least}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.histories = [[Epoch(*row) for row in rows] for rows in state_dict["histories"]]
        self.weights, self.least = state_dict["weights"], state_dict["least"]


class EpochCheckpoints(Checkpoint):
    """The whole state of the training at the end of an epoch: the newest file and the one before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saved_at = -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A training that has just decided to stop is not worth saving: resumed, it would go on.
        due = not trainer.should_stop and time.monotonic() - self.saved_at >= SECONDS_BETWEEN_CHECKPOINTS
        if not trainer.strategy.broadcast(due):  # by the clock of the first rank
            return
        epoch = trainer.current_epoch + 1
        try:
            trainer.save_checkpoint(self.folder / f"epoch-{epoch:08}.ckpt")
        except UserError as error:
            log.warning("no checkpoint of epoch %d: %s; training goes on", epoch, error)
            trainer.strategy.barrier()  # where the other ranks wait for the file
        for old in self._files()[2:]:
            old.unlink(missing_ok=True)
        self.saved_at = time.monotonic()

    def newest(self, learner: Learner) -> Path | None:
        """The newest file that is sound and holds such a learner's weights; others are skipped with a warning."""
        for file in self._files():
            try:
                _check_weights(file, checkpoint.read_state(file), learner)
            except UserError as error:
                log.warning("%s; taking up an earlier one", error)
            else:
                return file
        return None

    def kept(self) -> str:
        """What is left of a training that failed, in words."""
        newest = next(iter(self._files()), None)
        return f"the last good checkpoint is kept in {newest}" if newest else "no checkpoint was written before"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.ckpt"), reverse=True)


def _check_weights(file: Path, state: Mapping[str, Any], learner: Learner) -> None:
    """Compare the weights in a checkpoint, the last ones and the best ones, with those that are to be replaced.

    Raises:
        UserError: they have other names, shapes or dtypes, or are not finite.
    """
    pairs = [
        (state.get("state_dict"), learner.state_dict()),
        (state.get("callbacks", {}).get("BestAndHistory", {}).get("weights"), learner.networks.state_dict()),
    ]
    for found, wanted in pairs:
        if not isinstance(found, dict) or found.keys() != wanted.keys():
            raise UserError(f"{file}: the checkpoint holds other weights than this training's")
        for name, like in wanted.items():
            weight = found[name]
            if not isinstance(weight, Tensor) or (weight.shape, weight.dtype) != (like.shape, like.dtype):
                raise UserError(f"{file}: the checkpoint's {name} is none of this training's")
            if not weight.isfinite().all():
                raise UserError(f"{file}: the checkpoint's {name} is not finite everywhere")
