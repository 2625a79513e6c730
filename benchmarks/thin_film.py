"""The Stack of Ren, Mahendra, Padilla and Malof (2022): five films, 256 wavelengths."""

from aimback.solve.gauss_newton import GaussNewton
from aimback.tasks.thin_film import ThinFilm
from benchmarks.extent import pick
from benchmarks.spectra import Contest, set_beside_published


def spectra_beside_published() -> str:
    """Markdown: a table, and what it was made of."""
    return set_beside_published(
        Contest(
            name="thin_film",
            task=ThinFilm(),
            solver=GaussNewton(max_steps=40, precision=1e-16),
            targets=pick(200, 50),
            enough=1e-25,
            turns=(1, 1, 2, 4, 8, 16, 32, 64),
        )
    )
