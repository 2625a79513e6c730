"""Training the proposer through the simulator: no labels, the loss is the miss of what it proposes."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import aimback
from aimback.core.ledger import Counted, Ledger
from aimback.data.identity import identity
from aimback.data.targets import Targets
from aimback.learn.fit import Epoch, Examples, Learner, Live, fit, key
from aimback.learn.proposer import Proposer
from aimback.learn.proposer_settings import HybridSettings
from aimback.solve.point import evaluate
from aimback.solve.rowwise import dot, total
from aimback.tasks.base import Task

# A miss of the whole span, squared: what a proposal without an outcome counts as.
_WORST = 1.0


def train_proposer(
    task: Task,
    targets: Targets,
    settings: HybridSettings,
    ledger: Ledger,
    seed: int,
    accelerator: str,
    dtype: torch.dtype,
    work_dir: Path,
    live: Live | None = None,
) -> tuple[Proposer, list[Epoch], int]:
    """Train a network (target, conditions) -> controls; resumes by itself where an equal training was killed.

    Args:
        targets: to learn from, all valid and within reach; the last `settings.validation_targets` for validation.
        ledger: every simulation and gradient of the training is added to it.
        accelerator: "cpu" or "cuda".
        dtype: what the simulator computes in.
        work_dir: where checkpoints lie, see `train_surrogate`.
        live: called once an epoch with the step and the values worth watching.

    Returns:
        The network with the least validation loss, on the CPU and frozen; one row an epoch; and how many
        proposals had no outcome or no Jacobian while it learned.

    Raises:
        TrainingDiverged: the loss became infinite or NaN; the last good checkpoint is kept.
        SystemExit: 143, asked to terminate; KeyboardInterrupt: Ctrl-C. Both leave a checkpoint behind.
    """
    proposer = Proposer(task, settings.hidden_width, settings.hidden_layers, settings.activation)
    proposer.draw_weights(torch.Generator().manual_seed(seed))
    inputs = proposer.standardise_inputs(targets.targets, targets.conditions)
    proposer.to(getattr(torch, settings.dtype))
    examples = Examples(
        [inputs.to(proposer.input_scale), targets.targets.to(dtype), targets.conditions.to(dtype)],
        settings.validation_targets,
        settings.batch_size,
        settings.batches_a_simulation,
        seed,
    )
    total_steps = settings.max_epochs * examples.steps_an_epoch
    learner = ProposerLearner(proposer, task, ledger, settings, examples.batch_size, total_steps)
    about = [identity(task), dataclasses.asdict(settings), seed, accelerator, str(dtype)]
    # Every file of ours: the simulator is part of what is learned from.
    sources = sorted(str(file) for file in Path(aimback.__file__).parent.rglob("*.py"))
    history = fit(
        learner,
        examples,
        max_epochs=settings.max_epochs,
        patience=settings.patience,
        matmul_precision=settings.matmul_precision,
        accelerator=accelerator,
        folder=work_dir / key((targets.targets, targets.conditions), about, sources),
        live=live,
    )
    return proposer.cpu().eval().requires_grad_(False), history, int(learner.lost)


class ProposerLearner(Learner):
    """The mean squared miss of the proposals, relative to the span of the outcomes.

    A simulator costs much the same for a thousand rows as for a few, so some batches of a training are simulated
    together: the outcome f and its Jacobian J at the proposals u of the network as it then is. Each of their
    optimizer steps descends the squared miss of the linear model f + J (u' - u), which is
    that of the simulator, with its gradient, for the first step, and to first order for those after it.

    A proposal without an outcome (or Jacobian) has no gradient and counts as a miss of the whole span; in the
    validation loss no miss counts more, so that a few far off do not decide which weights are the best.

    Attributes:
        lost: proposals without an outcome or Jacobian so far, `()`.
    """

    network: Proposer
    lost: Tensor

    def __init__(
        self,
        proposer: Proposer,
        task: Task,
        ledger: Ledger,
        settings: HybridSettings,
        batch_size: int,
        total_steps: int,
    ) -> None:
        super().__init__(proposer, batch_size, total_steps, settings.learning_rate, settings.schedule, "hybrid")
        self.settings = settings
        self.simulator = Counted(task, ledger, simulates=True)
        self.ledger = ledger
        self.box = task.box
        self.span = task.outcomes.span
        self.register_buffer("lost", torch.zeros((), dtype=torch.int64))

    def prepare(self, block: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """-> inputs, proposals in the unit cube, relative residual and Jacobian there."""
        inputs, targets, conditions = block
        with torch.no_grad():
            unit = self.network.unit(inputs)
            point = evaluate(self.simulator, self.box, unit.to(targets), conditions, targets, self.span)
        residual, jacobian = point.residual.to(unit), point.jacobian.to(unit)
        known = torch.isfinite(residual).all(-1) & torch.isfinite(jacobian).flatten(1).all(-1)
        self.lost += (~known).sum()
        residual = torch.where(known[:, None], residual, (_WORST / targets.shape[-1]) ** 0.5)
        return inputs, unit, residual, torch.where(known[:, None, None], jacobian, 0.0)

    def step(self, batch: tuple[Tensor, ...]) -> Tensor:
        inputs, unit, residual, jacobian = batch
        moved = self.network.unit(inputs) - unit
        foretold = residual + dot(jacobian, moved[:, None, :])
        return self.descend(total(foretold.square()).mean())

    def validate(self, batch: tuple[Tensor, ...]) -> Tensor:
        inputs, targets, conditions = batch
        outcome = self.simulator(self.box.from_unit(self.network.unit(inputs).to(targets)), conditions)
        squares = total(((outcome - targets) / self.span).square())
        return squares.nan_to_num(nan=_WORST, posinf=_WORST).clamp(max=_WORST).sum()

    def configure_optimizers(self) -> Any:
        settings = self.settings
        # fused: one kernel for all weights; for networks this small it halves the cost of a step.
        adam = torch.optim.Adam(
            self.network.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        return self.scheduled(adam)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ledger"] = dataclasses.asdict(self.ledger)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What a killed training had spent by this epoch's end, so that the count is that of one that never stopped."""
        for name, count in checkpoint["ledger"].items():
            setattr(self.ledger, name, count)
