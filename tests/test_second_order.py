"""Levenberg-Marquardt over the weights of a network, by itself; its training is in test_training.py."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from aimback.learn import second_order
from aimback.learn.perceptron import _ACTIVATIONS
from aimback.learn.second_order import DampedLeastSquares, weight_jacobian


def layers_of(*widths: int, activation="tanh", seed=0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, dtype=torch.float64), _ACTIVATIONS[activation]()]
    for layer in layers[::2]:
        for tensor in layer.parameters():
            tensor.data.uniform_(-1, 1, generator=generator)
    return nn.Sequential(*layers[:-1])


def examples(count: int, n_inputs: int, n_outcomes: int) -> tuple[Tensor, Tensor]:
    inputs = torch.rand(count, n_inputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    mixed = inputs @ torch.linspace(-1, 2, n_inputs * n_outcomes, dtype=torch.float64).reshape(n_inputs, n_outcomes)
    return inputs, torch.sin(2 * mixed) + mixed


def mean_squared_error(layers: nn.Sequential, inputs: Tensor, outcomes: Tensor) -> Tensor:
    return (layers(inputs) - outcomes).square().mean()


@pytest.mark.parametrize("activation", _ACTIVATIONS)
@pytest.mark.parametrize("widths", [(3, 2), (3, 4, 1), (2, 4, 5, 3)])
def test_the_jacobian_by_the_weights_agrees_with_autograd(activation, widths):
    layers = layers_of(*widths, activation=activation)
    inputs, _ = examples(6, widths[0], widths[-1])
    outcome, jacobian = weight_jacobian(layers, inputs)
    assert jacobian.shape == (6, widths[-1], sum(weight.numel() for weight in layers.parameters()))
    torch.testing.assert_close(outcome, layers(inputs), rtol=0, atol=0)
    for row, values in enumerate(layers(inputs)):
        for column, value in enumerate(values):
            gradient = torch.autograd.grad(value, [*layers.parameters()], retain_graph=True)
            torch.testing.assert_close(jacobian[row, column], parameters_to_vector(gradient), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("damping", "decay"), [(1e-12, 0.0), (0.3, 0.0), (1e-12, 0.4), (0.3, 0.4)])
def test_a_step_of_a_linear_map_is_the_least_squares_solution(damping, decay):
    """mean |X v - y|^2 + decay / 2 |v|^2 + damping |v - w|^2 has one minimiser, in closed form."""
    layers = layers_of(3, 1)
    inputs, outcomes = examples(40, 3, 1)
    before = parameters_to_vector(layers.parameters()).detach()
    design = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
    eye = torch.eye(4, dtype=torch.float64)
    matrix = design.T @ design / 40 + (decay / 2 + damping) * eye
    wanted = torch.linalg.solve(matrix, design.T @ outcomes[:, 0] / 40 + damping * before)
    DampedLeastSquares(layers, 1 / damping, decay).step(inputs=inputs, outcomes=outcomes)
    torch.testing.assert_close(parameters_to_vector(layers.parameters()), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("learning_rate", [1e-3, 1.0, 1e6])
def test_a_step_lowers_the_loss_it_returns_from_any_first_damping(learning_rate):
    layers = layers_of(2, 6, 6, 2)
    inputs, outcomes = examples(100, 2, 2)
    optimizer = DampedLeastSquares(layers, learning_rate)
    for _ in range(20):
        before = mean_squared_error(layers, inputs, outcomes)
        returned = optimizer.step(inputs=inputs, outcomes=outcomes)
        torch.testing.assert_close(returned, before, rtol=1e-12, atol=0)
        assert mean_squared_error(layers, inputs, outcomes) < before
        assert not optimizer.stalled


def test_it_converges_faster_than_linearly_where_the_residuals_vanish():
    truth, layers = layers_of(2, 3, 1, seed=5), layers_of(2, 3, 1, seed=5)
    inputs, _ = examples(200, 2, 1)
    outcomes = truth(inputs).detach()
    for weight in layers.parameters():
        weight.data *= 1.01
    optimizer = DampedLeastSquares(layers, 1e4)
    losses = [optimizer.step(inputs=inputs, outcomes=outcomes).item() for _ in range(26)]
    shares = [later / loss for loss, later in pairwise(losses) if later > 1e-28]
    assert min(losses) < 1e-24
    assert shares[-1] < 1e-2


@pytest.mark.parametrize("is_finite", [True, False])
def test_at_the_minimum_and_where_the_loss_is_not_finite_it_stalls_and_leaves_the_weights_alone(is_finite):
    layers = layers_of(2, 3, 1)
    inputs, _ = examples(30, 2, 1)
    outcomes = layers(inputs).detach()
    outcomes[7] = outcomes[7] if is_finite else torch.nan
    optimizer = DampedLeastSquares(layers, 1.0)
    before = [weight.clone() for weight in layers.parameters()]
    assert torch.isnan(optimizer.step(inputs=inputs, outcomes=outcomes)) != is_finite
    assert optimizer.stalled
    assert all(torch.equal(weight, old) for weight, old in zip(layers.parameters(), before, strict=True))


def test_the_size_of_the_portions_changes_rounding_only(monkeypatch):
    inputs, outcomes = examples(100, 2, 2)
    results = []
    for numbers in (2**20, 1, 500):
        monkeypatch.setattr(second_order, "_NUMBERS_A_PORTION", numbers)
        layers = layers_of(2, 5, 2)
        DampedLeastSquares(layers, 10.0).step(inputs=inputs, outcomes=outcomes)
        results.append(parameters_to_vector(layers.parameters()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(results[2], results[0], rtol=1e-9, atol=1e-12)


def test_the_state_dict_carries_the_damping():
    inputs, outcomes = examples(100, 2, 2)
    one, other = layers_of(2, 5, 2), layers_of(2, 5, 2)
    optimizer = DampedLeastSquares(one, 10.0)
    for _ in range(3):
        optimizer.step(inputs=inputs, outcomes=outcomes)
    other.load_state_dict(one.state_dict())
    resumed = DampedLeastSquares(other, 10.0)
    resumed.load_state_dict(optimizer.state_dict())
    for each in (optimizer, resumed):
        each.step(inputs=inputs, outcomes=outcomes)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_float32_goes_the_way_of_float64_until_its_rounding_shows():
    errors = []
    for dtype in (torch.float64, torch.float32):
        layers = layers_of(2, 8, 8, 1).to(dtype)
        inputs, outcomes = (part.to(dtype) for part in examples(300, 2, 1))
        optimizer = DampedLeastSquares(layers, 100.0)
        errors.append([optimizer.step(inputs=inputs, outcomes=outcomes).sqrt().item() for _ in range(60)])
        assert {weight.dtype for weight in layers.parameters()} == {dtype}
    assert errors[0][-1] < errors[0][0] / 10_000
    # Below this share of where it began, what float32 makes of the Jacobian depends on the processor's instructions.
    rounding = torch.finfo(torch.float32).eps ** 0.5 * errors[0][0]
    before = [error for error in errors[0] if error > rounding]
    assert len(before) > 15
    assert errors[1][: len(before)] == pytest.approx(before, rel=0.1)
    assert errors[1][-1] < rounding
