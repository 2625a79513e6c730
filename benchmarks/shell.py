"""The Shell of Ren, Mahendra, Padilla and Malof (2022): eight shells, 201 wavelengths."""

import statistics

import torch

from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.tasks.shell import Shell
from benchmarks.extent import pick
from benchmarks.peers.scipy_shell import simulate_by_scipy
from benchmarks.rounds import in_turns, one_core, spread
from benchmarks.spectra import Contest, set_beside_published

_TOGETHER = 16
_PUBLISHED = 0.77  # seconds that the published program took for one, on a CPU core like that of these measurements


def spectra_beside_published() -> str:
    """Markdown: a table, and what it was made of."""
    task = Shell()
    contest = Contest(
        name="shell",
        task=task,
        solver=LevenbergMarquardt(max_steps=30, precision=1e-16),
        targets=pick(50, 10),
        enough=1e-17,
        turns=pick((1, 1, 2, 4, 8, 16, 32, 64, 128, 256), (1, 1, 2, 4, 8)),
        nearest=True,
        blurs=((5,), (20, 10, 5)),
        corrections=10,
        epochs=100,
    )
    return f"{set_beside_published(contest)}\n\n{_set_beside_scipy(task)}"


def _set_beside_scipy(task: Shell) -> str:
    controls = task.box.sample(_TOGETHER, torch.Generator().manual_seed(0))
    with one_core():
        seconds = in_turns(
            {
                "scipy": lambda: simulate_by_scipy(
                    controls[0].tolist(), task.wavelengths.numpy(), list(task.permittivities.numpy())
                ),
                "aimback": lambda: task(controls, controls[:, :0]),
            },
            rounds=3,
        )
    ours = [spent / _TOGETHER for spent in seconds["aimback"]]
    ratios = [slow / fast for slow, fast in zip(seconds["scipy"], ours, strict=True)]
    return (
        f"A simulation takes {1e3 * statistics.median(ours):.2g} ms among {_TOGETHER}, and "
        f"{1e3 * statistics.median(seconds['scipy']):.0f} ms by the published formulas in SciPy: {spread(ratios)} "
        f"times as long. The published program, which computes twice as many wavelengths as it returns, took "
        f"{_PUBLISHED} s, {_PUBLISHED / statistics.median(ours):,.0f} times as long."
    )
