"""Every peer side by side on the same work: which angle, at full speed in air, hits this target in this wind?"""

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

from benchmarks.cannon import Aim, Array
from benchmarks.figures import plot_speed
from benchmarks.rounds import clock, in_turns, one_core, ratio
from benchmarks.tables import number, table
from benchmarks.work import CHECKED, MISS, SHARE, default_cannon, draw_work, hits

SIZES = (1, 16, 100, 1000, 10_000, 1_000_000)
COMPARED = 10_000  # targets at which ratios are taken and answers are checked
REFERENCE = "aimback, 1 start"
GUIDED = "aimback, 1 start where the others start, quadratic"
FASTEST = f"{GUIDED}, compiled"
PREPARED = f"{GUIDED}, prepared, compiled"
_ROUNDS = 5
_PATIENCE = 8.0  # seconds a peer and a size
_LEAST = 0.02  # seconds: shorter work is repeated within a round
_NOTICED = 0.1  # seconds that a first call must take longer to be called a compilation
_LONGEST = 10.0  # seconds: a size that would take longer is left out


@dataclass(frozen=True)
class Peer:
    """One line of the tables.

    Attributes:
        label: its name there.
        module: in benchmarks/peers; door: the function in it that prepares.
        least, most: targets that it is given at once. More than `most` are so many turns of the same
            work, so their time is scaled up and not measured.
    """

    label: str
    module: str
    door: str = "prepare"
    least: int = 1
    most: int = SIZES[-1]


PEERS = (
    Peer(REFERENCE, "aimback_direct", "one_start"),
    Peer(GUIDED, "aimback_direct", "guided"),
    Peer("aimback, 2 starts", "aimback_direct", "two_starts"),
    Peer("aimback, 1 start, speed and angle", "aimback_direct", "both_controls"),
    Peer("aimback, 1 start, compiled", "aimback_direct", "compiled"),
    Peer(FASTEST, "aimback_direct", "compiled_guided"),
    Peer(PREPARED, "aimback_direct", "prepared_guided"),
    Peer("aimback, 1 start, speed and angle, compiled", "aimback_direct", "compiled_both_controls"),
    Peer("JAX jit, joint Newton by hand", "jax_newton"),
    Peer("Numba, joint Newton by hand", "numba_newton"),
    Peer("Numba, joint Newton by hand, 16 in step", "numba_lanes"),
    Peer("PyTorch eager, joint Newton by hand", "torch_newton"),
    Peer("SciPy elementwise.find_root, NumPy RK4", "scipy_find_root"),
    Peer("Optimistix Newton, RK4 scan, vmap + jit", "optimistix_solvers", "newton", most=10_000),
    Peer("Optimistix LM, RK4 scan, vmap + jit", "optimistix_solvers", "levenberg_marquardt", most=10_000),
    Peer("Optimistix Newton, Diffrax event, vmap + jit", "diffrax_newton", least=100, most=1000),
    Peer("SciPy brentq + solve_ivp, a loop", "scipy_brentq", most=30),
    Peer("SciPy least_squares + solve_ivp, a loop", "scipy_least_squares", most=30),
    Peer("PyTorch Adam, 1000 targets at once", "torch_adam", least=1000, most=1000),
    Peer("PyTorch Adam, one target at a time", "torch_adam_loop", most=1),
)


@dataclass
class Times:
    """What was measured of one peer.

    Attributes:
        first: seconds of the first call with so many targets.
        steady: seconds a call afterwards, by round.
        answers: to the first targets, of the last call with at most `COMPARED` of them.
    """

    imported: float
    first: dict[int, float] = field(default_factory=dict)
    steady: dict[int, list[float]] = field(default_factory=dict)
    answers: Array | None = None

    def each(self, size: int) -> float:
        """Seconds a target."""
        return statistics.median(self.steady[size]) / size


def timed_side_by_side(
    targets: Array, wind: Array, sizes: Sequence[int], peers: Sequence[Peer]
) -> tuple[dict[str, Times], dict[str, str], dict[str, str]]:
    """What was measured of each peer, its ratio to the reference, and why it is missing where it is."""
    # Read by JAX when it is imported; the other libraries start no threads on one core.
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["NUMBA_NUM_THREADS"] = "1"
    cannon = default_cannon()
    missing: dict[str, str] = {}
    aims: dict[str, Aim] = {}
    times: dict[str, Times] = {}
    ratios: dict[str, str] = {}
    with one_core():
        for peer in peers:
            try:
                aims[peer.label] = getattr(import_module(f"benchmarks.peers.{peer.module}"), peer.door)(cannon)
            except ImportError as absent:
                missing[peer.label] = str(absent)
            else:
                times[peer.label] = Times(_import_seconds(peer.module))
        present = [peer for peer in peers if peer.label in aims]
        for size in sizes:
            ratios |= _measure(present, aims, times, targets[:size], wind[:size])
    return times, ratios, missing


def aimed_side_by_side(sizes: Sequence[int] = SIZES, peers: Sequence[Peer] = PEERS) -> str:
    """Markdown: two tables and a figure."""
    cannon = default_cannon()
    targets, wind = draw_work(cannon, max(sizes))
    times, ratios, missing = timed_side_by_side(targets, wind, sizes, peers)
    present = [peer for peer in peers if peer.label in times]
    checked = {
        label: hits(cannon, result.answers, targets, wind)
        for label, result in times.items()
        if result.answers is not None
    }
    speeds = {label: {size: 1 / result.each(size) for size in result.steady} for label, result in times.items()}
    return "\n\n".join(
        [
            f"Drag cannon at {cannon.speed:g} m/s, k = {cannon.drag:g} /m, float64; targets uniform between "
            f"{SHARE[0]:.0%} and {SHARE[1]:.0%} of the reach under their wind, which is uniform in -2 to 2 m/s. A peer "
            f"passes if up to {CHECKED} of its answers, flown again by SciPy's DOP853 at 1e-12, all miss by at most "
            f"{MISS:g} of the span ({cannon.tolerance:.3g} m). Time includes everything from targets to angles.",
            "Microseconds a target by number of targets, steady; `~`: scaled from so many as it is given at once "
            "(a loop, or batches of one size).",
            _speed_table(present, times, sizes),
            "`import` is that of the peer's libraries into a fresh interpreter that has NumPy; "
            "`compile` the first call of all less a steady one; `another size` what the first call with a new "
            f"number of targets cost over a steady one, the median; ratios are at {COMPARED} targets, or as many as "
            "were measured, a target against a target.",
            _other_table(peers, times, checked, ratios, missing),
            plot_speed("aim.png", speeds),
        ]
    )


class _Turn:
    """One round of one peer: the same targets, so often that the clock can tell."""

    def __init__(self, aim: Aim, targets: Array, wind: Array) -> None:
        self.aim, self.targets, self.wind = aim, targets, wind
        self.repeats = 1

    def __call__(self) -> None:
        for _ in range(self.repeats):
            self.answers = self.aim(self.targets, self.wind)


def _measure(
    peers: Sequence[Peer], aims: dict[str, Aim], times: dict[str, Times], targets: Array, wind: Array
) -> dict[str, str]:
    """Time all peers that have a part in this number of targets; returns their ratios to the reference."""
    asked = len(targets)
    turns: dict[str, _Turn] = {}
    for peer in peers:
        size, result = min(asked, peer.most), times[peer.label]
        again = size in result.steady
        # Nothing new, unless it is to be compared side by side with the others.
        if asked < peer.least or (again and asked != COMPARED):
            continue
        if not again and result.steady and size * result.each(max(result.steady)) > _LONGEST:
            continue
        turns[peer.label] = turn = _Turn(aims[peer.label], targets[:size], wind[:size])
        if not again:
            result.first[size] = clock(turn)
            turn.repeats = math.ceil(_LEAST / clock(turn)) if result.first[size] < _PATIENCE else 1
    seconds = in_turns(turns, _ROUNDS, warm_up=False, patience=_PATIENCE)
    each = {}
    for label, turn in turns.items():
        size, result = len(turn.targets), times[label]
        result.steady[size] = [second / turn.repeats for second in seconds[label]]
        each[label] = [second / size for second in result.steady[size]]
        if asked <= COMPARED:
            result.answers = turn.answers
    return {label: ratio(each, label, REFERENCE) for label in each} if asked == COMPARED and REFERENCE in each else {}


@cache
def _import_seconds(module: str) -> float:
    """What the import of a peer's libraries takes in a fresh interpreter, the cost of NumPy left out."""
    code = (
        "import importlib, time, benchmarks.cannon\n"
        f"began = time.perf_counter(); importlib.import_module('benchmarks.peers.{module}')\n"
        "print(time.perf_counter() - began)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _speed_table(peers: Sequence[Peer], times: dict[str, Times], sizes: Sequence[int]) -> str:
    rows = []
    for peer in peers:
        result, cells = times[peer.label], []
        for size in sizes:
            if size in result.steady:
                cells.append(number(1e6 * result.each(size)))
            elif peer.most < size <= COMPARED and peer.most in result.steady:
                cells.append("~" + number(1e6 * result.each(peer.most)))
            else:
                cells.append("")
        rows.append([peer.label, *cells])
    return table(["", *map(number, sizes)], rows)


def _other_table(
    peers: Sequence[Peer],
    times: dict[str, Times],
    checked: dict[str, tuple[int, int, float]],
    ratios: dict[str, str],
    missing: dict[str, str],
) -> str:
    head = ["", "passes", "hits of checked", f"time over {REFERENCE}", "import [s]", "compile [s]", "another size [s]"]
    rows = []
    for peer in peers:
        if peer.label in missing:
            rows.append([peer.label, f"missing: {missing[peer.label]}", *[""] * 5])
            continue
        result = times[peer.label]
        extra = [max(0.0, first - statistics.median(result.steady[size])) for size, first in result.first.items()]
        good, count, worst = checked[peer.label]
        rows.append(
            [
                peer.label,
                "yes" if good == count else f"no, {good / count:.1%} do; worst {worst:.3g} tolerances",
                f"{good} of {count}",
                ratios.get(peer.label, ""),
                f"{result.imported:.2f}",
                _seconds(extra[0]),
                _seconds(statistics.median(extra[1:])) if extra[1:] else "",
            ]
        )
    return table(head, rows, words=2)


def _seconds(extra: float) -> str:
    """Blank where it is lost in the noise."""
    return f"{extra:.2f}" if extra >= _NOTICED else ""
