import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from plans import plan_network
from pydantic import ValidationError
from safetensors.torch import load_file, save
from torch import nn

from aimback.autodiff.any_torch import linearise_by_autograd
from aimback.core.errors import UserError
from aimback.core.files import sha256
from aimback.data.dataset import Dataset, simulate_dataset
from aimback.data.identity import identify
from aimback.learn.perceptron import with_batch_norm, without_batch_norm
from aimback.learn.surrogate import _WIDE, Surrogate
from aimback.settings.learning import ACTIVATIONS
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.heat import Heat

TASK = CannonDrag()


def dataset_of(task) -> Dataset:
    return simulate_dataset(task, 60, 0.2, torch.Generator().manual_seed(0))


DATASET = dataset_of(TASK)


def untrained(task=TASK, dataset=DATASET, seed=0, **settings) -> Surrogate:
    generator = torch.Generator().manual_seed(seed)
    return Surrogate.for_dataset(dataset, task, plan_network(**settings), generator).double()


def rows(count: int, task=TASK) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return task.box.sample(count, generator), task.conditions.sample(count, generator)


def test_uniform_inputs_and_training_outcomes_are_scaled_to_mean_0_and_variance_1():
    surrogate = untrained()
    scaled = surrogate.standardise_inputs(*rows(100_000))
    assert scaled.mean(0).tolist() == pytest.approx([0.0] * 3, abs=0.01)
    assert scaled.var(0).tolist() == pytest.approx([1.0] * 3, abs=0.01)
    training = surrogate.standardise_outcomes(DATASET.outcomes[: DATASET.n_training])
    assert abs(training.mean().item()) < 1e-6
    assert training.square().mean().item() == pytest.approx(1.0, abs=1e-6)


def test_the_network_is_the_formula():
    surrogate = untrained(hidden_width=5, hidden_layers=2, activation="tanh")
    controls, conditions = rows(7)
    hidden = surrogate.standardise_inputs(controls, conditions)
    linear = [layer for layer in surrogate.layers if isinstance(layer, nn.Linear)]
    for layer in linear[:-1]:
        hidden = torch.tanh(hidden @ layer.weight.T + layer.bias)
    wanted = (hidden @ linear[-1].weight.T + linear[-1].bias) * surrogate.outcome_scale + surrogate.outcome_mean
    torch.testing.assert_close(surrogate(controls, conditions), wanted)


def test_the_first_call_imports_nothing():
    """Whoever measures the first targets would measure the import too: torch's broadcast_shapes takes sympy."""
    program = """
import sys, torch
from aimback.autodiff.dual import linearise
from aimback.data.dataset import simulate_dataset
from aimback.learn.surrogate import Surrogate
from aimback.settings.learning import NetworkSettings
from aimback.tasks.cannon_drag import CannonDrag
task, generator = CannonDrag(), torch.Generator().manual_seed(0)
network = NetworkSettings(hidden_width=4, hidden_layers=1, activation="tanh", normalisation="none", members=1)
surrogate = Surrogate.for_dataset(simulate_dataset(task, 20, 0.2, generator), task, network, generator).double()
given = task.box.sample(3, generator), task.conditions.sample(3, generator)
before = set(sys.modules)
surrogate.linearise(*given)
linearise(task, *given)
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before} - {"aimback"}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_weights_come_from_the_generator_alone():
    before = torch.random.get_rng_state()
    one, same, other = untrained(seed=3), untrained(seed=3), untrained(seed=4)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.layers[0].weight, other.layers[0].weight)
    # The distribution that nn.Linear has: uniform within 1 / sqrt(inputs).
    weight = one.layers[2].weight
    bound = weight.shape[1] ** -0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_a_constant_outcome_keeps_scale_one_and_is_named(caplog):
    flat = Dataset(DATASET.controls, DATASET.conditions, torch.full_like(DATASET.outcomes, 2.5), 5)
    with caplog.at_level(logging.WARNING):
        surrogate = untrained(dataset=flat)
    assert surrogate.outcome_scale.item() == 1
    assert "distance" in caplog.text
    assert torch.isfinite(surrogate(*rows(3))).all()


def test_a_condition_that_does_not_vary_has_scale_one():
    still = CannonDrag(wind=[0.0, 0.0])
    surrogate = untrained(still, dataset_of(still))
    assert torch.isfinite(surrogate(*rows(3, still))).all()


@pytest.mark.parametrize(
    "shape",
    [
        *({"activation": activation} for activation in ACTIVATIONS),
        *({"hidden_layers": 2, "hidden_width": width} for width in (_WIDE - 1, _WIDE)),
        *({"hidden_layers": layers, "hidden_width": _WIDE} for layers in (0, 1)),
    ],
    ids=str,
)
def test_linearise_agrees_with_autograd(shape):
    surrogate = untrained(**shape)
    controls, conditions = rows(33)
    outcome, jacobian = surrogate.linearise(controls, conditions)
    wanted_outcome, wanted_jacobian = linearise_by_autograd(surrogate, controls, conditions)
    assert torch.equal(outcome, wanted_outcome)
    assert torch.equal(outcome, surrogate(controls, conditions))
    torch.testing.assert_close(jacobian, wanted_jacobian, rtol=1e-11, atol=1e-12)


def moved_batch_norm(hidden_layers: int) -> nn.Sequential:
    """Layers whose batch normalisations are far from the identity."""
    layers = with_batch_norm(untrained(hidden_width=7, hidden_layers=hidden_layers, activation="relu").layers)
    generator = torch.Generator().manual_seed(2)
    for layer in layers:
        if isinstance(layer, nn.BatchNorm1d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean):
                tensor.uniform_(-2, 2, generator=generator)
            layer.running_var.uniform_(1e-6, 4, generator=generator)
    return layers


def test_batch_norm_follows_every_linear_layer_but_the_last_and_draws_nothing():
    surrogate = untrained(hidden_width=7, hidden_layers=2, activation="relu")
    before = torch.random.get_rng_state()
    layers = with_batch_norm(surrogate.layers)
    assert torch.equal(before, torch.random.get_rng_state())
    block = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in layers] == [*block, *block, nn.Linear]
    assert all(tensor.dtype == torch.float64 for tensor in layers.parameters())
    # The same weights: training these trains the surrogate's.
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert all(one is other for one, other in zip(linear, surrogate.layers[::2], strict=True))


@pytest.mark.parametrize("hidden_layers", [0, 1, 3])
def test_folded_layers_give_what_the_formula_of_batch_norm_gives(hidden_layers):
    layers = moved_batch_norm(hidden_layers)
    inputs = torch.rand(50, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    wanted = inputs
    for layer in layers:
        if isinstance(layer, nn.Linear):
            wanted = wanted @ layer.weight.T + layer.bias
        elif isinstance(layer, nn.BatchNorm1d):
            wanted = (wanted - layer.running_mean) / (layer.running_var + 1e-5).sqrt() * layer.weight + layer.bias
        else:
            wanted = wanted.clamp_min(0)
    plain = without_batch_norm(layers)
    assert [type(layer) for layer in plain] == [nn.Linear, nn.ReLU] * hidden_layers + [nn.Linear]
    torch.testing.assert_close(plain(inputs), wanted, rtol=1e-12, atol=1e-12)


def joined(count: int, **settings) -> Surrogate:
    return Surrogate.join([untrained(seed=seed, **settings) for seed in range(count)])


@pytest.mark.parametrize("hidden_width", [8, _WIDE])
def test_an_ensemble_is_the_mean_of_its_members(hidden_width):
    singles = [untrained(seed=seed, hidden_width=hidden_width) for seed in range(3)]
    ensemble, (controls, conditions) = joined(3, hidden_width=hidden_width), rows(33)
    outcomes, jacobians = map(torch.stack, zip(*(one.linearise(controls, conditions) for one in singles), strict=True))
    outcome, jacobian = ensemble.linearise(controls, conditions)
    torch.testing.assert_close(outcome, sum(outcomes) / 3)
    torch.testing.assert_close(jacobian, sum(jacobians) / 3)
    assert torch.equal(outcome, ensemble(controls, conditions))
    torch.testing.assert_close(jacobian, linearise_by_autograd(ensemble, controls, conditions)[1])
    spread = ensemble.measure_spread(controls, conditions)
    torch.testing.assert_close(spread, (sum(outcomes.square()) / 3 - outcome.square()).sqrt())
    assert torch.equal(spread[7:9], ensemble.measure_spread(controls[7:9], conditions[7:9]))
    assert not singles[0].measure_spread(controls, conditions).any()
    for single, wanted in zip(ensemble.split(), singles, strict=True):
        assert torch.equal(single(controls, conditions), wanted(controls, conditions))


@pytest.mark.parametrize("leading", [(), (0,), (5,), (4, 3), (2, 3, 4)])
def test_any_leading_shape(leading):
    surrogate = untrained()
    controls, conditions = rows(max(1, torch.Size(leading).numel()))
    controls = controls[: torch.Size(leading).numel()].reshape(*leading, 2)
    conditions = conditions[: torch.Size(leading).numel()].reshape(*leading, 1)
    outcome, jacobian = surrogate.linearise(controls, conditions)
    assert surrogate(controls, conditions).shape == outcome.shape == (*leading, 1)
    assert jacobian.shape == (*leading, 1, 2)


def test_one_condition_serves_many_starts():
    surrogate = untrained()
    controls, conditions = rows(12)
    together = surrogate(controls.reshape(4, 3, 2), conditions[:4].reshape(4, 1, 1))
    wanted = surrogate(controls, conditions[:4].repeat_interleave(3, 0))
    assert torch.equal(together.reshape(12, 1), wanted)


def test_a_task_without_conditions():
    task = CannonVacuum()
    surrogate = untrained(task, dataset_of(task))
    outcome, jacobian = surrogate.linearise(*rows(6, task))
    assert outcome.shape == (6, 1)
    assert jacobian.shape == (6, 1, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("task", "width"), [*((TASK, width) for width in (16, 100, 256, 500)), (Heat(rows=4), 16)])
def test_a_row_does_not_feel_the_rest_of_the_batch(dtype, threads, task, width):
    surrogate = untrained(task, dataset_of(task), hidden_width=width, hidden_layers=2).to(dtype)
    controls, conditions = (part.to(dtype) for part in rows(3000, task))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        outcome, jacobian = surrogate.linearise(controls, conditions)
        for start, count in [(0, 1), (1, 1), (2999, 1), (7, 3), (100, 255), (100, 256), (100, 257), (5, 2001)]:
            part = slice(start, start + count)
            some_outcome, some_jacobian = surrogate.linearise(controls[part], conditions[part])
            assert torch.equal(some_outcome, outcome[part])
            assert torch.equal(some_jacobian, jacobian[part])
        broken = controls.clone()
        broken[1::2] = torch.nan
        assert torch.equal(surrogate(broken, conditions)[::2], outcome[::2])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_file_gives_back_the_same_bits_and_the_same_bytes(tmp_path: Path, dtype):
    surrogate = untrained(activation="gelu").to(dtype)
    one, two = tmp_path / "one" / "weights.safetensors", tmp_path / "two" / "weights.safetensors"
    surrogate.save(one, TASK)
    back = Surrogate.load(one, TASK)
    back.save(two, TASK)
    for suffix in (".safetensors", ".sha256"):
        assert one.with_suffix(suffix).read_bytes() == two.with_suffix(suffix).read_bytes()
    points = [part.to(dtype) for part in rows(20)]
    assert torch.equal(back(*points), surrogate(*points))
    assert not any(parameter.requires_grad for parameter in back.parameters())
    assert Surrogate.load(one, TASK, dtype=torch.float64)(*rows(2)).dtype == torch.float64


def test_every_flipped_bit_and_every_missing_byte_is_noticed(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    untrained(hidden_width=2, hidden_layers=1).save(path, TASK)
    for file in (path, path.with_suffix(".sha256")):
        sound = file.read_bytes()
        for where in range(0, min(len(sound), 64 if file != path else len(sound)), 11):
            file.write_bytes(sound[:where] + bytes([sound[where] ^ 4]) + sound[where + 1 :])
            with pytest.raises(UserError, match=r"weights.safetensors: damaged .*dvc repro"):
                Surrogate.load(path, TASK)
        file.write_bytes(sound[: len(sound) // 3])
        with pytest.raises(UserError, match="damaged"):
            Surrogate.load(path, TASK)
        file.write_bytes(sound)
    Surrogate.load(path, TASK)


def test_the_file_of_an_ensemble_holds_all_of_it(tmp_path: Path):
    path, ensemble = tmp_path / "weights.safetensors", joined(11, hidden_width=2, hidden_layers=1)
    ensemble.save(path, TASK)
    back = Surrogate.load(path, TASK)
    assert len(back.members) == 11
    assert torch.equal(back.measure_spread(*rows(5)), ensemble.measure_spread(*rows(5)))
    tensors = load_file(path)
    tensors["others.3.0.weight"] = tensors["others.3.0.weight"][:1].contiguous()
    resaved(path, lambda own: own.update(tensors))
    with pytest.raises(UserError, match=r"size mismatch for others\.3\.0\.weight"):
        Surrogate.load(path, TASK)


@pytest.mark.parametrize("gone", [".safetensors", ".sha256"])
def test_a_missing_file_is_named(tmp_path: Path, gone):
    path = tmp_path / "weights.safetensors"
    untrained().save(path, TASK)
    path.with_suffix(gone).unlink()
    with pytest.raises(UserError, match=f"weights{gone}: there is no such file"):
        Surrogate.load(path, TASK)


@pytest.mark.parametrize("other", [CannonDrag(drag=0.2), CannonDrag(speed=[0, 20]), CannonVacuum()])
def test_weights_of_another_task_are_refused(tmp_path: Path, other):
    path = tmp_path / "weights.safetensors"
    untrained().save(path, TASK)
    with pytest.raises(UserError, match="another task"):
        Surrogate.load(path, other)


def test_weights_of_another_standardisation_are_refused(tmp_path: Path):
    path, surrogate = tmp_path / "weights.safetensors", untrained()
    surrogate.input_scale *= 2
    surrogate.save(path, TASK)
    with pytest.raises(UserError, match="standardised otherwise"):
        Surrogate.load(path, TASK)


def resaved(path: Path, change=lambda tensors: None, **about) -> None:
    """Write a small network with something changed, under a checksum that is right."""
    surrogate = untrained(hidden_width=2, hidden_layers=1).float()
    surrogate.save(path, TASK)
    tensors = load_file(path)
    change(tensors)
    architecture = {"hidden_width": 2, "hidden_layers": 1, "activation": "gelu"}
    stated = {"architecture": architecture, "identity": identify(TASK)} | about
    path.write_bytes(save(tensors, metadata={"aimback": json.dumps(stated)}))
    path.with_suffix(".sha256").write_text(f"{sha256(path)}  {path.name}\n")


def put(name: str, change):
    return lambda tensors: tensors.update({name: change(tensors[name])})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("layers.0.weight", lambda weight: weight * math.nan), "layers.0.weight is not finite everywhere"),
        (put("layers.2.bias", lambda bias: bias / 0), "layers.2.bias is not finite everywhere"),
        (put("outcome_mean", lambda mean: mean.double()), "its tensors are torch.float32 and torch.float64"),
        (put("layers.0.weight", lambda weight: weight.half()), "its tensors are torch.float16 and torch.float32"),
        (put("layers.0.bias", lambda bias: bias.long()), "its tensors are torch.float32 and torch.int64"),
        (put("layers.0.bias", lambda bias: bias.bool()), "its tensors are torch.bool and torch.float32"),
        (
            put("layers.0.bias", lambda bias: bias.to(torch.complex64)),
            "its tensors are torch.complex64 and torch.float32",
        ),
        (put("layers.0.weight", lambda weight: weight[:, :2].contiguous()), "size mismatch for layers.0.weight"),
        (put("layers.2.bias", lambda bias: bias[0]), "size mismatch for layers.2.bias"),
        (put("input_scale", lambda scale: scale[:1]), "size mismatch for input_scale"),
        (lambda tensors: tensors.pop("layers.0.weight"), "layers.0.weight"),
        (lambda tensors: tensors.pop("outcome_mean"), "Missing key"),
        (lambda tensors: tensors.update({"more": torch.zeros(1)}), "Unexpected key"),
        (lambda tensors: tensors.update({"others.0.0.weight": torch.zeros(2, 3)}), "Missing key"),
        (lambda tensors: tensors.update({"others.7.0.weight": torch.zeros(2, 3)}), "Missing key"),
        (lambda tensors: tensors.clear(), "layers.0.weight"),
    ],
)
def test_weights_that_are_none_of_this_network_are_refused(tmp_path: Path, change, reason):
    path = tmp_path / "weights.safetensors"
    resaved(path, change)
    with pytest.raises(UserError, match="not a surrogate that this version can read .*; run `dvc repro`") as caught:
        Surrogate.load(path, TASK)
    assert reason in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "about",
    [
        {"architecture": {"hidden_width": 7, "hidden_layers": 1, "activation": "gelu"}},
        {"architecture": {"hidden_width": 2**62, "hidden_layers": 1, "activation": "gelu"}},
        {"architecture": {"hidden_width": 2, "hidden_layers": 2**62, "activation": "gelu"}},
        {"architecture": {"hidden_width": 2, "hidden_layers": 1, "activation": "sin"}},
        {"architecture": {"hidden_width": 2, "hidden_layers": 1, "activation": ["gelu"]}},
        {"architecture": {"hidden_width": 2, "hidden_layers": 1, "activation": "gelu", "optimizer": "none"}},
        {"architecture": {}},
        {"architecture": None},
        {"identity": None},
        {"identity": "[[1, 2]]"},
    ],
)
def test_a_description_that_is_none_of_these_weights_is_refused(tmp_path: Path, about):
    path = tmp_path / "weights.safetensors"
    resaved(path, **about)
    with pytest.raises(UserError, match="weights.safetensors: .*; run `dvc repro`"):
        Surrogate.load(path, TASK)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_width", 0),
        ("hidden_width", 1.5),
        ("hidden_width", True),
        ("hidden_layers", -1),
        ("activation", "swish"),
        ("normalisation", "layer"),
        ("members", 0),
        ("learning_rate", 0.1),
    ],
)
def test_settings_refuse_what_is_not_allowed(key, value):
    with pytest.raises(ValidationError) as caught:
        plan_network(**{key: value})
    assert [error["loc"] for error in caught.value.errors()] == [(key,)]
