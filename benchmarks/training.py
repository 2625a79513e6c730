"""What training costs a step, next to the usual loader, a bare loop and bare matrix products; and what it reaches."""

import logging
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from aimback.data.dataset import Dataset, simulate_dataset
from aimback.learn.surrogate import Surrogate
from aimback.learn.surrogate_training import train_surrogate
from aimback.settings.learning import Architecture, NetworkSettings, TrainingSettings
from aimback.tasks.cannon_drag import CannonDrag
from benchmarks.break_even import settings_of
from benchmarks.rounds import in_turns, ratio, spread

BATCH = 1024
EPOCHS = 40

Plan = tuple[NetworkSettings, TrainingSettings]


def plan(kind: str = "", **changes: Any) -> Plan:
    """A network and its training, as conf/ has them but for some keys of either."""
    settings = settings_of(kind or "mlp")
    network, training = settings.surrogate.model_dump(), settings.training.model_dump()
    for key, value in changes.items():
        (network if key in network else training)[key] = value
    return NetworkSettings(**network), TrainingSettings(**training)


NETWORK = plan(batch_size=BATCH)
TUTORIAL = plan(
    **{"hidden_width": 500, "hidden_layers": 4, "activation": "relu"},
    **{"learning_rate": 1e-3, "beta2": 0.999, "schedule": "constant", "batch_size": BATCH},
)
SECOND_ORDER = plan("second_order")
# What reaches how much in which time: a name, a network, epochs.
TRAININGS = [
    ("adam, 3 x 32 gelu, one_cycle (the default)", NETWORK, 120),
    ("adam, 3 x 32 gelu, one_cycle, longer", NETWORK, 300),
    ("levenberg_marquardt, 2 x 16 tanh (surrogate=second_order training=second_order)", SECOND_ORDER, 40),
    ("levenberg_marquardt, 2 x 16 tanh, longer", SECOND_ORDER, 120),
    ("adam, 4 x 500 relu", TUTORIAL, 10),
]
SEEDS = 3


class PerSample(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """What tutorials write."""

    def __init__(self, inputs: torch.Tensor, outcomes: torch.Tensor) -> None:
        self.inputs, self.outcomes = inputs, outcomes

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[index], self.outcomes[index]


class Plain(pytorch_lightning.LightningModule):
    """The same network and optimiser, the plain way."""

    def __init__(self, network: Surrogate) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        inputs, outcomes = batch
        return functional.mse_loss(self.network.layers(inputs), outcomes)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def training_against_loader() -> list[str]:
    """Rows of a Markdown list: what a step costs, and what a training reaches."""
    # Here, because Lightning sets it when it is imported.
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    task = CannonDrag()
    data = simulate_dataset(task, 11_000, 760 / 11_000, torch.Generator().manual_seed(0))
    return [*_cost_of_a_step(data, task), *_error_by_seconds(task)]


def _cost_of_a_step(data: Dataset, task: CannonDrag) -> list[str]:
    steps = EPOCHS * (data.n_training // BATCH)
    small = in_turns(
        {
            "per sample": lambda: _plain(data, task),
            "whole batches": lambda: _ours(data, task, NETWORK, EPOCHS),
            "bare loop": lambda: _bare(data, task, NETWORK[0], EPOCHS),
        },
        rounds=3,
    )
    wide_epochs = 2
    wide_steps = wide_epochs * (data.n_training // BATCH)
    wide = in_turns(
        {
            "whole batches": lambda: _ours(data, task, TUTORIAL, wide_epochs),
            "bare loop": lambda: _bare(data, task, TUTORIAL[0], wide_epochs),
            "matrix products": lambda: _products(TUTORIAL[0], len(task.box) + len(task.conditions), wide_steps),
        },
        rounds=3,
    )
    return [
        *(f"{name}: {1e3 * min(times) / steps:.2f} ms a step" for name, times in small.items()),
        f"per-sample loading takes {ratio(small, 'per sample', 'whole batches')} as long",
        f"Lightning, with schedule, history and checkpoints, takes {ratio(small, 'whole batches', 'bare loop')} "
        "as long as a bare loop of the same steps",
        f"4 x 500 relu: {1e3 * min(wide['whole batches']) / wide_steps:.1f} ms a step, "
        f"{ratio(wide, 'whole batches', 'bare loop')} the bare loop's; its matrix products alone take "
        f"{ratio(wide, 'matrix products', 'whole batches')} as long, which is the share of their peak that it reaches",
    ]


def _error_by_seconds(task: CannonDrag) -> list[str]:
    """Root mean square errors over validation examples that had no part in the training, and wall seconds; the default
    data set, every seed a round."""
    data = simulate_dataset(task, 10_000, 0.1, torch.Generator().manual_seed(0))
    to_range = (data.outcomes[: data.n_training].std(correction=0) / (task.outcomes.upper - task.outcomes.lower)).item()
    reached: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in TRAININGS}
    for seed in range(SEEDS):
        for name, network, epochs in TRAININGS:
            began = time.perf_counter()
            mse = _ours(data, task, network, epochs, seed)
            reached[name].append((mse**0.5 * to_range, time.perf_counter() - began))
    return [
        f"{name}: {spread(errors)} of the range within {spread(seconds, ' s')}"
        for name, results in reached.items()
        for errors, seconds in [tuple(zip(*results, strict=True))]
    ]


def _ours(data: Dataset, task: CannonDrag, network: Plan, epochs: int, seed: int = 0) -> float:
    """The least validation loss."""
    with tempfile.TemporaryDirectory() as folder:
        shape, training = network
        longer = training.model_copy(update={"max_epochs": epochs})
        _, history = train_surrogate(data, task, shape, longer, seed, "cpu", Path(folder))
    return min(row.validation_loss for row in history)


def _standardised(
    data: Dataset, task: CannonDrag, settings: Architecture
) -> tuple[Surrogate, torch.Tensor, torch.Tensor]:
    network = Surrogate.for_dataset(data, task, settings, torch.Generator().manual_seed(0)).float()
    inputs = network.standardise_inputs(data.controls, data.conditions).float()
    return network, inputs, network.standardise_outcomes(data.outcomes).float()


def _bare(data: Dataset, task: CannonDrag, settings: Architecture, epochs: int) -> None:
    """The same steps and the same validation, and nothing around them."""
    network, inputs, outcomes = _standardised(data, task, settings)
    layers, count = network.layers, data.n_training
    optimizer = torch.optim.Adam(layers.parameters(), lr=1e-3, fused=True)
    for _ in range(epochs):
        for rows in torch.randperm(count).split(BATCH):
            loss = functional.mse_loss(layers(inputs[rows]), outcomes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            functional.mse_loss(layers(inputs[count:]), outcomes[count:])


def _products(settings: Architecture, n_inputs: int, steps: int) -> None:
    """The matrix products of so many steps: values forwards, weights' gradients, inputs' gradients but the first."""
    widths = [n_inputs, *[settings.hidden_width] * settings.hidden_layers, 1]
    layers = [(torch.ones(BATCH, i), torch.ones(i, o), torch.ones(BATCH, o)) for i, o in pairwise(widths)]
    for _ in range(steps):
        for place, (value, weight, gradient) in enumerate(layers):
            value @ weight
            value.T @ gradient
            if place > 0:
                gradient @ weight.T


def _plain(data: Dataset, task: CannonDrag) -> None:
    network, inputs, outcomes = _standardised(data, task, NETWORK[0])
    examples = PerSample(inputs[: data.n_training], outcomes[: data.n_training])
    trainer = pytorch_lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Plain(network), DataLoader(examples, batch_size=BATCH, shuffle=True))
