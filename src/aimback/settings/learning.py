"""What can be set about networks and their training: the schema of conf/surrogate, conf/training and conf/hybrid."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from aimback.core.checks import MOST_ROWS, MOST_STEPS
from aimback.core.errors import UserError
from aimback.core.section import Section
from aimback.data.dataset import CHUNK
from aimback.tasks.base import Task

Activation = Literal["tanh", "silu", "gelu", "softplus", "relu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

_TARGETS, _LEAST_TARGETS = 8192, 2048
_Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]
_Epochs = Annotated[int, Field(ge=0, le=MOST_STEPS)]
_Share = Annotated[float, Field(gt=0, lt=1)]


class Architecture(Section):
    """The shape of a network, from the configuration to the file of its weights.

    Attributes:
        hidden_width, hidden_layers: neurons a hidden layer, and number of hidden layers (0: a linear map).
        activation: smooth ones fit smooth simulators far better than relu.
    """

    hidden_width: int = Field(ge=1, le=65_536)
    hidden_layers: int = Field(ge=0, le=256)
    activation: Activation


class NetworkSettings(Architecture):
    """The surrogate.

    Attributes:
        normalisation: batch puts a batch normalisation (Ioffe and Szegedy 2015) after each hidden linear layer
            while the network is trained. What comes out of the training has none: each is folded into its
            linear layer.
        members: of the ensemble whose mean it is, each trained from weights of its own on the same data; 1 for a single
            network. Five take five trainings; what they bring in rounds is in benchmarks/FIELD.md, "A surrogate that
            learns from its own answers".
    """

    normalisation: Literal["none", "batch"]
    members: int = Field(ge=1, le=100)


class Descent(Section):
    """How the weights of any network are moved, how long, and in which portions the examples are shown.

    Attributes:
        learning_rate: the greatest one; `schedule` says how it changes over the training.
        beta2: memory of adam's and adamw's mean square of the gradient. Their published 0.999
            remembers a thousand steps, which is most of a training as short as these: 0.98 halves the error.
        weight_decay: as the optimizer defines it; 0 for none.
        schedule: cosine falls to zero; one_cycle rises first, then falls to zero; plateau, for a surrogate only, falls
            by a factor whenever the training loss has stopped falling.
        batch_size: examples an optimizer step; the last batch of an epoch may be smaller.
        max_epochs: passes over the training examples.
        patience: stop after this many epochs without a better validation loss; 0 never stops early.
        dtype: what the network computes in while it is trained.
        matmul_precision: of float32 matrix products on hardware that has faster ones: see
            `torch.set_float32_matmul_precision`. It holds for the training alone.
        devices: GPUs, or processes on a CPU, that share every batch. The last bits depend on their number.
    """

    learning_rate: float = Field(gt=0)
    beta2: _Share
    weight_decay: float = Field(ge=0)
    schedule: Literal["constant", "cosine", "one_cycle", "plateau"]
    batch_size: _Rows
    max_epochs: int = Field(ge=1, le=MOST_STEPS)
    patience: _Epochs
    dtype: Literal["float32", "float64"]
    matmul_precision: Literal["highest", "high", "medium"]
    devices: int = Field(ge=1, le=256)


class TrainingSettings(Descent):
    """The training of the surrogate.

    Attributes:
        optimizer: sgd has momentum 0.9. levenberg_marquardt solves for all weights at once, from all examples at
            once: an epoch is one step, and batch_size has no say. For smooth networks of some hundred weights. It
            starts from learning_rate, as the reciprocal of its damping, and goes on by what each step brought.
        plateau_factor: what schedule plateau multiplies the learning rate by.
        plateau_patience: epochs without a better training loss that schedule plateau lets pass before.
        jacobian_weight: what the error of Jacobians weighs beside that of outcomes (Sobolev training, Czarnecki et al.
            2017, arXiv:1706.04859): the mean squared error of the Jacobian of standardised outcomes by standardised
            controls, over examples, outcomes and controls, divided by the mean square of what is to be learned. So a
            constant has an error of 1 in both. Above 0, examples are simulated with their Jacobians; 0 for none.
    """

    optimizer: Literal["adam", "adamw", "sgd", "levenberg_marquardt"]
    plateau_factor: _Share
    plateau_patience: _Epochs
    jacobian_weight: float = Field(ge=0)

    @property
    def goes_by_the_loss(self) -> bool:
        """Whether a rate, or an end, follows from a network's own loss: then no two can be trained side by side."""
        return self.optimizer == "levenberg_marquardt" or self.schedule == "plateau" or self.patience > 0

    @property
    def learns_jacobians(self) -> bool:
        return self.jacobian_weight > 0

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        # Its damping is its schedule.
        if self.optimizer == "levenberg_marquardt" and self.schedule != "constant":
            raise UserError(
                f"schedule: must be constant with training.optimizer: levenberg_marquardt, got {self.schedule!r}"
            )
        if self.optimizer == "levenberg_marquardt" and self.devices > 1:
            raise UserError(f"devices: must be 1 with training.optimizer: levenberg_marquardt, got {self.devices}")
        if self.optimizer == "levenberg_marquardt" and self.learns_jacobians:
            raise UserError(
                f"jacobian_weight: must be 0 with training.optimizer: levenberg_marquardt, got {self.jacobian_weight:g}"
            )
        return self


class HybridSettings(Architecture, Descent):
    """The proposer, its training through the simulator by adam, and what becomes of its proposals.

    Attributes:
        targets: to learn from, each simulated once to be within reach; None for as many as suit the task.
        validation_targets: further ones, by which the best weights are told.
        batches_a_simulation: batches whose proposals go through the simulator together, before the first of
            their steps; 1 simulates anew for every step.
        refine: outside_tolerance leaves a proposal within the task's tolerance as it is, and any other once it
            has come that close; always goes on to the solver's own precision.
    """

    schedule: Literal["constant", "cosine", "one_cycle"]
    targets: int | None = Field(ge=1, le=MOST_ROWS)
    validation_targets: _Rows
    batches_a_simulation: int = Field(ge=1, le=CHUNK)
    refine: Literal["outside_tolerance", "always"]

    def count_targets(self, task: Task) -> int:
        """How many targets are learned from on a task."""
        return self.targets or task.scale_down(_TARGETS, _LEAST_TARGETS)

    @model_validator(mode="after")
    def _check_portion(self) -> Self:
        if (rows := self.batch_size * self.batches_a_simulation) > CHUNK:
            raise UserError(
                f"batches_a_simulation: at most {CHUNK} targets are simulated at once, got {rows}; lower it, or "
                "hybrid.batch_size"
            )
        return self


def check_together(network: NetworkSettings, training: TrainingSettings) -> None:
    """Refuse what a network and its training can only have one without the other.

    Raises:
        UserError: batch normalisation, which mixes the examples, with an optimizer or a loss that needs each one's
            Jacobian, or with examples that are shared among devices.
    """
    if training.optimizer == "levenberg_marquardt" and network.normalisation != "none":
        raise UserError(
            "surrogate.normalisation: must be none with training.optimizer: levenberg_marquardt, "
            f"got {network.normalisation!r}"
        )
    if training.learns_jacobians and network.normalisation != "none":
        raise UserError(
            f"training.jacobian_weight: must be 0 with surrogate.normalisation: {network.normalisation}, "
            f"got {training.jacobian_weight:g}"
        )
    if training.devices > 1 and network.normalisation != "none":
        raise UserError(
            f"training.devices: must be 1 with surrogate.normalisation: {network.normalisation}, got {training.devices}"
        )
