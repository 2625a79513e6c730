"""Training steps a second: whole batches by index against the usual per-sample data set and loader."""

import tempfile
from pathlib import Path

import pytorch_lightning
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from aimback.dataset import Dataset, simulate_dataset
from aimback.surrogate.network import Surrogate
from aimback.surrogate.settings import SurrogateSettings, TrainingSettings
from aimback.surrogate.training import train_surrogate
from aimback.tasks.cannon_drag import CannonDrag
from benchmarks.rounds import in_turns, ratio

EPOCHS = 40
NETWORK = SurrogateSettings()


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
    """Rows of a Markdown list; one row each for what an epoch of 10 steps of 1024 examples costs."""
    task = CannonDrag()
    data = simulate_dataset(task, 11_000, 760 / 11_000, torch.Generator().manual_seed(0))
    settings = TrainingSettings(batch_size=1024, max_epochs=EPOCHS, patience=0)

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train_surrogate(data, task, NETWORK, settings, 0, "cpu", Path(folder), None)

    seconds = in_turns({"per sample": lambda: _plain(data, task), "whole batches": ours}, rounds=3)
    steps = EPOCHS * (data.n_training // 1024)
    rows = [f"{name}: {1e3 * min(times) / steps:.2f} ms a step" for name, times in seconds.items()]
    return [*rows, f"per-sample loading takes {ratio(seconds, 'per sample', 'whole batches')} as long"]


def _plain(data: Dataset, task: CannonDrag) -> None:
    network = Surrogate.for_dataset(data, task, NETWORK, torch.Generator().manual_seed(0)).float()
    inputs = network.standardise_inputs(data.controls, data.conditions).float()[: data.n_training]
    outcomes = network.standardise_outcomes(data.outcomes).float()[: data.n_training]
    trainer = pytorch_lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Plain(network), DataLoader(PerSample(inputs, outcomes), batch_size=1024, shuffle=True))
