"""Every gradient against central differences, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hpo.models.numpy_cnn import (
    ACTIVATIONS,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    softmax_cross_entropy,
)
from hpo.models.numpy_cnn.arrays import Array

STEP = 1e-6
BATCH = 3


def numerical(loss: Callable[[], float], values: Array) -> Array:
    """The derivative of a loss by each of the values, which are changed in place and put back."""
    gradient = np.empty_like(values)
    for place in np.ndindex(values.shape):
        kept = values[place]
        values[place] = kept + STEP
        above = loss()
        values[place] = kept - STEP
        gradient[place] = (above - loss()) / (2 * STEP)
        values[place] = kept
    return gradient


def check(layer: Layer, shape: tuple[int, ...], seed: int = 0) -> None:
    """Compare a layer's gradients with those of `sum(weights * outputs)`."""
    random = np.random.default_rng(seed)
    assert layer.takes(shape) == ""
    layer.start(np.dtype(np.float64), random)
    for weight in layer.weights.values():
        weight += 0.1 * random.standard_normal(weight.shape)  # biases start at zero
    inputs = random.standard_normal((*shape, BATCH))
    upstream = random.standard_normal((*layer.output_shape(shape), BATCH))

    def loss() -> float:
        return float((layer.forward(inputs) * upstream).sum())

    assert layer.forward(inputs).shape == upstream.shape
    delta = layer.activation_gradient(upstream)
    layer.weight_gradient(delta)
    by_inputs = layer.backward(delta)
    assert by_inputs == pytest.approx(numerical(loss, inputs), abs=1e-7, rel=1e-6)
    assert layer.gradients.keys() == layer.weights.keys()
    for name, weight in layer.weights.items():
        expected = numerical(loss, weight)
        assert layer.gradients[name] == pytest.approx(expected, abs=1e-7, rel=1e-6), name


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        (1, 1, 0),
        (3, 1, 0),
        (3, 1, 1),
        (3, 2, 0),  # a line is left over
        (2, 3, 1),  # pixels between the windows are in none
        ((3, 2), 1, 0),
        ((2, 3), (2, 1), (0, 2)),
        (3, 1, 3),  # windows that see nothing but padding
    ],
)
def test_convolution(
    kernel: int | tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, int]
) -> None:
    check(Conv2d(2, 3, kernel, stride, padding), (2, 6, 5))


@pytest.mark.parametrize(
    ("window", "stride"), [(2, None), (3, None), (3, 2), (3, 1), (2, 3), ((1, 3), (2, 1))]
)
def test_max_pooling(window: int | tuple[int, int], stride: int | tuple[int, int] | None) -> None:
    check(MaxPool2d(window, stride), (2, 7, 6))


def test_flatten_and_linear() -> None:
    check(Flatten(), (2, 3, 4))
    check(Linear(5, 4), (5,))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    check(Linear(4, 6, activation), (4,))
    check(Conv2d(1, 2, 2, activation=activation), (1, 4, 3))
    check(MaxPool2d(2, activation=activation), (2, 4, 4))


def test_softmax_cross_entropy() -> None:
    random = np.random.default_rng(0)
    logits = 3 * random.standard_normal((4, 5))
    labels = np.array([0, 3, 3, 1, 2])
    loss, gradient = softmax_cross_entropy(logits, labels)
    shares = np.exp(logits) / np.exp(logits).sum(axis=0)
    assert loss == pytest.approx(-np.log(shares[labels, np.arange(5)]).mean())
    expected = numerical(lambda: softmax_cross_entropy(logits, labels)[0], logits)
    assert gradient == pytest.approx(expected, abs=1e-9)


def test_smoothed_labels() -> None:
    """The target of label smoothing written out; all of it spread, the labels do not matter."""
    random = np.random.default_rng(0)
    logits = 3 * random.standard_normal((4, 5))
    labels = np.array([0, 3, 3, 1, 2])
    loss, gradient = softmax_cross_entropy(logits, labels, 0.2)
    target = 0.8 * np.eye(4)[labels].T + 0.2 / 4
    logarithms = np.log(np.exp(logits) / np.exp(logits).sum(axis=0))
    assert loss == pytest.approx(-(target * logarithms).sum(axis=0).mean())
    expected = numerical(lambda: softmax_cross_entropy(logits, labels, 0.2)[0], logits)
    assert gradient == pytest.approx(expected, abs=1e-9)
    assert softmax_cross_entropy(logits.astype(np.float32), labels, 0.2)[1].dtype == np.float32


def test_large_logits_neither_overflow_nor_vanish() -> None:
    loss, gradient = softmax_cross_entropy(np.array([[1e4], [-1e4]]), np.array([1]))
    assert loss == 2e4
    assert gradient.ravel().tolist() == [1.0, -1.0]


def test_a_whole_network() -> None:
    random = np.random.default_rng(1)
    network = Network(
        (2, 9, 8),
        [
            Conv2d(2, 3, 3, padding=1, activation="tanh"),
            MaxPool2d(3, 2),
            Conv2d(3, 4, 2, activation="silu"),
            Flatten(),
            Linear(24, 5, "selu"),
            Linear(5, 3),
        ],
        dtype=np.float64,
    )
    images = random.standard_normal((BATCH, 2, 9, 8))
    labels = np.array([2, 0, 1])
    network.gradients(images, labels)
    found = {
        f"{layer.name}.{name}": gradient.copy()
        for layer in network.layers
        for name, gradient in layer.gradients.items()
    }
    state = network.state()
    assert found.keys() == state.keys()
    for name, weight in state.items():
        expected = numerical(lambda: network.gradients(images, labels), weight)
        assert found[name] == pytest.approx(expected, abs=1e-8, rel=1e-5), name
