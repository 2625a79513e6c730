"""What is written in C++ against what torch itself computes."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimback.autodiff.loop import loop
from aimback.compile.writer import write_step
from benchmarks.rows import columns_of, fused

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="there is no C++ compiler"
)
INF, NAN = float("inf"), float("nan")
ODD = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -2.5, 1e-300, 1e300, -1e300, INF, -INF, NAN]


def numbers(a: Tensor, b: Tensor) -> list[Tensor]:
    """Everything that gives a number, of two columns."""
    flag = a > b
    return [
        a + b,
        a - b,
        torch.add(a, b, alpha=3),
        torch.sub(a, b, alpha=0.5),
        2 - a,
        a * b,
        a * flag,
        a / b,
        -a,
        a.abs(),
        a.square(),
        a**3,
        a.abs() ** 2.5,
        torch.maximum(a, b),
        torch.minimum(a, b),
        a.clamp(-1, 1),
        a.clamp(min=0),
        a.clamp(max=b.abs()),
        torch.floor(a),
        torch.ceil(a),
        torch.trunc(a),
        torch.sign(a),
        torch.reciprocal(a),
        torch.sqrt(a),
        torch.where(flag, a, b),
        torch.where(flag, a, 7.0),
        torch.addcmul(a, b, b, value=-2),
        flag.to(a.dtype),
        torch.where(torch.isfinite(a), a.clamp(-9, 9), 0.0).to(torch.int64).to(a.dtype),
        torch.where(a.to(torch.bool), 1.0, 2.0).to(a.dtype),
        torch.relu(a),
        torch.nan_to_num(a),
    ]


def functions(a: Tensor, b: Tensor) -> list[Tensor]:
    """Everything that is rounded on the way."""
    share = torch.sigmoid(b)
    return [
        torch.sin(a),
        torch.cos(a),
        torch.exp(a),
        torch.expm1(a),
        torch.log(a),
        torch.log1p(a),
        torch.tanh(a),
        torch.erf(a),
        torch.acos(a),
        torch.asin(a),
        torch.atan(a),
        torch.atan2(a, b),
        torch.hypot(a, b),
        share,
        torch.lerp(a, b, share),
        F.gelu(a),
        F.silu(a),
        F.softplus(a),
    ]


def flags(a: Tensor, b: Tensor) -> list[Tensor]:
    """Everything that is true or false."""
    less, finite = a < b, torch.isfinite(a)
    return [
        a.isnan(),
        less,
        a <= b,
        a > b,
        a >= b,
        a == b,
        a != b,
        finite,
        less & finite,
        less | ~finite,
        a > 1,
        a == 0,
    ]


def moved(a: Tensor, b: Tensor) -> list[Tensor]:
    """Entries that come to lie elsewhere, and some that were none of the row's."""
    both = torch.stack([a, b], dim=-1)
    turned = both[:, None, :].expand(-1, 2, 2).transpose(1, 2)
    return [
        torch.cat([both, both[:, :1]], dim=-1),
        turned * torch.eye(2).to(a),
        both.repeat(1, 2).reshape(-1, 2, 2).permute(0, 2, 1),
        both.unbind(-1)[1],
        torch.full_like(both, 3.0) + both.new_zeros(2),
        both[:, 1:].squeeze(-1),
        both[:, :, None].expand(-1, -1, 3).clone().detach(),
        torch.cat([both.flip(-1), both.roll(1, -1), (both > 0).to(a)], dim=-1),
        torch.cat([*both.repeat(1, 3).split([2, 1, 3], dim=-1)][::-1], dim=-1),
        (both[:, :, None] * both[:, None, :]).diagonal(dim1=-2, dim2=-1),
    ]


def folded(a: Tensor, b: Tensor) -> list[Tensor]:
    """Entries of a row that are joined."""
    block = torch.stack([a, b, a - b, 2 * b, a * b, a + b], dim=-1).reshape(-1, 2, 3)
    return [
        block.sum((-2, -1)),
        block.sum(1, keepdim=True),
        block.mean(-1),
        block.prod(-1),
        block.amax((1, 2)),
        block.amin(-1, keepdim=True),
        (block > 0).all(-1),
        (block > 0).any(1),
        (block > 0).sum(-1).to(a.dtype),
    ]


def multiplied(a: Tensor, b: Tensor) -> list[Tensor]:
    """Products of matrices: of the row with itself, and with one that all rows share."""
    block = torch.stack([a, b, a - b, 2 * b, a * b, a + b], dim=-1).reshape(-1, 2, 3)
    shared = torch.arange(12.0, dtype=a.dtype).reshape(3, 4)
    return [block @ block.mT, block[:, 0] @ shared, block @ shared, torch.einsum("rij,rkj->rik", block, block)]


def changed(a: Tensor, b: Tensor) -> list[Tensor]:
    """What is done in place, as much code of others does it."""
    place = torch.zeros(len(a), 3, dtype=a.dtype)
    place[:, 0] = a
    place[:, 1:] += b[:, None]
    place[:, 2].mul_(2).sub_(a)
    flag = torch.zeros_like(a, dtype=torch.bool)
    flag |= a > b
    again = place.clone()
    again.fill_(3.0)
    place[:, 1].neg_().clamp_(min=-1)
    return [place, flag, again]


def checked(
    function: Callable[[Tensor, Tensor], list[Tensor]], a: Tensor, b: Tensor, *, optimise: bool = False, **close: float
) -> None:
    program = fused(lambda *pair: tuple(function(*pair)), a, b, optimise=optimise)
    with torch.no_grad():
        expected = columns_of(*[part.to(a.dtype) for part in function(a, b)])
    torch.testing.assert_close(program(columns_of(a, b)), expected, equal_nan=True, **close)


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)])
def test_operations(dtype: torch.dtype) -> None:
    pairs = torch.cartesian_prod(torch.tensor(ODD, dtype=torch.float64), torch.tensor(ODD, dtype=torch.float64))
    drawn = torch.randn(200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pairs = torch.cat([pairs, 3 * drawn]).to(dtype)
    a, b = pairs.unbind(-1)
    rounding = 4 * torch.finfo(dtype).eps
    # torch rounds a product that is added once; only an optimising compiler does so too.
    checked(numbers, a, b, optimise=True, rtol=rounding, atol=0)
    checked(flags, a, b, rtol=0, atol=0)
    checked(moved, a, b, rtol=0, atol=0)
    checked(changed, a, b, rtol=0, atol=0)
    tame = (pairs.abs() < 100).all(-1)
    checked(folded, a[tame], b[tame], rtol=rounding, atol=100 * rounding)
    checked(multiplied, a[tame], b[tame], rtol=2 * rounding, atol=1e4 * rounding)
    checked(functions, a[tame], b[tame], rtol=2 * rounding, atol=4 * rounding)


@pytest.mark.slow
def test_operations_in_half_as_wide_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("this processor has no wider ones")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    test_operations(torch.float64)


def halvings(a: Tensor, b: Tensor) -> list[Tensor]:
    """Loops within loops, each row for as long as it takes: how often `a` is halved to fall below 1, and twice that."""

    most = torch.full_like(a, 2.0)

    def goes_on(_: Tensor, left: Tensor) -> Tensor:
        return (left >= 1).any()

    def halve(count: Tensor, left: Tensor) -> tuple[Tensor, ...]:
        going = left >= 1

        def once(done: Tensor, twice: Tensor) -> tuple[Tensor, ...]:
            return done + 1, torch.where(going, twice + 1, twice)

        start = torch.zeros_like(count), count.clone()
        _, twice = loop(lambda done, _: (done < most).any(), once, start)
        return twice, torch.where(going, left / 2, left)

    count, left = loop(goes_on, halve, (torch.zeros_like(a), a.abs()))
    return [count, left, count + b]


def test_loops() -> None:
    a = torch.tensor([0.5, 1.0, 3.0, 1e9, 7.0] * 9, dtype=torch.float64)
    checked(halvings, a, torch.ones_like(a), rtol=0, atol=0)


def test_a_layer() -> None:
    for outputs in (1, 4, 7):
        layer = nn.Linear(2, outputs, dtype=torch.float64)
        with torch.no_grad():
            for part in layer.parameters():
                part.copy_(torch.randn(part.shape, generator=torch.Generator().manual_seed(outputs)))
        layer.requires_grad_(False)
        pairs = torch.randn(50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        checked(lambda a, b, layer=layer: [layer(torch.stack([a, b], -1))], *pairs.unbind(-1), rtol=1e-14, atol=1e-14)


def test_what_is_unknown_is_named() -> None:
    row = torch.zeros(1, 3)
    shared = torch.zeros(3)

    def decide(a: Tensor) -> list[Tensor]:
        return [a if bool(a[0, 0] > 0) else -a]

    for named, function in {
        "svd": lambda a: [torch.linalg.svdvals(a)],
        "is random": lambda a: [a + torch.rand(3)],
        "data-dependent": decide,
        "copy_.* not the row's own": lambda a: [shared.copy_(a[0])],
    }.items():
        with pytest.raises(NotImplementedError, match=named):
            write_step(function, [row])


def test_what_is_kept_of_a_traced_row_is_of_no_use_afterwards() -> None:
    kept = []

    def function(a: Tensor) -> list[Tensor]:
        kept.append(a)
        return [a]

    write_step(function, [torch.zeros(1, 3)])
    with pytest.raises(NotImplementedError, match="kept a tensor of a traced row"):
        kept[0] + 1


def test_what_nothing_needs_is_left_out() -> None:
    def function(a: Tensor) -> list[Tensor]:
        a.sin().cos()
        return [a.exp()]

    text = write_step(function, [torch.zeros(1, 1)])
    assert "exp" in text and "sin" not in text and "cos" not in text
