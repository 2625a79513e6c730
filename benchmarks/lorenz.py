"""Many Lorenz systems at once: the published benchmark of ensembles, on one core, with and without derivatives."""

import csv
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from benchmarks.ensemble import BETA, DURATION, LARGEST_RHO, SIGMA, START, STEPS, Array, Integrate, spread_rho
from benchmarks.rounds import in_turns, one_core, ratio, spread
from benchmarks.tables import number, table

PUBLISHED = Path(__file__).with_name("lorenz_published.csv")
_REPOSITORY = "https://github.com/utkarsh530/GPUODEBenchmarks"
_MANY, _FEW = 2**17, 2**13
_CHECKED = 64
_ROUNDS = 7
_PATIENCE = 20.0  # seconds a peer
_ASKED = {"values": 0.5, "tangents": 0.15}  # million solves a second on one core


@dataclass(frozen=True)
class Peer:
    """One line of a table.

    Attributes:
        label: its name there.
        module: in benchmarks/peers; door: the function in it that prepares.
        systems: that it is given at once.
    """

    label: str
    module: str
    door: str = "prepare"
    systems: int = _MANY


PEERS = {
    "values": (
        Peer("aimback, compiled", "lorenz_aimback"),
        Peer("Numba, RK4 by hand, 32 in step", "lorenz_numba", "in_step"),
        Peer("Numba, RK4 by hand", "lorenz_numba", systems=_FEW),
        Peer("JAX, RK4 by hand, vmap + jit", "lorenz_jax"),
        Peer("Diffrax, Tsit5, vmap + jit", "lorenz_diffrax", systems=_FEW),
        Peer("torchdiffeq, rk4, one batch", "lorenz_torchdiffeq", systems=_FEW),
        Peer("aimback, interpreted", "lorenz_aimback", "interpreted", systems=_FEW),
    ),
    "tangents": (
        Peer("aimback, compiled", "lorenz_aimback", "with_tangents"),
        Peer("Numba, RK4 and tangents by hand, 32 in step", "lorenz_numba", "in_step_with_tangents"),
        Peer("JAX, RK4 by hand, jacfwd + vmap + jit", "lorenz_jax", "with_tangents"),
    ),
}


def solved_side_by_side(systems: int = _MANY, rounds: int = _ROUNDS) -> str:
    """Markdown: ours and the peers', values alone and with tangents, and what is published.

    Args:
        systems: the most that a peer is given.
    """
    # Read by JAX when it is imported; the other libraries start no threads on one core.
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["NUMBA_NUM_THREADS"] = "1"
    with one_core():
        values, tangents = (_compare(PEERS[kind], systems, rounds) for kind in ("values", "tangents"))
    return "\n\n".join(
        [
            f"sigma = {SIGMA:g}, beta = 8/3, rho evenly from 0 to {LARGEST_RHO:g}, start {START}, t from 0 to "
            f"{DURATION:g} in {STEPS} steps, float32, one core: the ensemble of [GPUODEBenchmarks]({_REPOSITORY}). "
            f"Errors are the worst of {_CHECKED} systems spread over all rho, against DOP853 in float64 at 1e-12, "
            "tangents against its solution of the variational equations; each over the greatest number in its column.",
            f"Values alone; asked: at least {_ASKED['values']} million solves a second.",
            values,
            "Values and their derivatives by rho and by the three coordinates of the start; asked: at least "
            f"{_ASKED['tangents']} million solves a second.",
            tangents,
            "Published, of steps of the same number, on a GPU; in the repository's files:",
            _published_table(),
        ]
    )


def _compare(peers: Sequence[Peer], systems: int, rounds: int) -> str:
    given = {peer.label: spread_rho(min(peer.systems, systems)) for peer in peers}
    integrators: dict[str, Integrate] = {}
    missing: dict[str, str] = {}
    first: dict[str, float] = {}
    for peer in peers:
        began = time.perf_counter()
        try:
            integrators[peer.label] = getattr(import_module(f"benchmarks.peers.{peer.module}"), peer.door)()
        except ImportError as absent:
            missing[peer.label] = str(absent)
            continue
        integrators[peer.label](given[peer.label])
        first[peer.label] = time.perf_counter() - began
    turns = {label: lambda one=one, rho=given[label]: one(rho) for label, one in integrators.items()}
    seconds = in_turns(turns, rounds, patience=_PATIENCE)
    each = {label: [one / len(given[label]) for one in times] for label, times in seconds.items()}
    rows = []
    for peer in peers:
        label = peer.label
        if label in missing:
            rows.append([label, f"missing: {missing[label]}", *[""] * 5])
            continue
        value_error, tangent_error = _errors(integrators[label])
        rows.append(
            [
                label,
                number(len(given[label])),
                spread([1e-6 / one for one in each[label]]),
                ratio(each, label, peers[0].label),
                f"{value_error:.1e}",
                "" if tangent_error is None else f"{tangent_error:.1e}",
                f"{max(0.0, first[label] - statistics.median(seconds[label])):.2f}",
            ]
        )
    head = [
        *["", "systems at once", "million solves a second", f"time over {peers[0].label}"],
        *["error of values", "error of tangents", "import and compile [s]"],
    ]
    return table(head, rows)


def _errors(integrate: Integrate) -> tuple[float, float | None]:
    """The worst error of the values, and of the tangents where there are any."""
    rho = spread_rho(_CHECKED)
    found = integrate(rho)
    truth = _follow_tightly(rho)[: len(found)]
    apart = np.abs(found - truth).max(axis=1) / np.abs(truth).max(axis=1)
    return float(apart[:3].max()), float(apart[3:].max()) if len(found) > 3 else None


def _follow_tightly(rho: Array) -> NDArray[np.float64]:
    """States and tangents in the order of `Integrate`, by the variational equations."""

    def slope(_: float, numbers: NDArray[np.float64], rho: float) -> NDArray[np.float64]:
        (x, y, z), tangents = numbers[:3], numbers[3:].reshape(3, 4)
        by_state = np.array([[-SIGMA, SIGMA, 0], [rho - z, -1, -x], [y, x, -BETA]])
        by_rho = np.zeros((3, 4))
        by_rho[1, 0] = x
        rate = [SIGMA * (y - x), x * (rho - z) - y, x * y - BETA * z]
        return np.concatenate([rate, (by_state @ tangents + by_rho).ravel()])

    start = np.concatenate([START, np.eye(3, 4, 1).ravel()])
    ends = [
        solve_ivp(slope, (0, DURATION), start, "DOP853", args=(float(one),), rtol=1e-12, atol=1e-12).y[:, -1]
        for one in rho
    ]
    return np.stack(ends, axis=1)


def _published_table() -> str:
    with PUBLISHED.open(encoding="utf-8") as file:
        rows = [
            [
                *[row["method"], row["scheme"], row["machine"], number(int(row["systems"]))],
                number(1e-3 * int(row["systems"]) / float(row["milliseconds"])),
                f"[{Path(row['file']).name}]({_REPOSITORY}/blob/{row['commit']}/{row['file']})",
            ]
            for row in csv.DictReader(file)
        ]
    return table(["", "scheme", "machine", "systems", "million solves a second", "file"], rows, words=3)
