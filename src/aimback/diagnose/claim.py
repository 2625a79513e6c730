"""A claim about two routes, the number that it comes down to, and the verdict by a stated rule."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Verdict = Literal["supported", "refuted", "undecided"]
_TEXTS = ("says", "question", "unit", "is_share", "bound", "measure", "rule", "because")
# Of a batch of samples `(..., n, *rest)`, the number that matters, `(...)`.
Statistic = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Estimate:
    """A number and how sure it is; None where there was nothing to measure.

    Attributes:
        value: from the run's own network.
        low, high: the ends of its 95 % bootstrap interval, over the samples: mostly targets.
        seeds: the same number by network: the run's own, then its replicas, each of another seed. One entry
            where no network comes in.
    """

    value: float | None
    low: float | None
    high: float | None
    seeds: tuple[float | None, ...]

    def decide(self, bound: float) -> Verdict:
        """Whether the number lies above a bound: only where the whole interval and every seed's number do."""
        if self.value is None or self.low is None or self.high is None:
            return "undecided"
        numbers = [self.low, self.high, *(seed for seed in self.seeds if seed is not None)]
        if min(numbers) > bound:
            return "supported"
        return "refuted" if max(numbers) <= bound else "undecided"


@dataclass(frozen=True)
class Claim:
    """What became of a claim on one task.

    Attributes:
        key: "C1" to "C9".
        says: the claim, as the article has it.
        question: the claim as what is to be found out.
        unit: what the number counts.
        bound: the claim is supported above it.
        measure: what the number is, in words, with its unit.
        number: the number that decides.
        rule: how the number decides.
        because: the verdict's ground, one sentence for people, with its figures.
        is_share: whether the number is a share, to be told in per cent.
        details: further numbers, by name.
    """

    key: str
    says: str
    question: str
    unit: str
    bound: float
    measure: str
    number: Estimate
    rule: str
    because: str
    is_share: bool = False
    details: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """What the number decides."""
        return self.number.decide(self.bound)

    def metrics(self) -> dict[str, Any]:
        """The numbers and the verdict, for JSON."""
        return {"verdict": self.verdict, **asdict(self.number), **self.details}

    def texts(self) -> dict[str, Any]:
        """The words, and the bound that they tell, for JSON."""
        return {name: getattr(self, name) for name in _TEXTS}


def estimate(samples: Sequence[Tensor], statistic: Statistic, generator: torch.Generator, resamples: int) -> Estimate:
    """A statistic with its bootstrap interval (Efron 1979, percentiles) and its spread over networks.

    Args:
        samples: by network, the run's own first: `(n, *rest)`, one row a target, or whatever else is drawn
            with replacement: the starts of a target are no independent samples.
        statistic: of `(..., n, *rest)`.
    """
    own = samples[0]
    if len(own) == 0:
        return Estimate(None, None, None, (None,) * len(samples))
    seeds = tuple(_number(statistic(sample)) for sample in samples)
    if len(own) == 1:  # drawn from itself it is always the same: no interval
        return Estimate(seeds[0], None, None, seeds)
    rows = torch.randint(len(own), (resamples, len(own)), generator=generator)
    drawn = statistic(own[rows])
    low, high = (_number(drawn.nanquantile(share)) for share in (0.025, 0.975))
    return Estimate(seeds[0], low, high, seeds)


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
