"""Training with Lightning: whole batches from memory, exact resume, no pickle.

A training is a function of (examples, settings, seed): the order of the examples is a function of
(seed, epoch), no random state is global, and every checkpoint lies at the end of an epoch. So a
training killed at any moment and started again ends at the same bits as one that never stopped.
"""

import contextlib
import hashlib
import json
import logging
import math
import signal
import sys
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping, RichProgressBar
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from aimback.core.errors import UserError
from aimback.learn import checkpoint as _state
from aimback.learn import perceptron
from aimback.learn.perceptron import Perceptron

log = logging.getLogger(__name__)

# Exact resume holds from any epoch's end, so epochs of milliseconds need not be saved one by one.
SECONDS_BETWEEN_CHECKPOINTS = 2.0
# Full reductions over more rows would depend on the number of threads.
VALIDATION_BATCH = 32768

Live = Callable[[int, Mapping[str, float]], None]


class TrainingDiverged(UserError):  # noqa: N818 - a state of affairs, as StopIteration
    """The loss is not finite; names the step and the last good checkpoint."""


class Epoch(NamedTuple):
    """One row of the training history; what the losses are, its `Learner` says.

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


class Learner(pl.LightningModule):
    """What is descended, and how the weights are moved.

    Optimisation is manual: what Lightning calls a batch is a block of many optimizer steps, because
    its own work a batch costs as much as a whole step of a network this small.

    Args:
        network: whose weights are learned.
        batch_size: examples an optimizer step.
        total_steps: optimizer steps of the whole training; what the schedule is stretched over.
        learning_rate: the greatest one.
        schedule: how the rate changes, as the function `schedule` names it.
        section: of the configuration, for messages.
    """

    def __init__(
        self, network: Perceptron, batch_size: int, total_steps: int, learning_rate: float, schedule: str, section: str
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.batch_size = batch_size
        self.total_steps = total_steps
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.section = section
        self.train_loss = torch.zeros(())
        self.validation_loss = torch.zeros(())
        self.last_learning_rate = learning_rate

    @abstractmethod
    def step(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Move the weights once; the mean loss of the batch before, `()`."""

    @abstractmethod
    def validate(self, batch: tuple[Tensor, ...]) -> Tensor:
        """The sum of the losses of some validation examples, `()`."""

    def prepare(self, block: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What a block's steps see of it."""
        return block

    def descend(self, loss: Tensor) -> Tensor:
        """One step of the optimizer down a loss, and of a schedule that goes by steps; the loss, cut off.

        Raises:
            TrainingDiverged: it is not finite.
        """
        if not torch.isfinite(loss):
            raise self._diverged(self.global_step + 1, "loss", loss)
        optimizer: LightningOptimizer = self.optimizers()  # type: ignore[assignment]
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, LambdaLR):
            scheduler.step()
        return loss.detach()

    def close_schedule(self) -> None:
        """Note the rate of the step taken last, at the end of an epoch."""
        # The optimizer already holds the next step's.
        self.last_learning_rate = self.learning_rate * self._share(self.global_step - 1)

    def scheduled(self, optimizer: torch.optim.Optimizer) -> tuple[list[torch.optim.Optimizer], list[LambdaLR]]:
        """The optimizer with the schedule, as Lightning wants them."""
        return [optimizer], [LambdaLR(optimizer, self._share)]

    def on_train_epoch_start(self) -> None:
        self.network.train()
        self.train_loss = torch.zeros((), device=self.device)

    def training_step(self, block: tuple[Tensor, ...]) -> None:
        for batch in zip(*(part.split(self.batch_size) for part in self.prepare(block)), strict=True):
            self.train_loss += self.step(batch) * len(batch[0])

    def on_train_epoch_end(self) -> None:
        # Not Lightning's validation loop, whose own work costs as much as three steps, every epoch.
        examples: Examples = self.trainer.datamodule  # type: ignore[attr-defined]
        self.train_loss /= examples.n_shown
        self.close_schedule()
        self.network.eval()
        with torch.no_grad():
            losses = [self.validate(batch) for batch in examples.validation_batches()]
        self.validation_loss = torch.stack(losses).sum() / examples.n_validation
        if not torch.isfinite(self.validation_loss):
            raise self._diverged(self.global_step, "validation loss", self.validation_loss)
        self.log("validation_loss", self.validation_loss, prog_bar=True)

    def _share(self, step: int) -> float:
        return schedule(self.schedule, step / self.total_steps)

    def _diverged(self, step: int, what: str, value: Tensor) -> TrainingDiverged:
        return TrainingDiverged(
            f"training diverged at step {step} (epoch {self.current_epoch + 1}): the {what} is {value.item()}; "
            f"lower {self.section}.learning_rate (now {self.learning_rate:g})"
        )


class Examples(pl.LightningDataModule):
    """Rows of tensors that lie on the training device, handed out in whole batches.

    Args:
        parts: what belongs to an example, `(n, ...)` each; the last `n_validation` rows are for validation.
        batch_size: examples an optimizer step.
        block: steps that are handed out together.
        seed: of the order in which they are shown.
        least_batch: fewest examples an optimizer step can do with. Where the last batch of an epoch
            would be smaller, its examples sit out that epoch.
    """

    def __init__(
        self, parts: Sequence[Tensor], n_validation: int, batch_size: int, block: int, seed: int, least_batch: int = 1
    ) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.n_validation = n_validation
        self.n_training = len(parts[0]) - n_validation
        self.batch_size = min(batch_size, self.n_training)
        self.block = self.batch_size * block
        left_over = self.n_training % self.batch_size
        self.n_shown = self.n_training - (left_over if left_over < least_batch else 0)
        self.seed = seed

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(self.n_shown / self.batch_size)

    def setup(self, stage: str) -> None:
        device = self.trainer.strategy.root_device  # type: ignore[union-attr]
        self.parts = tuple(part.to(device) for part in self.parts)

    def train_dataloader(self) -> "Blocks":
        return Blocks(self)

    def order(self, epoch: int) -> Tensor:
        """The training rows shown in an epoch, in order: a function of (seed, epoch)."""
        generator = torch.Generator().manual_seed(_mixed(self.seed, epoch))
        return torch.randperm(self.n_training, generator=generator)[: self.n_shown].to(self.parts[0].device)

    def validation_batches(self) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(part[self.n_training :].split(VALIDATION_BATCH) for part in self.parts), strict=True)


class Blocks:
    """The training examples of an epoch in blocks of whole batches: no worker processes, nothing
    done per example."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return math.ceil(self.examples.n_shown / self.examples.block)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        trainer: pl.Trainer = self.examples.trainer  # type: ignore[assignment]
        for rows in self.examples.order(trainer.current_epoch).split(self.examples.block):
            yield tuple(part[rows] for part in self.examples.parts)


def fit(
    learner: Learner,
    examples: Examples,
    *,
    max_epochs: int,
    patience: int,
    matmul_precision: str,
    accelerator: str,
    folder: Path,
    live: Live | None = None,
) -> list[Epoch]:
    """Train; resumes by itself where an equal training was killed. The network gets its best weights back.

    Args:
        max_epochs, patience, matmul_precision: see `TrainingSettings`.
        accelerator: "cpu" or "cuda".
        folder: where checkpoints lie, to be removed once the result is kept; named after everything that the
            result depends on (see `key`), so that a checkpoint of another training is never taken up.
        live: called once an epoch with the step and the values worth watching.

    Returns:
        One row an epoch. The network holds the weights of the least validation loss.

    Raises:
        TrainingDiverged: the loss became infinite or NaN; the last good checkpoint is kept.
        SystemExit: 143, asked to terminate; KeyboardInterrupt: Ctrl-C. Both leave a checkpoint behind.
    """
    best, checkpoints = BestAndHistory(live), EpochCheckpoints(folder)
    # Lightning calls them in this order, once the learner has closed its epoch, and early stopping before both.
    callbacks: list[Callback] = [best, checkpoints]
    if patience:
        callbacks.append(EarlyStopping("validation_loss", patience=patience, check_on_train_epoch_end=True))
    if on_terminal := sys.stdout.isatty():
        callbacks.append(RichProgressBar())
    with _quiet(), _matmul_precision(matmul_precision):
        trainer = _Trainer(
            accelerator=accelerator,
            devices=1,
            strategy=SingleDeviceStrategy(device="cuda:0" if accelerator == "cuda" else accelerator),
            max_epochs=max_epochs,
            callbacks=callbacks,
            plugins=[StateFiles(), _alone()],
            # In a SLURM job Lightning takes up what it finds here, and the default is the working folder.
            default_root_dir=folder,
            deterministic=accelerator == "cuda",
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=on_terminal,
            num_sanity_val_steps=0,
        )
        resume = checkpoints.newest(learner)
        try:
            _until_the_end(trainer, learner, examples, resume)
        except TrainingDiverged as diverged:
            raise TrainingDiverged(f"{diverged}; {checkpoints.kept()}") from None
        except Exception as error:
            if resume is None or best.began:
                raise
            raise UserError(f"{resume}: this training cannot go on from there ({error!r}); remove it") from error
    learner.network.load_state_dict(best.weights)
    return best.history


def key(tensors: Iterable[Tensor], about: Sequence[Any], sources: Iterable[str]) -> str:
    """A name for everything that a training's result depends on.

    Args:
        tensors: what it learns from, on the CPU.
        about: the settings and the seed, as JSON can hold them; the versions of torch and Lightning are added.
        sources: the files of its code besides those shared by all.
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    versions = [metadata.version(package) for package in ("torch", "pytorch-lightning")]
    digest.update(json.dumps([*about, *versions], sort_keys=True).encode())
    for source in (*sources, perceptron.__file__, _state.__file__, __file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()[:16]


class BestAndHistory(Checkpoint):
    """Keeps the weights of the least validation loss and one row an epoch; both survive a resume."""

    def __init__(self, live: Live | None) -> None:
        self.live = live
        self.history: list[Epoch] = []
        self.weights: dict[str, Tensor] = {}
        self.least = math.inf
        self.began = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = True  # whatever a checkpoint holds has been taken up by now

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        learner: Learner = pl_module  # type: ignore[assignment]
        row = Epoch(
            step=trainer.global_step,
            epoch=trainer.current_epoch + 1,
            train_loss=learner.train_loss.item(),
            validation_loss=learner.validation_loss.item(),
            learning_rate=learner.last_learning_rate,
        )
        self.history.append(row)
        if row.validation_loss < self.least:
            self.least = row.validation_loss
            self.weights = {name: weight.clone() for name, weight in learner.network.state_dict().items()}
        if self.live is not None:
            values = row._asdict()
            self.live(values.pop("step"), values)

    def state_dict(self) -> dict[str, Any]:
        return {"history": [tuple(row) for row in self.history], "weights": self.weights, "least": self.least}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = [Epoch(*row) for row in state_dict["history"]]
        self.weights, self.least = state_dict["weights"], state_dict["least"]


class EpochCheckpoints(Checkpoint):
    """The whole state of the training at the end of an epoch: the newest file and the one before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saved_at = -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A training that has just decided to stop is not worth saving: resumed, it would go on.
        if trainer.should_stop or time.monotonic() - self.saved_at < SECONDS_BETWEEN_CHECKPOINTS:
            return
        epoch = trainer.current_epoch + 1
        try:
            trainer.save_checkpoint(self.folder / f"epoch-{epoch:08}.ckpt")
        except UserError as error:
            log.warning("no checkpoint of epoch %d: %s; training goes on", epoch, error)
        for old in self._files()[2:]:
            old.unlink(missing_ok=True)
        self.saved_at = time.monotonic()

    def newest(self, learner: Learner) -> Path | None:
        """The newest file that is sound and holds such a learner's weights; others are skipped with a warning."""
        for file in self._files():
            try:
                _check_weights(file, _state.read_state(file), learner)
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
        (state.get("callbacks", {}).get("BestAndHistory", {}).get("weights"), learner.network.state_dict()),
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


class StateFiles(CheckpointIO):
    """Lightning's checkpoints as files without pickle."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        _state.write_state(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return _state.read_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class _Trainer(pl.Trainer):
    """Lightning's trainer as it is written here: the original takes what it is not told from PL_TRAINER_*."""

    __init__ = pl.Trainer.__init__.__wrapped__  # type: ignore[attr-defined]


def _alone() -> LightningEnvironment:
    """One process, whatever scheduler has started it; Lightning would take a part of the work for its share."""
    environment = LightningEnvironment()
    environment.set_global_rank(0)
    return environment


def schedule(name: str, progress: float) -> float:
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


def _until_the_end(trainer: pl.Trainer, learner: Learner, examples: Examples, resume: Path | None) -> None:
    """Fit; a signal ends it the way signals end programs, where Lightning would report success."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(learner, datamodule=examples, ckpt_path=resume)
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as stop:
        # Lightning turns Ctrl-C into exit(1) and leaves the signal ignored.
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from None
    if trainer.received_sigterm:
        raise SystemExit(128 + signal.SIGTERM)


def _mixed(seed: int, epoch: int) -> int:
    """One seed from two, without the collisions of their sum."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "little")


@contextlib.contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    """The precision of float32 matrix products, which torch keeps for the whole process, put back afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's greetings and hints held back, its errors let through."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch in a way that torch 2.13 has deprecated; nobody here can mend it.
            warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
