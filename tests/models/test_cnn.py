"""The torch module of the convolutional families, beside torch's functions and the NumPy one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hpo.config import CnnConfig, MlpConfig, NumpyCnnConfig
from hpo.definition import ACTIVATIONS, INITIALIZATIONS
from hpo.models.alone import build_module
from hpo.models.cnn import Cnn, initial_state
from hpo.models.mlp import Mlp
from hpo.models.numpy_cnn import build_network

SHAPE, OUTPUTS = (2, 9, 11), 3
PLAIN = CnnConfig(channels=(4, 6), kernel=3, pool=2, hidden=5)
CONFIGS = [
    PLAIN,
    replace(PLAIN, batch_norm=True, dropout=0.3, activation="silu"),
    replace(PLAIN, channels=(3,), kernel=5, pool=3, hidden=0),
    replace(PLAIN, channels=(3, 2, 5), kernel=1, pool=1, batch_norm=True, hidden=0, dropout=0.5),
]
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "selu": functional.selu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
}


def state_of(config: CnnConfig, seed: int = 0) -> dict[str, Tensor]:
    """First weights in float64, with biases and norms that are not what they begin with."""
    generator = torch.Generator().manual_seed(seed)
    state = initial_state(config, SHAPE, OUTPUTS, generator)
    return {
        name: tensor.double()
        + (0.1 * torch.rand(tensor.shape, generator=generator) if tensor.ndim == 1 else 0)
        for name, tensor in state.items()
    }


def network(config: CnnConfig, state: dict[str, Tensor]) -> Cnn:
    module = Cnn(config, SHAPE, OUTPUTS).double()
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not unexpected
    return module


def written_out(config: CnnConfig, state: dict[str, Tensor], rows: Tensor) -> Tensor:
    """The network as torch's functions, in the order of `CnnConfig`: activation before pooling."""
    values = rows.view(-1, *SHAPE)

    def normed(values: Tensor, place: int) -> Tensor:
        if not config.batch_norm:
            return values
        mean, variance, weight, bias = (
            state[f"norm{place}.{name}"]
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(values, mean, variance, weight, bias)

    for place in range(1, len(config.channels) + 1):
        weight, bias = state[f"conv{place}.weight"], state.get(f"conv{place}.bias")
        values = functional.conv2d(values, weight, bias, padding=config.kernel // 2)
        values = FUNCTIONS[config.activation](normed(values, place))
        values = functional.max_pool2d(values, config.pool)
    values = values.flatten(1)
    if config.hidden:
        hidden = functional.linear(values, state["linear1.weight"], state.get("linear1.bias"))
        values = FUNCTIONS[config.activation](normed(hidden, len(config.channels) + 1))
    last = "linear2" if config.hidden else "linear1"
    return functional.linear(values, state[f"{last}.weight"], state[f"{last}.bias"])


@pytest.mark.parametrize("config", CONFIGS)
def test_it_is_the_network_of_its_config(config: CnnConfig) -> None:
    state = state_of(config)
    rows = torch.randn(7, 2 * 9 * 11, dtype=torch.float64)
    given = network(config, state).eval()(rows)
    assert given.shape == (7, OUTPUTS)
    assert torch.allclose(given, written_out(config, state, rows), rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("pool", [1, 2, 3])
def test_a_network_in_numpy_is_one_in_torch(activation: str, pool: int) -> None:
    shape = {"channels": (4, 6), "kernel": 3, "pool": pool, "hidden": 5, "activation": activation}
    config = NumpyCnnConfig(**shape)  # type: ignore[arg-type]
    own = build_network(config, SHAPE, OUTPUTS, seed=3, dtype=np.float64)
    state = {name: torch.from_numpy(array) for name, array in own.state().items()}
    rows = torch.randn(7, 2 * 9 * 11, dtype=torch.float64)
    module = build_module(config, SHAPE, OUTPUTS).double()
    module.load_state_dict(state)
    expected = own.logits(rows.view(-1, *SHAPE).numpy())
    assert np.allclose(module(rows).detach().numpy(), expected, rtol=0, atol=1e-12)
    both = network(CnnConfig(**shape), state)  # type: ignore[arg-type]
    assert torch.equal(module(rows), both(rows))


def test_a_perceptron_is_built_too() -> None:
    module = build_module(MlpConfig(widths=(3,)), SHAPE, OUTPUTS)
    assert isinstance(module, Mlp)
    assert module(torch.zeros(2, 2 * 9 * 11)).shape == (2, OUTPUTS)


@pytest.mark.parametrize("rule", INITIALIZATIONS)
def test_first_weights_follow_the_rule(rule: str) -> None:
    config = CnnConfig(channels=(32, 64), kernel=5, hidden=300, initialization=rule)
    state = initial_state(config, (3, 16, 16), 10, torch.Generator().manual_seed(1))
    sizes = {
        "conv1": (3 * 25, 32 * 25),
        "conv2": (32 * 25, 64 * 25),
        "linear1": (64 * 16, 300),
        "linear2": (300, 10),
    }
    for name, (fan_in, fan_out) in sizes.items():
        weight = state[f"{name}.weight"].double()
        variance = {"he": 2 / fan_in, "lecun": 1 / fan_in, "xavier": 2 / (fan_in + fan_out)}[rule]
        assert weight.var().item() == pytest.approx(variance, rel=0.15)
        assert weight.mean().abs().item() < 4 * (variance / weight.numel()) ** 0.5
        assert not state[f"{name}.bias"].any()


def test_first_weights_follow_from_the_seed_alone() -> None:
    config = CONFIGS[1]
    one, same, other = (
        initial_state(config, SHAPE, OUTPUTS, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    for first, second in pairwise((one, same)):
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])
    assert set(one) == {
        name
        for name in Cnn(config, SHAPE, OUTPUTS).state_dict()
        if not name.endswith("num_batches_tracked")
    }
