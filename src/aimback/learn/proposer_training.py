"""Training the proposer through the simulator: no labels, the loss is the miss of what it proposes."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, distributed
from torch.optim.lr_scheduler import LambdaLR

from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem
from aimback.data.identity import identify
from aimback.data.targets import Targets
from aimback.learn.callbacks import Epoch, Live
from aimback.learn.examples import Examples
from aimback.learn.learner import Learner
from aimback.learn.proposer import Proposer
from aimback.learn.trainer import fit, name_training
from aimback.settings.learning import HybridSettings
from aimback.solve.look import Look, compile_look, make_look
from aimback.solve.program import Program
from aimback.solve.rowwise import dot, total
from aimback.solve.step import Iteration
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
    compiler: Callable[[Iteration], Program] | None = None,
) -> tuple[Proposer, list[Epoch], int]:
    """Train a network (target, conditions) -> controls; resumes by itself where an equal training was killed.

    Args:
        targets: to learn from, all valid and within reach; the last `settings.validation_targets` for validation.
        ledger: every simulation and gradient of the training is added to it.
        accelerator: "cpu" or "cuda".
        dtype: what the simulator computes in.
        work_dir: where checkpoints lie, see `train_surrogates`.
        live: called once an epoch with the step and the values worth watching.
        compiler: makes a program of the simulator and its Jacobian, see `compile_look`; None leaves them to the
            interpreter.

    Returns:
        The network with the least validation loss, on the CPU and frozen; one row an epoch; and how many
        proposals had no outcome or no Jacobian while it learned.

    Raises:
        TrainingDiverged: the loss became infinite or NaN; the last good checkpoint is kept.
        NotCompilable: a compiler is given and cannot do it; nothing has begun then.
        SystemExit: 143, asked to terminate; KeyboardInterrupt: Ctrl-C. Both leave a checkpoint behind.
    """
    proposer = Proposer(task, settings)
    proposer.draw_weights(torch.Generator().manual_seed(seed))
    inputs = proposer.standardise_inputs(targets.targets, targets.conditions)
    proposer.to(getattr(torch, settings.dtype))
    wanted, given = targets.targets.to(dtype), targets.conditions.to(dtype)
    look = None
    if compiler is not None:
        target, condition = wanted[:1].to(accelerator), given[:1].to(accelerator)
        start = target.new_zeros(1, 1, len(task.box))
        problem = InverseProblem(target, condition, task.box, task.distance, start)
        look = compile_look(Counted(task, ledger, simulates=True), problem, compiler)
    examples = Examples(
        [[inputs.to(proposer.input_scale), wanted, given]],
        [seed],
        settings.validation_targets,
        settings.batch_size,
        portion=settings.batches_a_simulation,
        device=accelerator,
    )
    total_steps = settings.max_epochs * examples.steps_an_epoch
    learner = ProposerLearner(proposer, task, ledger, settings, examples.batch_size, total_steps, look)
    about = [identify(task), settings.model_dump(), seed, accelerator, str(dtype), compiler is not None]
    folder = work_dir / name_training((targets.targets, targets.conditions), about)
    (history,) = fit(learner, examples, settings, accelerator, folder, live)
    return proposer.cpu().eval().requires_grad_(False), history, int(learner.lost)


class ProposerLearner(Learner):
    """The mean over proposals of the loss that solvers descend, the sum of squared residuals; see `Distance`.

    Its steps are taken by hand, because one simulation serves several of them.
    A simulator costs much the same for a thousand rows as for a few, so some batches of a training are simulated
    together: the outcome f and its Jacobian J at the proposals u of the network as it then is. Each of their
    optimizer steps descends the loss of the linear model f + J (u' - u), which is
    that of the simulator, with its gradient, for the first step, and to first order for those after it.

    A proposal without an outcome (or Jacobian) has no gradient and counts as a miss of the whole span; in the
    validation loss no miss counts more, so that a few far off do not decide which weights are the best.

    Attributes:
        lost: proposals without an outcome or Jacobian so far, `()`.
    """

    lost: Tensor

    def __init__(
        self,
        proposer: Proposer,
        task: Task,
        ledger: Ledger,
        settings: HybridSettings,
        batch_size: int,
        total_steps: int,
        look: Look | None = None,
    ) -> None:
        super().__init__([proposer], settings, total_steps, "hybrid")
        self.automatic_optimization = False
        self.unit = proposer.unit
        self.batch_size = batch_size
        self.simulator = Counted(task, ledger, simulates=True)
        self.ledger = ledger
        self.box = task.box
        self.scales = task.distance.scales
        self.look = look or make_look(self.simulator, task.box, task.distance)
        self.register_buffer("lost", torch.zeros((), dtype=torch.int64))

    def training_step(self, portions: Sequence[Sequence[Tensor]]) -> None:
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer) and isinstance(scheduler, LambdaLR)
        batches = self.take_shares(list(zip(*(part.split(self.batch_size) for part in portions[0]), strict=True)))
        parts = self.propose(*map(torch.cat, zip(*batches, strict=True)))
        rows = [len(batch[0]) for batch in batches]
        for batch in zip(*(part.split(rows) for part in parts), strict=True):
            loss = self.note_loss(self.foretell_loss(*batch)[None], len(batch[0]))
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            scheduler.step()

    def validation_step(self, batches: Sequence[Sequence[Tensor]]) -> None:
        ((inputs, targets, conditions),) = self.take_shares(batches)
        outcome = self.simulator(self.box.from_unit(self.unit(inputs).to(targets)), conditions)
        squares = total(((outcome - targets) / self.scales.to(targets)).square())
        worst = squares.nan_to_num(nan=_WORST, posinf=_WORST).clamp(max=_WORST)
        self.note_validation(worst.sum()[None], len(inputs))

    def on_train_start(self) -> None:
        self._note_spent(self._count_spent())

    def on_train_epoch_end(self) -> None:
        spent = self._count_spent()
        if self.settings.devices > 1:
            distributed.all_reduce(spent)
        self._note_spent(spent)

    def configure_optimizers(self) -> Any:
        adam = self.make_optimizer("adam")
        return [adam], [self.make_schedule(adam)]

    @torch.no_grad()
    def propose(self, inputs: Tensor, targets: Tensor, conditions: Tensor) -> tuple[Tensor, ...]:
        """-> inputs, proposals in the unit cube, relative residual and Jacobian there."""
        unit = self.unit(inputs)
        point = self.look(unit.to(targets), conditions, targets)
        residual, jacobian = point.residual.to(unit), point.jacobian.to(unit)
        known = torch.isfinite(residual).all(-1) & torch.isfinite(jacobian).flatten(1).all(-1)
        self.lost += (~known).sum()
        residual = torch.where(known[:, None], residual, (_WORST / targets.shape[-1]) ** 0.5)
        return inputs, unit, residual, torch.where(known[:, None, None], jacobian, 0.0)

    def foretell_loss(self, inputs: Tensor, unit: Tensor, residual: Tensor, jacobian: Tensor) -> Tensor:
        """The mean loss of a batch by the linear model, `()`."""
        moved = self.unit(inputs) - unit
        foretold = residual + dot(jacobian, moved[:, None, :])
        return total(foretold.square()).mean()

    def _count_spent(self) -> Tensor:
        return torch.tensor([*vars(self.ledger).values(), self.lost], device=self.device)

    def _note_spent(self, spent: Tensor) -> None:
        """Have the first rank note what all have spent, and the others count on from nothing."""
        *counts, lost = (spent if self.global_rank == 0 else torch.zeros_like(spent)).tolist()
        vars(self.ledger).update(zip(vars(self.ledger), counts, strict=True))
        self.lost.fill_(lost)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ledger"] = dataclasses.asdict(self.ledger)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What a killed training had spent by this epoch's end, so that the count is that of one that never stopped."""
        for name, count in checkpoint["ledger"].items():
            setattr(self.ledger, name, count)
