"""The network that stands alone: its first weights, and that it is what its config says."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from hpo.config import MlpConfig
from hpo.models.activations import ACTIVATIONS
from hpo.models.mlp import HiddenLayer, Mlp, initial_state

INPUTS, OUTPUTS = 500, 300


def drawn(config: MlpConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    return initial_state(config, INPUTS, OUTPUTS, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rule", ["he", "xavier", "lecun"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_weights_are_normal_with_the_variance_of_their_rule(rule: str, batch_norm: bool) -> None:
    config = MlpConfig(widths=(400, 600), batch_norm=batch_norm, initialization=rule)
    state = drawn(config)
    names = ["layers.0.linear.weight", "layers.1.linear.weight", "output.weight"]
    for name, (fan_in, fan_out) in zip(names, pairwise([INPUTS, 400, 600, OUTPUTS]), strict=True):
        weight = state[name].double()
        assert weight.shape == (fan_out, fan_in)
        expected = {
            "he": 2 / fan_in,
            "xavier": 2 / (fan_in + fan_out),
            "lecun": 1 / fan_in,
        }[rule]
        n = weight.numel()
        std = math.sqrt(expected)
        # Five standard errors of a mean, and of a variance of normal draws.
        assert abs(weight.mean()) < 5 * std / math.sqrt(n)
        assert weight.square().mean().item() == pytest.approx(expected, rel=5 * math.sqrt(2 / n))
        assert (weight.abs() < std).double().mean().item() == pytest.approx(0.6827, abs=0.01)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("widths", [(), (7,), (5, 6, 4)])
def test_names_and_shapes_are_those_of_the_module(
    widths: tuple[int, ...], batch_norm: bool
) -> None:
    config = MlpConfig(widths=widths, batch_norm=batch_norm)
    state = drawn(config)
    module = Mlp(config, INPUTS, OUTPUTS).state_dict()
    wanted = {name: t.shape for name, t in module.items() if "num_batches_tracked" not in name}
    assert {name: t.shape for name, t in state.items()} == wanted
    assert all(t.dtype == torch.float32 for t in state.values())


def test_everything_but_weights_starts_neutral() -> None:
    for batch_norm in (False, True):
        state = drawn(MlpConfig(widths=(9, 8), batch_norm=batch_norm))
        for name, tensor in state.items():
            if name.endswith((".bias", "running_mean")):
                assert not tensor.any(), name
            if name.endswith(("norm.weight", "running_var")):
                assert (tensor == 1).all(), name


def test_first_weights_follow_from_the_generator() -> None:
    config = MlpConfig(widths=(9,))
    first, again, other = drawn(config), drawn(config), drawn(config, seed=1)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        if name.endswith("weight"):
            assert not torch.equal(tensor, other[name])


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_hidden_layer_is_linear_norm_activation_dropout(name: str, batch_norm: bool) -> None:
    config = MlpConfig(widths=(5,), activation=name, batch_norm=batch_norm, dropout=0.4)
    layer = Mlp(config, 3, 2).layers[0]
    assert isinstance(layer, HiddenLayer)
    kinds = [type(child) for child in layer.children()]
    expected = [nn.Linear, *([nn.BatchNorm1d] if batch_norm else [])]
    expected += [type(ACTIVATIONS[name].module()), nn.Dropout]
    assert kinds == expected
    assert layer.dropout.p == 0.4
    # A bias under batch norm would be cancelled by its mean.
    assert (layer.linear.bias is None) == batch_norm


def test_activations_are_torchs_own_functions() -> None:
    """By formula, so that a table entry with the wrong module is noticed."""
    z = torch.linspace(-4, 4, 101, dtype=torch.float64)
    exp = z.exp()
    alpha, scale = 1.6732632423543772848, 1.0507009873554804934
    formulas = {
        "relu": z.clamp(min=0),
        "leaky_relu": torch.where(z > 0, z, 0.01 * z),
        "elu": torch.where(z > 0, z, exp - 1),
        "selu": scale * torch.where(z > 0, z, alpha * (exp - 1)),
        "silu": z / (1 + (-z).exp()),
        "gelu": z * 0.5 * (1 + torch.erf(z / math.sqrt(2))),
        "tanh": (exp - (-z).exp()) / (exp + (-z).exp()),
    }
    assert formulas.keys() == ACTIVATIONS.keys()
    for name, expected in formulas.items():
        activation = ACTIVATIONS[name]
        out = torch.empty_like(z)
        activation.forward(z, out)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(activation.module()(z), expected)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_gradients_of_activations_are_those_of_autograd(name: str) -> None:
    """On columns of a wider tensor, in place, as the backward pass calls them."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(6, 20, generator=generator, dtype=torch.float64)
    grad = torch.randn(6, 20, generator=generator, dtype=torch.float64)
    z = wide[:, 3:11].clone().requires_grad_()
    out = ACTIVATIONS[name].module()(z)
    (expected,) = torch.autograd.grad(out, z, grad[:, 3:11])
    columns, kept = grad[:, 3:11], grad.clone()
    ACTIVATIONS[name].backward(columns, wide[:, 3:11], columns)
    torch.testing.assert_close(columns, expected)
    assert torch.equal(grad[:, :3], kept[:, :3])
    assert torch.equal(grad[:, 11:], kept[:, 11:])
