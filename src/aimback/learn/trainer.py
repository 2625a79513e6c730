"""Training with Lightning: whole batches from memory, exact resume, no pickle.

A training is a function of (examples, settings, seed): the order of the examples is a function of
(seed, epoch), no random state is global, and every checkpoint lies at the end of an epoch. So a
training killed at any moment and started again ends at the same bits as one that never stopped.
"""

import contextlib
import hashlib
import json
import logging
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.callbacks import Callback, EarlyStopping, RichProgressBar
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

import aimback
from aimback.core.errors import UserError
from aimback.learn.callbacks import BestAndHistory, Epoch, EpochCheckpoints, Live
from aimback.learn.checkpoint import StateFiles
from aimback.learn.examples import Examples
from aimback.learn.learner import Learner, TrainingDiverged
from aimback.learn.ranks import Joint, Rank, join_ranks, start_ranks
from aimback.settings.learning import Descent
from aimback.simulators.reasons import describe_error


def fit(
    learner: Learner,
    examples: Examples,
    settings: Descent,
    accelerator: str,
    folder: Path,
    live: Live | None = None,
    watched: int = 1,
) -> list[list[Epoch]]:
    """Train; resumes by itself where an equal training was killed. The networks get their best weights back.

    Args:
        accelerator: "cpu" or "cuda".
        folder: where checkpoints lie, to be removed once the result is kept; named after everything that the
            result depends on (see `name_training`), so that a checkpoint of another training is never taken up.
        live: called once an epoch with the step and the values worth watching.
        watched: of the first so many networks, their mean.

    Returns:
        For each network one row an epoch; it holds the weights of the least validation loss.

    Raises:
        TrainingDiverged: a loss became infinite or NaN; the last good checkpoint is kept.
        UserError: one of several devices has failed.
        SystemExit: 143, asked to terminate; KeyboardInterrupt: Ctrl-C. Both leave a checkpoint behind.
    """
    work = learner, examples, settings, accelerator, folder, EpochCheckpoints(folder).newest(learner)
    several = settings.devices > 1
    with start_ranks(settings.devices, accelerator, work, learner.section) if several else contextlib.nullcontext():
        return _fit_as(0, *work, live, watched)


def take_part(rank: int) -> None:
    """Train as a rank after the first, in a process of `start_ranks`."""
    try:
        _fit_as(rank, *join_ranks(rank))
    except Exception as error:  # noqa: BLE001 - the first rank tells of it
        sys.exit(describe_error(error))


def _fit_as(
    rank: int,
    learner: Learner,
    examples: Examples,
    settings: Descent,
    accelerator: str,
    folder: Path,
    resume: Path | None,
    live: Live | None = None,
    watched: int = 1,
) -> list[list[Epoch]]:
    """Train on this rank's share of every batch: all do the same, and the first alone writes and tells of it."""
    best, checkpoints = BestAndHistory(len(learner.networks), live, watched), EpochCheckpoints(folder)
    # Lightning calls them in this order, once the learner has closed its epoch, and early stopping before both.
    callbacks: list[Callback] = [best, checkpoints]
    if settings.patience:
        callbacks.append(EarlyStopping("validation_loss", patience=settings.patience, check_on_train_epoch_end=True))
    if sys.stdout.isatty():
        callbacks.append(RichProgressBar())
    with _quiet(), _matmul_precision(settings.matmul_precision):
        trainer = _make_trainer(rank, settings, accelerator, callbacks, folder)
        try:
            _fit_to_the_end(trainer, learner, examples, resume)
        except TrainingDiverged as diverged:
            raise TrainingDiverged(f"{diverged}; {checkpoints.kept()}") from None
        except Exception as error:
            if resume is None or best.began:
                raise
            raise UserError(f"{resume}: this training cannot go on from there ({error!r}); remove it") from error
    learner.networks.load_state_dict(best.weights)
    return best.histories


def name_training(tensors: Iterable[Tensor], about: Sequence[Any]) -> str:
    """A name for everything that a training's result depends on.

    Args:
        tensors: what it learns from, on the CPU.
        about: the settings and the seed, as JSON can hold them. The versions of torch and Lightning are added, and
            every file of ours: a simulator may be part of what is learned from.
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    versions = [metadata.version(package) for package in ("torch", "pytorch-lightning")]
    digest.update(json.dumps([*about, *versions], sort_keys=True).encode())
    for source in sorted(Path(aimback.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


class _Trainer(pl.Trainer):
    """Lightning's trainer as it is written here: the original takes what it is not told from PL_TRAINER_*."""

    __init__ = pl.Trainer.__init__.__wrapped__  # type: ignore[attr-defined]


def _make_trainer(
    rank: int, settings: Descent, accelerator: str, callbacks: list[Callback], folder: Path
) -> pl.Trainer:
    """All that Lightning is told. Only epochs and devices are settings: the rest would change what is promised."""
    alone = SingleDeviceStrategy(device="cuda:0" if accelerator == "cuda" else accelerator)
    trainer: pl.Trainer = _Trainer(
        accelerator=accelerator,
        devices=settings.devices,
        strategy=Joint() if settings.devices > 1 else alone,
        use_distributed_sampler=False,  # every rank is handed the whole batch, and takes its share
        max_epochs=settings.max_epochs,
        callbacks=callbacks,
        # This rank, whatever scheduler has started it; Lightning would take a part of the work for its share.
        plugins=[StateFiles(), Rank(rank)],
        # In a SLURM job Lightning takes up what it finds here, and the default is the working folder.
        default_root_dir=folder,
        deterministic=accelerator == "cuda",
        inference_mode=False,  # a simulator may differentiate while it validates a proposer
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
        num_sanity_val_steps=0,
    )
    if settings.devices > 1:  # Lightning's handler of SIGTERM would talk to ranks that are busy with something else
        vars(trainer._signal_connector)["register_signal_handlers"] = lambda: None
    return trainer


def _fit_to_the_end(trainer: pl.Trainer, learner: Learner, examples: Examples, resume: Path | None) -> None:
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
            # It advises worker processes, for examples that already lie in memory.
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            # torch 2.13 has another name for it, which torch 2.6 does not know.
            warnings.filterwarnings("ignore", message=".broadcast_buffers. is deprecated")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
