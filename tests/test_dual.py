"""Dual numbers against autograd and closed forms."""

import pytest
import torch
from torch.nn import functional as F

from aimback.autodiff.any_torch import linearise_by_autograd
from aimback.autodiff.dual import Dual, linearise, seed

W = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
B = torch.linspace(0.1, 0.7, 5, dtype=torch.float64)

MAPS = {
    "arithmetic": lambda c, k: torch.stack([c[..., 0] * c[..., 1] - k[..., 0] / (2 + c[..., 0] * c[..., 0])], dim=-1),
    "reflected": lambda c, k: torch.stack([1.0 / (2 + c[..., 0]) + (3.0 - c[..., 1]) - (-c[..., 0])], dim=-1),
    "tensor on the left": lambda c, k: torch.stack(
        [k[..., 0] + c[..., 0], k[..., 0] - c[..., 0], k[..., 0] * c[..., 1], k[..., 0] / (3 + c[..., 1])], dim=-1
    ),
    "addcmul": lambda c, k: torch.stack(
        [
            torch.addcmul(c[..., 0], c[..., 1], c[..., 1], value=0.5),
            torch.addcmul(c[..., 0], k[..., 0], c[..., 1]),
            torch.addcmul(k[..., 0], c[..., 0], k[..., 0]),
        ],
        dim=-1,
    ),
    "functions": lambda c, k: (
        torch.sin(c) * torch.exp(-c)
        + torch.cos(c) * torch.log(3 + c)
        + torch.sqrt(2 + c * c)
        + torch.sigmoid(c) * torch.expm1(c)
    ),
    "where": lambda c, k: torch.where(k > 0, c * c, -c) + torch.where(k > 0, 1.0, c) + torch.where(k < 0, c, k),
    "network": lambda c, k: F.linear(torch.cat([c, k], dim=-1), W, B),
    **{
        name: lambda c, k, f=f: f(F.linear(torch.cat([c, k], dim=-1), W, B))
        for name, f in {
            "tanh": torch.tanh,
            "silu": F.silu,
            "relu": F.relu,
            "gelu": F.gelu,
            "softplus": F.softplus,
        }.items()
    },
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("batch", [(), (7,), (3, 4)])
def test_agrees_with_autograd(name: str, batch: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    controls = torch.randn(*batch, 2, generator=generator, dtype=torch.float64)
    conditions = torch.randn(*batch, 1, generator=generator, dtype=torch.float64)
    outcome, jacobian = linearise(MAPS[name], controls, conditions)
    expected, gradient = linearise_by_autograd(MAPS[name], controls, conditions)
    torch.testing.assert_close(outcome, expected, rtol=0, atol=0)
    torch.testing.assert_close(jacobian, gradient, rtol=1e-13, atol=1e-13)
    assert jacobian.shape == (*outcome.shape, 2)


def test_product_and_quotient_rule_by_hand() -> None:
    x, y = seed(torch.tensor([3.0, 4.0])).unbind(-1)
    product, quotient = x * y, x / y
    assert product.tangent.tolist() == [4.0, 3.0]
    assert quotient.tangent.tolist() == [0.25, -0.1875]


def test_what_has_no_rule_says_so() -> None:
    with pytest.raises(TypeError, match="have no rule for erfinv"):
        torch.erfinv(seed(torch.tensor([0.1])))


def test_dimensions_are_counted_from_the_end() -> None:
    parts = [Dual(torch.ones(2), torch.ones(1, 2))] * 2
    with pytest.raises(ValueError, match="from the end"):
        torch.stack(parts)
