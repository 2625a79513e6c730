"""Starts are hashes of a key and their own number: even, independent, and the same in parts and on every device."""

import functools
from typing import Literal

import pytest
import torch
from problems import seeded
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensorMode

from aimback.core import problem as door
from aimback.core.randomness import draw_words, make_generator
from aimback.data.question import pose_problem
from aimback.data.targets import Targets, draw_targets
from aimback.solve import starts as module
from aimback.solve.starts import MOST_STARTS, Starts, draw_evenly
from aimback.tasks.cannon_drag import CannonDrag

TASK = CannonDrag()
# Standard deviations, of a few hundred numbers that are looked at together.
FAR = 4.5


def splitmix64(seed: int, count: int) -> list[int]:
    """As in Vigna's splitmix64.c, https://prng.di.unimi.it/splitmix64.c."""
    numbers, most = [], 2**64 - 1
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & most
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & most
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & most
        numbers.append(z ^ (z >> 31))
    return numbers


def draw_unsigned(key: int, first: int, count: int) -> list[int]:
    return [word % 2**64 for word in draw_words(key, first, count).tolist()]


def test_words_are_those_of_splitmix64() -> None:
    # As published at https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64.
    published = [
        *(6457827717110365317, 3203168211198807973, 9817491932198370423),
        *(4593380528125082431, 16408922859458223821),
    ]
    assert draw_unsigned(1234567, 0, 5) == published
    for key in (0, 1, 2**62 + 12345, 2**63 - 1):
        expected = splitmix64(key, 1000)
        assert draw_unsigned(key, 0, 1000) == expected
        assert draw_unsigned(key, 990, 10) == expected[990:]


def test_words_of_neighbouring_keys_and_places_are_independent() -> None:
    keys, places, count = range(1000, 1008), range(4), 2**16
    words = torch.stack([draw_words(key, place, count) for place in places for key in keys])
    halves = torch.cat([words >> 32, words & 0xFFFFFFFF]).double()
    expected = torch.eye(len(halves), dtype=torch.float64)
    assert (halves.corrcoef() - expected).abs().max() < FAR / count**0.5
    bits = torch.stack([(words[: len(keys)] >> bit & 1).double().mean() for bit in range(64)])
    assert (bits - 0.5).abs().max() < FAR * 0.5 / (len(keys) * count) ** 0.5


@pytest.mark.parametrize("number", [1, 3, 4, 1000, MOST_STARTS])
def test_starts_fill_every_stratum_once(number: int) -> None:
    starts = draw_evenly(3, number, 2, seeded())
    strata = (starts * number).floor().sort(dim=1).values
    expected = torch.arange(number, dtype=torch.float64)[None, :, None].expand(3, number, 2)
    torch.testing.assert_close(strata, expected, rtol=0, atol=0)
    assert not torch.equal(starts[0], starts[1])


@pytest.mark.parametrize("word", [0, -1], ids=["least", "greatest"])
@pytest.mark.parametrize("number", [1, 3, MOST_STARTS])
def test_no_start_lies_on_a_wall_of_its_stratum(monkeypatch: pytest.MonkeyPatch, word: int, number: int) -> None:
    monkeypatch.setattr(module, "draw_words", lambda *_: torch.full((number,), word))
    starts = draw_evenly(1, number, 1, seeded()).flatten().sort().values
    walls = torch.arange(number + 1, dtype=torch.float64) / number
    assert bool(((starts > walls[:-1]) & (starts < walls[1:])).all())


def test_starts_are_uniform() -> None:
    starts = draw_evenly(100_000, 1, 2, seeded(1))[:, 0]
    for axis in starts.T:
        assert 1e-3 < stats.kstest(axis.numpy(), "uniform").pvalue < 1 - 1e-3
    counts = torch.histogramdd(starts, [20, 20], [0.0, 1.0, 0.0, 1.0]).hist
    assert 1e-3 < stats.chisquare(counts.flatten().numpy()).pvalue < 1 - 1e-3


def test_every_order_of_the_strata_is_as_likely() -> None:
    strata = (draw_evenly(50_000, 4, 2, seeded(2)) * 4).long()
    orders = (strata * torch.tensor([64, 16, 4, 1])[:, None]).sum(1).flatten()
    counts = orders.unique(return_counts=True)[1]
    assert len(counts) == 24 and 1e-3 < stats.chisquare(counts.numpy()).pvalue < 1 - 1e-3


def test_axes_starts_and_neighbouring_targets_are_independent() -> None:
    """But for the strata along one axis, of which any two of three starts have a correlation of -1/2."""
    count = 2**16
    scaled = 3 * draw_evenly(count + 1, 3, 2, seeded(3)).flatten(1)
    strata, places = scaled.floor(), scaled.frac()
    numbers = torch.cat([strata[:-1], places[:-1], strata[1:], places[1:]], dim=1).T
    along = -0.5 * torch.eye(2, dtype=torch.float64).repeat(3, 3)
    free = torch.zeros(6, 6, dtype=torch.float64)
    expected = torch.block_diag(along, free, along, free).fill_diagonal_(1)
    assert (numbers.corrcoef() - expected).abs().max() < FAR / count**0.5


def test_parts_of_the_targets_have_the_starts_of_the_whole() -> None:
    whole = draw_evenly(100, 8, 2, seeded(4))
    parts = [draw_evenly(size, 8, 2, seeded(4), first=first) for first, size in ((0, 30), (30, 1), (31, 69))]
    assert torch.cat(parts).equal(whole)
    stream = seeded(4)
    assert draw_evenly(100, 8, 2, stream).equal(whole) and not draw_evenly(100, 8, 2, stream).equal(whole)


@pytest.mark.parametrize("drawn_from", ["box", "prior"])
def test_a_problem_in_parts_has_the_starts_of_the_whole_and_its_solvers_draw_the_same(
    drawn_from: Literal["box", "prior"],
) -> None:
    targets = draw_targets(TASK, 100, seeded(1))
    starts = Starts(number=4, drawn_from=drawn_from, until_solved=False)

    def pose(sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        streams, drawn, seeds, first = functools.cache(functools.partial(make_generator, 5, "cannon")), [], [], 0
        for size in sizes:
            part = targets.of(torch.arange(first, first + size))
            problem, stream = pose_problem(TASK, part, starts, streams, first=first)
            drawn.append(problem.starts)
            seeds.append(torch.randint(2**32, (size,), generator=stream))  # as solvers do that move at random
            first += size
        return torch.cat(drawn), torch.cat(seeds)

    for whole, parts in zip(pose([100]), pose([30, 1, 69]), strict=True):
        assert parts.equal(whole) and len(whole.unique(dim=0)) == 100


def test_on_a_gpu_starts_are_drawn_there_and_nothing_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake tensor has a device and no numbers: to ask for one, as whoever waits for a GPU does, is an error."""
    monkeypatch.setattr(door, "_is_finite", lambda _: True)  # a problem does look at its targets and starts
    monkeypatch.setattr(torch, "randint", lambda *_, **__: 7)  # the key is the CPU's
    with FakeTensorMode():
        wanted = torch.zeros(5, 1, dtype=torch.float64, device="cuda")
        targets = Targets(wanted, wanted, torch.zeros(5, dtype=torch.int64), ("",) * 5)
        starts = Starts(number=4, drawn_from="box", until_solved=False)
        problem, _ = pose_problem(TASK, targets, starts, lambda _: seeded(), device=wanted.device)
        assert problem.starts.device.type == "cuda" and problem.starts.shape == (5, 4, 2)
        assert problem.starts.dtype == torch.float64 and problem.starts.is_contiguous()


@pytest.mark.gpu
@pytest.mark.parametrize("number", [1, 8, 5000])
def test_a_gpu_draws_the_bits_of_the_cpu(number: int) -> None:
    there = draw_evenly(100, number, 3, seeded(6), "cuda", first=7)
    assert there.is_cuda and there.cpu().equal(draw_evenly(100, number, 3, seeded(6), first=7))
