"""What can be set about a surrogate and its training; the constructors are the schema of conf/."""

from dataclasses import dataclass

from aimback.core.checks import MOST_STEPS, check_number, check_one_of, check_whole
from aimback.core.errors import UserError
from aimback.learn.settings import ACTIVATIONS, DTYPES, MATMUL_PRECISIONS, check_length, check_size

OPTIMIZERS = ("adam", "adamw", "sgd", "levenberg_marquardt")
SCHEDULES = ("constant", "cosine", "one_cycle", "plateau")
NORMALISATIONS = ("none", "batch")


@dataclass(frozen=True)
class SurrogateSettings:
    """The network and how its weights are moved.

    Args:
        hidden_width, hidden_layers: neurons a hidden layer, and number of hidden layers (0: a linear map).
        activation: one of `ACTIVATIONS`. Smooth ones fit smooth simulators far better than relu.
        optimizer: one of `OPTIMIZERS` (sgd with momentum 0.9). levenberg_marquardt solves for all weights at once,
            from all examples at once: an epoch is one step. For smooth networks of some hundred weights.
        learning_rate: the greatest one; `schedule` says how it changes over the training. levenberg_marquardt
            starts from it, as the reciprocal of its damping, and goes on by what each step brought.
        beta2: memory of adam's and adamw's mean square of the gradient, in (0, 1). Their published 0.999
            remembers a thousand steps, which is most of a training as short as these: 0.98 halves the error.
        weight_decay: as the optimizer defines it; 0 for none.
        schedule: one of `SCHEDULES`; cosine falls to zero, one_cycle rises first, then falls to zero, plateau
            falls by a factor whenever the training loss has stopped to fall.
        plateau_factor: in (0, 1), what schedule plateau multiplies the learning rate by.
        plateau_patience: epochs without a better training loss that schedule plateau lets pass before.
        normalisation: one of `NORMALISATIONS`; batch puts a batch normalisation (Ioffe and Szegedy 2015) after
            each hidden linear layer while the network is trained. What comes out of the training has none:
            each is folded into its linear layer.

    Raises:
        UserError: a value that is not allowed.
    """

    hidden_width: int = 32
    hidden_layers: int = 3
    activation: str = "gelu"
    optimizer: str = "adam"
    learning_rate: float = 3e-2
    beta2: float = 0.98
    weight_decay: float = 0.0
    schedule: str = "one_cycle"
    plateau_factor: float = 0.5
    plateau_patience: int = 10
    normalisation: str = "none"

    def __post_init__(self) -> None:
        check_size(self.hidden_width, self.hidden_layers)
        check_one_of("activation", self.activation, ACTIVATIONS)
        check_one_of("optimizer", self.optimizer, OPTIMIZERS)
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("beta2", self.beta2, above=0, below=1)
        check_number("weight_decay", self.weight_decay, least=0)
        check_one_of("schedule", self.schedule, SCHEDULES)
        check_number("plateau_factor", self.plateau_factor, above=0, below=1)
        check_whole(0, MOST_STEPS, plateau_patience=self.plateau_patience)
        check_one_of("normalisation", self.normalisation, NORMALISATIONS)
        if self.optimizer == "levenberg_marquardt":
            # Its damping is its schedule, and a batch norm would mix the examples: no row of a Jacobian each.
            for key, allowed in (("schedule", "constant"), ("normalisation", "none")):
                if getattr(self, key) != allowed:
                    raise UserError(
                        f"{key}: must be {allowed} with surrogate.optimizer: levenberg_marquardt, "
                        f"got {getattr(self, key)!r}"
                    )


@dataclass(frozen=True)
class TrainingSettings:
    """How long and in which portions the examples are shown.

    Args:
        batch_size: examples an optimizer step; the last batch of an epoch may be smaller. Not for optimizer
            levenberg_marquardt, whose batch is the epoch.
        max_epochs: passes over the training examples.
        patience: stop after this many epochs without a better validation loss; 0 never stops early.
        dtype: one of `DTYPES`; what the network computes in while it is trained.
        matmul_precision: one of `MATMUL_PRECISIONS`, of float32 matrix products on hardware that has faster ones:
            see `torch.set_float32_matmul_precision`. It holds for the training alone.

    Raises:
        UserError: a value that is not allowed.
    """

    batch_size: int = 1024
    max_epochs: int = 200
    patience: int = 0
    dtype: str = "float32"
    matmul_precision: str = "highest"

    def __post_init__(self) -> None:
        check_length(self.batch_size, self.max_epochs, self.patience)
        check_one_of("dtype", self.dtype, DTYPES)
        check_one_of("matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
