"""What can be set about the hybrid route; the constructor is the schema of conf/hybrid."""

from dataclasses import dataclass

from aimback.core.checks import MOST_ROWS, check_number, check_one_of, check_whole
from aimback.core.errors import UserError
from aimback.data.dataset import CHUNK
from aimback.learn.settings import ACTIVATIONS, DTYPES, MATMUL_PRECISIONS, check_length, check_size

SCHEDULES = ("constant", "cosine", "one_cycle")
REFINE = ("outside_tolerance", "always")


@dataclass(frozen=True)
class HybridSettings:
    """The proposer, its training through the simulator, and what becomes of its proposals.

    Args:
        targets: to learn from, each simulated once to be within reach.
        validation_targets: further ones, by which the best weights are told.
        hidden_width, hidden_layers, activation: see `SurrogateSettings`.
        batch_size: targets an optimizer step.
        batches_a_simulation: batches whose proposals go through the simulator together, before the first of
            their steps; 1 simulates anew for every step.
        max_epochs: passes over the targets.
        patience: stop after this many epochs without a better validation loss; 0 never stops early.
        learning_rate: of Adam, the greatest one; `schedule` says how it changes.
        beta2: Adam's memory of squared gradients, in (0, 1).
        weight_decay: as Adam defines it; 0 for none.
        schedule: one of `SCHEDULES`.
        dtype: one of `DTYPES`; what the network computes in while it is trained.
        matmul_precision: one of `MATMUL_PRECISIONS`, see `TrainingSettings`.
        refine: outside_tolerance leaves a proposal within the task's tolerance as it is, and any other once it
            has come that close; always goes on to the solver's own precision.

    Raises:
        UserError: a value that is not allowed.
    """

    targets: int
    validation_targets: int
    hidden_width: int
    hidden_layers: int
    activation: str
    batch_size: int
    batches_a_simulation: int
    max_epochs: int
    patience: int
    learning_rate: float
    beta2: float
    weight_decay: float
    schedule: str
    dtype: str
    matmul_precision: str
    refine: str

    def __post_init__(self) -> None:
        check_whole(1, MOST_ROWS, targets=self.targets, validation_targets=self.validation_targets)
        check_whole(1, CHUNK, batches_a_simulation=self.batches_a_simulation)
        check_size(self.hidden_width, self.hidden_layers)
        check_length(self.batch_size, self.max_epochs, self.patience)
        check_one_of("activation", self.activation, ACTIVATIONS)
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("beta2", self.beta2, above=0, below=1)
        check_number("weight_decay", self.weight_decay, least=0)
        check_one_of("schedule", self.schedule, SCHEDULES)
        check_one_of("dtype", self.dtype, DTYPES)
        check_one_of("matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        check_one_of("refine", self.refine, REFINE)
        if (rows := self.batch_size * self.batches_a_simulation) > CHUNK:
            raise UserError(
                f"batches_a_simulation: at most {CHUNK} targets are simulated at once, got {rows}; lower it, or "
                "hybrid.batch_size"
            )
