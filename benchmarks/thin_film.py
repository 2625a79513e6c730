"""The Stack of Ren, Mahendra, Padilla and Malof (2022): five films, 256 wavelengths."""

from aimback.settings.learning import NetworkSettings, TrainingSettings
from aimback.solve.gauss_newton import GaussNewton
from aimback.tasks.thin_film import ThinFilm
from benchmarks.spectra import Contest, set_beside_published


def spectra_beside_published() -> str:
    """Markdown: a table, and what it was made of."""
    return set_beside_published(
        Contest(
            name="thin_film",
            task=ThinFilm(),
            solver=GaussNewton(max_steps=40, precision=1e-16),
            targets=200,
            enough=1e-25,
            turns=(1, 1, 2, 4, 8, 16, 32, 64),
            examples=20_000,
            network=NetworkSettings(hidden_width=128, hidden_layers=3, activation="gelu", normalisation="none"),
            training=TrainingSettings(
                optimizer="adam",
                learning_rate=0.005,
                beta2=0.98,
                weight_decay=0.0,
                schedule="one_cycle",
                plateau_factor=0.5,
                plateau_patience=10,
                batch_size=512,
                max_epochs=100,
                patience=0,
                dtype="float32",
                matmul_precision="highest",
            ),
        )
    )
