"""The same numbers as torch: layers, activations, networks, and whole trainings."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpo.models.activations import ACTIVATIONS as TORCH_ACTIVATIONS
from hpo.models.numpy_cnn import (
    ACTIVATIONS,
    SGD,
    Adam,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Network,
)
from hpo.models.numpy_cnn.arrays import Array


def check(ours: Array, theirs: Tensor | None) -> None:
    """The same numbers, as near as float64 has them."""
    assert theirs is not None
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-9, atol=1e-10)


def compare(layer: Layer, module: nn.Module, shape: tuple[int, ...]) -> None:
    """Outputs and all gradients of a layer and of torch's, with the same weights and inputs."""
    random = np.random.default_rng(0)
    layer.start(np.dtype(np.float64), random)
    for name, parameter in module.named_parameters():
        parameter.data = torch.from_numpy(layer.weights[name].copy())
    inputs = random.standard_normal((4, *shape))
    # Some values are equal, so that a maximum is met twice.
    inputs = np.round(inputs, 1)
    tensor = torch.from_numpy(inputs).requires_grad_()
    expected: Tensor = module(tensor)
    outputs = layer.forward(np.moveaxis(inputs, 0, -1))
    check(np.moveaxis(outputs, -1, 0), expected)

    upstream = random.standard_normal(outputs.shape)
    expected.backward(torch.from_numpy(np.moveaxis(upstream, -1, 0).copy()))  # type: ignore[no-untyped-call]
    delta = layer.activation_gradient(upstream)
    layer.weight_gradient(delta)
    by_inputs = np.moveaxis(layer.backward(delta), -1, 0)
    check(by_inputs, tensor.grad)
    for name, parameter in module.named_parameters():
        check(layer.gradients[name], parameter.grad)


@pytest.mark.parametrize("kernel", [1, 3, (5, 2)])
@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
@pytest.mark.parametrize("padding", [0, 2, (0, 1)])
def test_convolution(
    kernel: int | tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, int]
) -> None:
    module = nn.Conv2d(3, 4, kernel, stride, padding, dtype=torch.float64)
    compare(Conv2d(3, 4, kernel, stride, padding), module, (3, 9, 8))


@pytest.mark.parametrize("window", [2, 3, (2, 1)])
@pytest.mark.parametrize("stride", [None, 1, 2, (3, 4)])
def test_max_pooling(window: int | tuple[int, int], stride: int | tuple[int, int] | None) -> None:
    compare(MaxPool2d(window, stride), nn.MaxPool2d(window, stride), (2, 9, 8))


def test_equal_values_give_the_gradient_to_the_first() -> None:
    compare(MaxPool2d(3, 1, "relu"), nn.Sequential(nn.MaxPool2d(3, 1), nn.ReLU()), (2, 9, 8))
    layer = MaxPool2d(2)
    layer.forward(np.zeros((1, 2, 2, 1)))
    assert layer.backward(np.ones((1, 1, 1, 1))).ravel().tolist() == [1, 0, 0, 0]


def test_linear() -> None:
    compare(Linear(6, 5), nn.Linear(6, 5, dtype=torch.float64), (6,))
    compare(Flatten(), nn.Flatten(), (3, 4, 5))


def test_there_are_the_activations_of_the_other_families() -> None:
    assert set(ACTIVATIONS) == {"identity", *TORCH_ACTIVATIONS}


@pytest.mark.parametrize("name", TORCH_ACTIVATIONS)
def test_activations_and_their_derivatives(name: str) -> None:
    z = np.concatenate([np.linspace(-6, 6, 49), [-800.0, -90.0, 90.0, 800.0]])
    tensor = torch.from_numpy(z.copy()).requires_grad_()
    expected = TORCH_ACTIVATIONS[name].module()(tensor)
    expected.sum().backward()
    activation = ACTIVATIONS[name]
    a = activation.value(z)
    check(a, expected)
    check(activation.gradient(np.ones_like(z), z, a), tensor.grad)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_float32_stays_float32(name: str) -> None:
    network = small_network(name, np.float32)
    images, labels = small_batch(np.float32)
    network.train_step(images, labels, Adam())
    network.train_step(images, labels, SGD(0.1, momentum=0.9))
    assert network.logits(images).dtype == np.float32
    for layer, shape in zip(network.layers, network.shapes[:-1], strict=True):
        arrays = [*layer.weights.values(), *layer.gradients.values()]
        values = layer.forward(np.ones((*shape, 2), "f4"))
        arrays += [values, layer.backward(layer.activation_gradient(values))]
        assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def small_network(activation: str, dtype: type) -> Network:
    return Network(
        (2, 12, 11),
        [
            Conv2d(2, 5, 3, padding=1, activation=activation),
            MaxPool2d(2),
            Conv2d(5, 6, (3, 2), stride=(1, 2), activation=activation),
            MaxPool2d(2, 1),
            Flatten(),
            Linear(18, 7, activation),
            Linear(7, 4),
        ],
        seed=3,
        dtype=dtype,
    )


def small_batch(dtype: type) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    return random.standard_normal((8, 2, 12, 11)).astype(dtype), random.integers(0, 4, 8)


def as_torch(network: Network, activation: str) -> nn.Sequential:
    """The same network of torch's modules, with copies of the same weights."""
    between = TORCH_ACTIVATIONS[activation].module
    module = nn.Sequential(
        *(nn.Conv2d(2, 5, 3, padding=1), between(), nn.MaxPool2d(2)),
        *(nn.Conv2d(5, 6, (3, 2), stride=(1, 2)), between(), nn.MaxPool2d(2, 1)),
        *(nn.Flatten(), nn.Linear(18, 7), between(), nn.Linear(7, 4)),
    ).double()
    weights = network.state().values()
    for parameter, weight in zip(module.parameters(), weights, strict=True):
        parameter.data = torch.from_numpy(weight.copy())
    return module


@pytest.mark.parametrize("activation", TORCH_ACTIVATIONS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_training_with_sgd(activation: str, momentum: float) -> None:
    network = small_network(activation, np.float64)
    images, labels = small_batch(np.float64)
    module = as_torch(network, activation)
    ours = SGD(0.05, momentum)
    theirs = torch.optim.SGD(module.parameters(), lr=0.05, momentum=momentum)
    for _ in range(10):
        theirs.zero_grad()
        logits = module(torch.from_numpy(images))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        loss.backward()  # type: ignore[no-untyped-call]
        theirs.step()
        assert network.train_step(images, labels, ours) == pytest.approx(loss.item(), rel=1e-9)
    for parameter, weight in zip(module.parameters(), network.state().values(), strict=True):
        np.testing.assert_allclose(weight, parameter.detach(), rtol=1e-7, atol=1e-9)
    expected = module(torch.from_numpy(images)).detach()
    np.testing.assert_allclose(network.logits(images), expected, rtol=1e-7, atol=1e-9)
    assert network.predict(images).tolist() == expected.argmax(1).tolist()


def test_torch_is_not_imported() -> None:
    code = "import sys, hpo.models.numpy_cnn; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
