"""Puts samples into a few numbers and words. What could not be measured is NaN, and is left out."""

from torch import Tensor

from aimback.diagnose.claim import Estimate


def quantile(values: Tensor, share: float) -> float | None:
    """Of all that is finite; None where nothing is."""
    finite = values[values.isfinite()]
    return float(finite.quantile(share)) if finite.numel() else None


def median(values: Tensor) -> float | None:
    return quantile(values, 0.5)


def mean(values: Tensor) -> float | None:
    """Of all that is finite; None where nothing is."""
    finite = values[values.isfinite()].double()
    return float(finite.mean()) if finite.numel() else None


def share(flags: Tensor, among: Tensor) -> float | None:
    """Of those `among` that are flagged; None where there are none."""
    return mean(flags[among].double())


def medians(sample: Tensor) -> Tensor:
    """The median of `(..., n, m)` over its last two dimensions, `(...)`: a statistic for `estimate`."""
    middle: Tensor = sample.flatten(-2).nanquantile(0.5, dim=-1)
    return middle


def correlate_ranks(pairs: Tensor) -> Tensor:
    """Spearman's rank correlation (1904) of the columns of `(..., n, 2)`, `(...)`: a statistic for `estimate`.

    Equal values share their mean rank; NaN where all values of a column are equal.
    """
    one, other = pairs.unsqueeze(-2), pairs.unsqueeze(-3)
    # A row is above so many more than it is below: its rank, up to scale and shift.
    ranks = ((one > other).double() - (one < other).double()).sum(-2)
    correlation: Tensor = ranks.prod(-1).sum(-1) / ranks.square().sum(-2).prod(-1).sqrt()
    return correlation


def figure(number: float | None) -> str:
    """Three digits, for people."""
    return "unknown" if number is None else f"{number:.3g}"


def sureness(number: Estimate) -> str:
    """The interval, and the spread over networks where there are several: "95 % interval 1 to 2, networks 1 to 3"."""
    words = f"95 % interval {figure(number.low)} to {figure(number.high)}"
    seeds = [seed for seed in number.seeds if seed is not None]
    return words if len(seeds) < 2 else f"{words}, networks {figure(min(seeds))} to {figure(max(seeds))}"
