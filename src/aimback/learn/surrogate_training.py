"""Training the surrogate: the mean squared error on a data set of simulated examples."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau

from aimback.core.errors import UserError
from aimback.data.dataset import Dataset
from aimback.data.identity import identity
from aimback.learn import normalisation
from aimback.learn import second_order as levenberg_marquardt
from aimback.learn import surrogate as network
from aimback.learn.fit import VALIDATION_BATCH, Epoch, Examples, Learner, Live, fit, key
from aimback.learn.normalisation import LEAST_BATCH, with_batch_norm, without_batch_norm
from aimback.learn.second_order import LevenbergMarquardt
from aimback.learn.surrogate import Surrogate
from aimback.learn.surrogate_settings import SurrogateSettings, TrainingSettings
from aimback.tasks.base import Task

# Enough to make Lightning's work a block small, few enough for it to notice a signal soon.
_STEPS_A_BLOCK = 64


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
        work_dir: where checkpoints lie until it is removed, in a folder named after everything the
            result depends on, so that a checkpoint of another training is never taken up.
        live: called once an epoch with the step and the values worth watching.

    Returns:
        The network with the least validation loss, on the CPU and frozen, and one row an epoch.

    Raises:
        TrainingDiverged: the loss became infinite or NaN; the last good checkpoint is kept.
        UserError: batch normalisation of batches of a single example, or too many weights for levenberg_marquardt.
        SystemExit: 143, asked to terminate; KeyboardInterrupt: Ctrl-C. Both leave a checkpoint behind.
    """
    surrogate = Surrogate.for_dataset(dataset, task, surrogate_settings, torch.Generator().manual_seed(seed))
    surrogate.to(getattr(torch, training_settings.dtype))
    normalised = surrogate_settings.normalisation == "batch"
    if normalised:
        surrogate.layers = with_batch_norm(surrogate.layers)
    all_at_once = surrogate_settings.optimizer == "levenberg_marquardt"
    examples = _examples(
        dataset,
        surrogate,
        dataset.n_training if all_at_once else training_settings.batch_size,
        seed,
        LEAST_BATCH if normalised else 1,
    )
    total_steps = training_settings.max_epochs * examples.steps_an_epoch
    history = fit(
        SurrogateLearner(surrogate, surrogate_settings, examples.batch_size, total_steps),
        examples,
        max_epochs=training_settings.max_epochs,
        patience=training_settings.patience,
        matmul_precision=training_settings.matmul_precision,
        accelerator=accelerator,
        folder=work_dir / _key(dataset, task, surrogate_settings, training_settings, seed, accelerator),
        live=live,
    )
    if normalised:
        surrogate.layers = without_batch_norm(surrogate.layers)
    return surrogate.cpu().eval().requires_grad_(False), history


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
    total = torch.stack([some.sum() for some in squares.split(VALIDATION_BATCH)]).sum()
    return float(total.item() / squares.numel())


class SurrogateLearner(Learner):
    """The mean squared error of standardised outcomes.

    With batch normalisation the training loss is that of batches normalised by themselves, the validation
    loss that of the network as it comes out of the training.
    """

    network: Surrogate

    def __init__(self, surrogate: Surrogate, settings: SurrogateSettings, batch_size: int, total_steps: int) -> None:
        super().__init__(surrogate, batch_size, total_steps, settings.learning_rate, settings.schedule, "surrogate")
        self.settings = settings

    def step(self, batch: tuple[Tensor, ...]) -> Tensor:
        inputs, outcomes = batch
        if self.settings.optimizer == "levenberg_marquardt":
            optimizer: LightningOptimizer = self.optimizers()  # type: ignore[assignment]
            error: Tensor = optimizer.step(inputs=inputs, outcomes=outcomes)
            return error
        return self.descend(F.mse_loss(self.network.layers(inputs), outcomes))

    def validate(self, batch: tuple[Tensor, ...]) -> Tensor:
        inputs, outcomes = batch
        return F.mse_loss(self.network.layers(inputs), outcomes, reduction="sum") / outcomes.shape[1]

    def close_schedule(self) -> None:
        """As above; a schedule that goes by epochs sets the next one's rate."""
        scheduler = self.lr_schedulers()
        if isinstance(optimizer := self.optimizers(use_pl_optimizer=False), LevenbergMarquardt):
            self.last_learning_rate = optimizer.learning_rate
            self.trainer.should_stop |= optimizer.stalled
        elif isinstance(scheduler, ReduceLROnPlateau):
            self.last_learning_rate = scheduler.optimizer.param_groups[0]["lr"]
            scheduler.step(self.train_loss.item())
        else:
            super().close_schedule()

    def configure_optimizers(self) -> Any:
        settings = self.settings
        weights = self.network.parameters()
        rate, decay, betas = settings.learning_rate, settings.weight_decay, (0.9, settings.beta2)
        # fused: one kernel for all weights; for networks this small it halves the cost of a step.
        optimizers: dict[str, Callable[[], torch.optim.Optimizer]] = {
            "adam": lambda: torch.optim.Adam(weights, lr=rate, betas=betas, weight_decay=decay, fused=True),
            "adamw": lambda: torch.optim.AdamW(weights, lr=rate, betas=betas, weight_decay=decay, fused=True),
            "sgd": lambda: torch.optim.SGD(weights, lr=rate, momentum=0.9, weight_decay=decay, fused=True),
        }
        if settings.optimizer == "levenberg_marquardt":
            return LevenbergMarquardt(self.network.layers, rate, decay)
        optimizer = optimizers[settings.optimizer]()
        if settings.schedule == "plateau":
            # By the training loss, as Ren, Padilla and Malof (2020) do.
            factor, patience = settings.plateau_factor, settings.plateau_patience
            return [optimizer], [ReduceLROnPlateau(optimizer, factor=factor, patience=patience, threshold=1e-4)]
        return self.scheduled(optimizer)


def _examples(dataset: Dataset, surrogate: Surrogate, batch_size: int, seed: int, least_batch: int) -> Examples:
    """A data set as standardised inputs and outcomes.

    Raises:
        UserError: no batch is as large as the least that an optimizer step can do with.
    """
    if min(batch_size, dataset.n_training) < least_batch:
        raise UserError(
            f"surrogate.normalisation: batch needs batches of at least {least_batch} examples, got "
            f"training.batch_size {batch_size} and {dataset.n_training} training examples"
        )
    # Once, and in the data's float64, not once a step.
    inputs = surrogate.standardise_inputs(dataset.controls, dataset.conditions)
    parts = [
        part.to(surrogate.input_scale.dtype) for part in (inputs, surrogate.standardise_outcomes(dataset.outcomes))
    ]
    return Examples(parts, dataset.n_validation, batch_size, _STEPS_A_BLOCK, seed, least_batch)


def _key(
    dataset: Dataset, task: Task, surrogate: SurrogateSettings, training: TrainingSettings, seed: int, accelerator: str
) -> str:
    settings = [dataclasses.asdict(surrogate), dataclasses.asdict(training)]
    return key(
        (dataset.controls, dataset.conditions, dataset.outcomes),
        [identity(task), dataset.n_validation, settings, seed, accelerator],
        (network.__file__, levenberg_marquardt.__file__, normalisation.__file__, __file__),
    )
