"""What was asked of the speed of aiming, beside what is measured, all in one run."""

from dataclasses import dataclass, replace

from benchmarks.aim import COMPARED, FASTEST, GUIDED, PEERS, PREPARED, Times, timed_side_by_side
from benchmarks.rounds import ratio
from benchmarks.tables import number, table
from benchmarks.work import default_cannon, draw_work

_BRENTQ = "SciPy brentq + solve_ivp, a loop"
_FIND_ROOT = "SciPy elementwise.find_root, NumPy RK4"
_DIFFRAX = "Optimistix Newton, Diffrax event, vmap + jit"
_JAX = "JAX jit, joint Newton by hand"
_BY_HAND = "Numba, joint Newton by hand, 16 in step"
_SIZES = (1, 16, 100, 1000, COMPARED)
_ONE_AIM = 8.0  # ms


@dataclass(frozen=True)
class Wish:
    """How many times as fast as a peer one of our lines is to be, at this number of targets."""

    ours: str
    peer: str
    size: int
    times: float


WISHES = (
    Wish(FASTEST, _BRENTQ, COMPARED, 8000),
    Wish(FASTEST, _FIND_ROOT, COMPARED, 15),
    Wish(FASTEST, _DIFFRAX, COMPARED, 120),
    Wish(FASTEST, _JAX, COMPARED, 2),
    Wish(FASTEST, _JAX, 1000, 1.2),
    Wish(FASTEST, _JAX, 100, 0.5),
    Wish(FASTEST, _JAX, 16, 0.5),
    Wish(PREPARED, _JAX, 16, 1.5),
    Wish(PREPARED, _JAX, 1, 2),
    Wish(GUIDED, _BRENTQ, COMPARED, 400),
)


def asked_and_measured() -> str:
    """Markdown: a table."""
    wanted = {label for wish in WISHES for label in (wish.ours, wish.peer, _BY_HAND)}
    peers = [peer for peer in PEERS if peer.label in wanted]
    times, _, missing = timed_side_by_side(*draw_work(default_cannon(), max(_SIZES)), _SIZES, peers)
    rows = [
        [
            wish.ours,
            wish.peer,
            number(wish.size),
            f"{number(wish.times)} x",
            *(_measured(replace(wish, ours=ours), times, missing) for ours in (wish.ours, _BY_HAND)),
        ]
        for wish in WISHES
    ]
    one = ", ".join(f"{label}: {number(1e3 * times[label].each(1))} ms" for label in (GUIDED, FASTEST, PREPARED))
    return "\n\n".join(
        [
            "How many times as fast as a peer: the work and the peers of the first part, a target against a target. A "
            "peer that is given fewer targets at once is taken at its most. Beside it, what the fastest one that is "
            f"written by hand for this cannon reaches in the same run ({_BY_HAND}): no boxes, no statuses, no paths.",
            table(["", "against", "targets", "asked", "measured", "by hand"], rows, words=2),
            f"One aim, warm, asked: at most {_ONE_AIM:g} ms. {one}.",
        ]
    )


def _measured(wish: Wish, times: dict[str, Times], missing: dict[str, str]) -> str:
    for label in (wish.peer, wish.ours):
        if label in missing:
            return f"missing: {missing[label]}"
    ours, theirs = times[wish.ours].steady, times[wish.peer].steady
    size = max(size for size in theirs if size <= wish.size)
    seconds = {
        "peer": [second / size for second in theirs[size]],
        "ours": [second / wish.size for second in ours[wish.size]],
    }
    return ratio(seconds, "peer", "ours")
