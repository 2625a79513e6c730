"""Training the surrogate with Lightning: whole batches from memory, exact resume, no pickle.

A training is a function of (data set, settings, seed): the order of the examples is a function of
(seed, epoch), no random state is global, and every checkpoint lies at the end of an epoch. So a
training killed at any moment and started again ends at the same bits as one that never stopped.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping, RichProgressBar
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from aimback.dataset import Dataset
from aimback.errors import UserError
from aimback.identity import identity
from aimback.surrogate import checkpoint as _state
from aimback.surrogate import levenberg_marquardt, network, normalisation
from aimback.surrogate.levenberg_marquardt import LevenbergMarquardt
from aimback.surrogate.network import Surrogate
from aimback.surrogate.normalisation import LEAST_BATCH, with_batch_norm, without_batch_norm
from aimback.surrogate.settings import SurrogateSettings, TrainingSettings
from aimback.tasks.base import Task

log = logging.getLogger(__name__)

# Exact resume holds from any epoch's end, so epochs of milliseconds need not be saved one by one.
SECONDS_BETWEEN_CHECKPOINTS = 2.0
# Full reductions over more rows would depend on the number of threads.
_VALIDATION_BATCH = 32768
# Enough to make Lightning's work a block small, few enough for it to notice a signal soon.
_STEPS_A_BLOCK = 64

Live = Callable[[int, Mapping[str, float]], None]


class TrainingDiverged(UserError):  # noqa: N818 - a state of affairs, as StopIteration
    """The loss is not finite; names the step and the last good checkpoint."""


class Epoch(NamedTuple):
    """One row of the training history. Losses are mean squared errors of standardised outcomes.

    Attributes:
        step: optimizer steps taken so far.
        epoch: number of this epoch, from 1.
        train_loss: mean over the epoch, while the weights moved.
        validation_loss: at the end of the epoch.
        learning_rate: of the epoch's last step.

    With batch normalisation the training loss is that of batches normalised by themselves, the validation
    loss that of the network as it comes out of the training.
    """

    step: int
    epoch: int
    train_loss: float
    validation_loss: float
    learning_rate: float


def train_surrogate(
    dataset: Dataset,
    task: Task,
    surrogate_settings: SurrogateSettings,
    training_settings: TrainingSettings,
    seed: int,
    accelerator: str,
    work_dir: Path,
    live: Live | None = None,
) -> tuple[Surrogate, list[Epoch]]:
    """Train a network on a data set; resumes by itself where an equal training was killed.

    Args:
        accelerator: "cpu" or "cuda".
        work_dir: where checkpoints lie while the training lasts, in a folder named after everything
            the result depends on, so that a checkpoint of another training is never taken up.
        live: called once an epoch with the step and the values worth watching.

    Returns:
        The network with the least validation loss, on the CPU and frozen, and one row an epoch.

    Raises:
        TrainingDiverged: the loss became infinite or NaN; the last good checkpoint is kept.
        UserError: batch normalisation of batches of a single example, or too many weights for levenberg_marquardt.
        SystemExit: 143, asked to terminate; KeyboardInterrupt: Ctrl-C. Both leave a checkpoint behind.
    """
    folder = work_dir / _key(dataset, task, surrogate_settings, training_settings, seed, accelerator)
    surrogate = Surrogate.for_dataset(dataset, task, surrogate_settings, torch.Generator().manual_seed(seed))
    surrogate.to(getattr(torch, training_settings.dtype))
    normalised = surrogate_settings.normalisation == "batch"
    if normalised:
        surrogate.layers = with_batch_norm(surrogate.layers)
    if surrogate_settings.optimizer == "levenberg_marquardt":
        training_settings = dataclasses.replace(training_settings, batch_size=dataset.n_training)
    data = SurrogateData(dataset, surrogate, training_settings, seed, LEAST_BATCH if normalised else 1)
    total_steps = training_settings.max_epochs * data.steps_an_epoch
    module = SurrogateModule(surrogate, surrogate_settings, data.batch_size, total_steps)
    best, checkpoints = BestAndHistory(live), EpochCheckpoints(folder)
    # Lightning calls them in this order, once the module has closed its epoch, and early stopping before both.
    callbacks: list[Callback] = [best, checkpoints]
    if training_settings.patience:
        patience = training_settings.patience
        callbacks.append(EarlyStopping("validation_loss", patience=patience, check_on_train_epoch_end=True))
    if on_terminal := sys.stdout.isatty():
        callbacks.append(RichProgressBar())
    with _quiet(), _matmul_precision(training_settings.matmul_precision):
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=training_settings.max_epochs,
            callbacks=callbacks,
            plugins=[StateFiles()],
            deterministic=accelerator == "cuda",
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=on_terminal,
            num_sanity_val_steps=0,
        )
        try:
            _fit(trainer, module, data, checkpoints.newest())
        except TrainingDiverged as diverged:
            raise TrainingDiverged(f"{diverged}; {checkpoints.kept()}") from None
    surrogate.load_state_dict(best.weights)
    if normalised:
        surrogate.layers = without_batch_norm(surrogate.layers)
    shutil.rmtree(folder, ignore_errors=True)
    return surrogate.cpu().eval().requires_grad_(False), best.history


def validation_mse(surrogate: Surrogate, dataset: Dataset) -> float:
    """The mean squared error over the validation examples in the square of the outcome's raw unit.

    1 / (n n_outcomes) times the sum over the n validation rows and over the outcome's dimensions of
    (surrogate - simulator)^2: the unit and the averaging of the published test errors and of r_T. The
    network computes in its own dtype, the difference and the sum are float64.
    """
    dtype = surrogate.outcome_mean.dtype
    part = slice(dataset.n_training, None)
    with torch.no_grad():
        outcomes = surrogate(dataset.controls[part].to(dtype), dataset.conditions[part].to(dtype))
    squares = (outcomes.double() - dataset.outcomes[part]).square()
    total = torch.stack([some.sum() for some in squares.split(_VALIDATION_BATCH)]).sum()
    return float(total.item() / squares.numel())


class SurrogateModule(pl.LightningModule):
    """The mean squared error of standardised outcomes, and how the weights are moved.

    Optimisation is manual: what Lightning calls a batch is a block of many optimizer steps, because
    its own work a batch costs as much as a whole step of a network this small.

    Args:
        batch_size: examples an optimizer step.
        total_steps: optimizer steps of the whole training; what the schedule is stretched over.
    """

    def __init__(self, surrogate: Surrogate, settings: SurrogateSettings, batch_size: int, total_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.surrogate = surrogate
        self.settings = settings
        self.batch_size = batch_size
        self.total_steps = total_steps
        self.train_loss = torch.zeros(())
        self.validation_loss = torch.zeros(())
        self.last_learning_rate = settings.learning_rate

    def on_train_epoch_start(self) -> None:
        self.surrogate.train()
        self.train_loss = torch.zeros((), device=self.device)

    def training_step(self, block: tuple[Tensor, Tensor]) -> None:
        total = self.train_loss
        for inputs, outcomes in zip(*(part.split(self.batch_size) for part in block), strict=True):
            total += self._step(inputs, outcomes) * len(inputs)

    def _step(self, inputs: Tensor, outcomes: Tensor) -> Tensor:
        """Move the weights once; the mean squared error before."""
        optimizer: LightningOptimizer = self.optimizers()  # type: ignore[assignment]
        if self.settings.optimizer == "levenberg_marquardt":
            error: Tensor = optimizer.step(inputs=inputs, outcomes=outcomes)
            return error
        loss = F.mse_loss(self.surrogate.layers(inputs), outcomes)
        if not torch.isfinite(loss):
            raise self._diverged(self.global_step + 1, "loss", loss)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, LambdaLR):
            scheduler.step()
        return loss.detach()

    def _diverged(self, step: int, what: str, value: Tensor) -> TrainingDiverged:
        return TrainingDiverged(
            f"training diverged at step {step} (epoch {self.current_epoch + 1}): the {what} is {value.item()}; "
            f"lower surrogate.learning_rate (now {self.settings.learning_rate:g})"
        )

    def on_train_epoch_end(self) -> None:
        # Not Lightning's validation loop, whose own work costs as much as three steps, every epoch.
        data: SurrogateData = self.trainer.datamodule  # type: ignore[attr-defined]
        self.train_loss /= data.n_shown
        self._end_of_schedule()
        self.surrogate.eval()
        with torch.no_grad():
            losses = [
                F.mse_loss(self.surrogate.layers(inputs), outcomes, reduction="sum")
                for inputs, outcomes in data.validation_batches()
            ]
        self.validation_loss = torch.stack(losses).sum() / (data.n_validation * self.surrogate.outcome_mean.numel())
        if not torch.isfinite(self.validation_loss):
            raise self._diverged(self.global_step, "validation loss", self.validation_loss)
        self.log("validation_loss", self.validation_loss, prog_bar=True)

    def _end_of_schedule(self) -> None:
        """Note the rate of the step taken last, and let a schedule that goes by epochs set the next one's."""
        scheduler = self.lr_schedulers()
        if isinstance(optimizer := self.optimizers(use_pl_optimizer=False), LevenbergMarquardt):
            self.last_learning_rate = optimizer.learning_rate
            self.trainer.should_stop |= optimizer.stalled
        elif isinstance(scheduler, ReduceLROnPlateau):
            self.last_learning_rate = scheduler.optimizer.param_groups[0]["lr"]
            scheduler.step(self.train_loss.item())
        else:
            # The optimizer already holds the next step's.
            share = schedule(self.settings.schedule, (self.global_step - 1) / self.total_steps)
            self.last_learning_rate = self.settings.learning_rate * share

    def configure_optimizers(self) -> Any:
        settings = self.settings
        weights = self.surrogate.parameters()
        rate, decay, betas = settings.learning_rate, settings.weight_decay, (0.9, settings.beta2)
        # fused: one kernel for all weights; for networks this small it halves the cost of a step.
        optimizers: dict[str, Callable[[], torch.optim.Optimizer]] = {
            "adam": lambda: torch.optim.Adam(weights, lr=rate, betas=betas, weight_decay=decay, fused=True),
            "adamw": lambda: torch.optim.AdamW(weights, lr=rate, betas=betas, weight_decay=decay, fused=True),
            "sgd": lambda: torch.optim.SGD(weights, lr=rate, momentum=0.9, weight_decay=decay, fused=True),
        }
        if settings.optimizer == "levenberg_marquardt":
            return LevenbergMarquardt(self.surrogate.layers, rate, decay)
        optimizer = optimizers[settings.optimizer]()
        if settings.schedule == "plateau":
            # By the training loss, as Ren, Padilla and Malof (2020) do.
            factor, patience = settings.plateau_factor, settings.plateau_patience
            return [optimizer], [ReduceLROnPlateau(optimizer, factor=factor, patience=patience, threshold=1e-4)]
        return [optimizer], [LambdaLR(optimizer, lambda step: schedule(settings.schedule, step / self.total_steps))]


class SurrogateData(pl.LightningDataModule):
    """A data set as standardised tensors that lie on the training device, handed out in whole batches.

    Args:
        least_batch: fewest examples an optimizer step can do with. Where the last batch of an epoch
            would be smaller, its examples sit out that epoch.

    Raises:
        UserError: no batch is that large.
    """

    def __init__(
        self, dataset: Dataset, surrogate: Surrogate, settings: TrainingSettings, seed: int, least_batch: int = 1
    ) -> None:
        super().__init__()
        dtype = getattr(torch, settings.dtype)
        # Once, and in the data's float64, not once a step.
        self.inputs = surrogate.standardise_inputs(dataset.controls, dataset.conditions).to(dtype)
        self.outcomes = surrogate.standardise_outcomes(dataset.outcomes).to(dtype)
        self.n_training, self.n_validation = dataset.n_training, dataset.n_validation
        self.batch_size = min(settings.batch_size, self.n_training)
        if self.batch_size < least_batch:
            raise UserError(
                f"surrogate.normalisation: batch needs batches of at least {least_batch} examples, got "
                f"training.batch_size {settings.batch_size} and {self.n_training} training examples"
            )
        left_over = self.n_training % self.batch_size
        self.n_shown = self.n_training - (left_over if left_over < least_batch else 0)
        self.seed = seed

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(self.n_shown / self.batch_size)

    def setup(self, stage: str) -> None:
        device = self.trainer.strategy.root_device  # type: ignore[union-attr]
        self.inputs, self.outcomes = self.inputs.to(device), self.outcomes.to(device)

    def train_dataloader(self) -> "Blocks":
        return Blocks(self)

    def block(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised inputs and outcomes of some training rows."""
        return self.inputs[rows], self.outcomes[rows]

    def order(self, epoch: int) -> Tensor:
        """The training rows shown in an epoch, in order: a function of (seed, epoch)."""
        generator = torch.Generator().manual_seed(_mixed(self.seed, epoch))
        return torch.randperm(self.n_training, generator=generator)[: self.n_shown].to(self.inputs.device)

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, outcomes = self.inputs[self.n_training :], self.outcomes[self.n_training :]
        return zip(inputs.split(_VALIDATION_BATCH), outcomes.split(_VALIDATION_BATCH), strict=True)


class Blocks:
    """The training examples of an epoch in blocks of whole batches: no worker processes, nothing
    done per example."""

    def __init__(self, data: SurrogateData) -> None:
        self.data = data
        self.size = data.batch_size * _STEPS_A_BLOCK

    def __len__(self) -> int:
        return math.ceil(self.data.n_shown / self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        trainer: pl.Trainer = self.data.trainer  # type: ignore[assignment]
        for rows in self.data.order(trainer.current_epoch).split(self.size):
            yield self.data.block(rows)


class BestAndHistory(Checkpoint):
    """Keeps the weights of the least validation loss and one row an epoch; both survive a resume."""

    def __init__(self, live: Live | None) -> None:
        self.live = live
        self.history: list[Epoch] = []
        self.weights: dict[str, Tensor] = {}
        self.least = math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module: SurrogateModule = pl_module  # type: ignore[assignment]
        row = Epoch(
            step=trainer.global_step,
            epoch=trainer.current_epoch + 1,
            train_loss=module.train_loss.item(),
            validation_loss=module.validation_loss.item(),
            learning_rate=module.last_learning_rate,
        )
        self.history.append(row)
        if row.validation_loss < self.least:
            self.least = row.validation_loss
            self.weights = {name: weight.clone() for name, weight in module.surrogate.state_dict().items()}
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

    def newest(self) -> Path | None:
        """The newest file that is sound; a damaged one is skipped with a warning."""
        for file in self._files():
            try:
                _state.read_state(file)
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


class StateFiles(CheckpointIO):
    """Lightning's checkpoints as files without pickle."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        _state.write_state(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return _state.read_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


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


def _fit(trainer: pl.Trainer, module: SurrogateModule, data: SurrogateData, resume: Path | None) -> None:
    """Fit; a signal ends it the way signals end programs, where Lightning would report success."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume)
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


def _key(
    dataset: Dataset, task: Task, surrogate: SurrogateSettings, training: TrainingSettings, seed: int, accelerator: str
) -> str:
    """A name for everything that the result depends on: data, settings, seed, device and code."""
    digest = hashlib.sha256()
    for tensor in (dataset.controls, dataset.conditions, dataset.outcomes):
        digest.update(tensor.numpy().tobytes())
    settings = [dataclasses.asdict(surrogate), dataclasses.asdict(training)]
    versions = [metadata.version(package) for package in ("torch", "pytorch-lightning")]
    about = [identity(task), dataset.n_validation, settings, seed, accelerator, *versions]
    digest.update(json.dumps(about, sort_keys=True).encode())
    for source in (network.__file__, levenberg_marquardt.__file__, normalisation.__file__, _state.__file__, __file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()[:16]


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
