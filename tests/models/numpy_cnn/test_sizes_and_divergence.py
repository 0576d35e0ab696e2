"""What cannot be built or trained says so in one sentence."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hpo.errors import TrainingError, UsageError
from hpo.models.numpy_cnn import SGD, Adam, Conv2d, Diverged, Flatten, Layer, Linear, MaxPool2d
from hpo.models.numpy_cnn import Network as Net

INPUT = (1, 28, 28)


def lenet(inputs: int) -> list[Layer]:
    return [
        *(Conv2d(1, 20, 5, activation="relu"), MaxPool2d(2)),
        *(Conv2d(20, 40, 3, stride=2, activation="relu"), Flatten(), Linear(inputs, 10)),
    ]


def test_layers_are_named_and_their_shapes_known() -> None:
    network = Net(INPUT, lenet(1000))
    assert [layer.name for layer in network.layers] == [
        *("conv1", "pool1", "conv2", "flatten1", "linear1"),
    ]
    assert network.shapes == [
        *(INPUT, (20, 24, 24), (20, 12, 12), (40, 5, 5), (1000,), (10,)),
    ]
    assert network.outputs == 10


@pytest.mark.parametrize(
    ("shape", "layers", "message"),
    [
        (INPUT, lenet(800), "conv2 gives 5x5x40 = 1000 values, linear1 takes 800"),
        (
            INPUT,
            [Conv2d(1, 4, 5), Linear(2304, 10)],
            (
                "conv1 gives 24x24x4 = 2304 values, linear1 takes 2304 in one column, "
                "so Flatten comes between"
            ),
        ),
        (
            INPUT,
            [Conv2d(1, 20, 5), Conv2d(16, 4, 3)],
            "conv1 gives 24x24x20 = 11520 values, conv2 takes images of 16 channels",
        ),
        (
            (3, 8, 6),
            [MaxPool2d(2), Conv2d(3, 4, 5, padding=(0, 1))],
            "pool1 gives 4x3x3 = 36 values, conv1 takes at least 5x3x3",
        ),
        (
            (3, 8, 6),
            [MaxPool2d(3), MaxPool2d(3)],
            "pool1 gives 2x2x3 = 12 values, pool2 takes at least 3x3x3",
        ),
        (
            (4,),
            [Linear(4, 3), Linear(2, 2)],
            "linear1 gives 3 values, linear2 takes 2",
        ),
        ((4,), [Linear(4, 3), MaxPool2d(2)], "linear1 gives 3 values, pool1 takes images"),
        (
            (4,),
            [Linear(4, 3), Conv2d(1, 1, 1)],
            "linear1 gives 3 values, conv1 takes images of 1 channel",
        ),
        (
            (1, 6, 6),
            [Flatten(), Conv2d(1, 1, 3)],
            "flatten1 gives 36 values, conv1 takes images of 1 channel",
        ),
        ((5,), [Linear(4, 3)], "the input gives 5 values, linear1 takes 4"),
        (
            (3, 8, 6),
            [MaxPool2d(2)],
            (
                "pool1 gives 4x3x3, and a network ends in one value a class: "
                "after it come Flatten() and Linear(36, classes)"
            ),
        ),
    ],
)
def test_a_wrong_size_names_both_layers_and_both_shapes(
    shape: tuple[int, ...], layers: list[Layer], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        Net(shape, layers)


def test_numbers_and_names_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="a window of 0x0 cannot be; the least is 1"):
        Conv2d(1, 1, 0)
    with pytest.raises(UsageError, match="a stride of 1x0 cannot be; the least is 1"):
        MaxPool2d(2, (1, 0))
    with pytest.raises(UsageError, match="a padding of -1x-1 cannot be; the least is 0"):
        Conv2d(1, 1, 3, padding=-1)
    for pair in (3.0, "3", (3, 3, 3), (3,)):
        with pytest.raises(UsageError, match="cannot be; write one whole number, or two for"):
            Conv2d(1, 1, pair)  # type: ignore[arg-type]
    assert Conv2d(1, 1, np.int64(3)).windows.height == 3  # type: ignore[arg-type]
    for epsilon in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="it must be above 0"):
            Adam(epsilon=epsilon)
    with pytest.raises(UsageError, match="filters is 0; the least is 1"):
        Conv2d(1, 0, 3)
    with pytest.raises(UsageError, match="outputs is -1; the least is 1"):
        Linear(1, -1)
    with pytest.raises(UsageError, match=r"a length of the input \(0,\) is 0; the least is 1"):
        Net((0,), [Linear(1, 1)])
    with pytest.raises(UsageError, match="a layer stands in the network twice"):
        Net((2,), [Linear(2, 2)] * 2)
    with pytest.raises(UsageError, match="no activation 'sine'; there are identity, relu, "):
        Linear(1, 1, "sine")
    with pytest.raises(UsageError, match="no initialization 'zero'; there are lecun, he, xavier"):
        Net((1,), [Linear(1, 1, initialization="zero")])


def test_a_batch_that_does_not_fit_the_network() -> None:
    network = Net((1, 4, 4), [Flatten(), Linear(16, 3)])
    images = np.zeros((2, 1, 4, 4))
    with pytest.raises(UsageError, match=r"shape \(1, 4, 4\), and was given \(4, 4\)"):
        network.predict(images[:, 0])
    with pytest.raises(UsageError, match=r"2 images need 2 labels, not an array \(3,\)"):
        network.train_step(images, np.array([0, 1, 2]), Adam())
    with pytest.raises(UsageError, match="labels are whole numbers, not float64"):
        network.train_step(images, np.array([0.0, 1.0]), Adam())
    for labels in ([0, 3], [-1, 2]):
        with pytest.raises(UsageError, match="linear1 gives 3 values, one for each class from 0"):
            network.train_step(images, np.array(labels), Adam())


def noise() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.standard_normal((16, 1, 6, 6)), random.integers(0, 3, 16)


def network_for_noise() -> Net:
    layers = [Conv2d(1, 4, 3, activation="relu"), Flatten(), Linear(64, 3)]
    return Net((1, 6, 6), layers)


def test_a_learning_rate_that_is_too_high_is_named() -> None:
    network, sgd = network_for_noise(), SGD(1e30)
    images, labels = noise()
    network.train_step(images, labels, sgd)
    after_one = {name: weight.copy() for name, weight in network.state().items()}
    expected = (
        r"^the loss is (nan|inf) in step 2, after \d.*; likely causes are a learning rate that is "
        r"too high \(1e\+30\), and first weights that are too large \(initialization he\) or "
    )
    with pytest.raises(Diverged, match=expected) as raised:
        network.train_step(images, labels, sgd)
    assert isinstance(raised.value, TrainingError)
    for name, weight in network.state().items():
        assert np.array_equal(weight, after_one[name], equal_nan=True)
    assert sgd.steps == 1
    network.logits(images)  # silent too, whatever the weights have become


def test_in_the_first_step_it_is_the_weights_or_the_images() -> None:
    network = network_for_noise()
    images, labels = noise()
    images[3, 0, 2, 2] = np.nan
    with pytest.raises(Diverged, match="nan in the first step; likely causes are first weights"):
        network.train_step(images, labels, Adam())


def test_a_state_of_another_network_is_refused_whole() -> None:
    network = network_for_noise()
    before = network.state()["conv1.bias"].copy()
    other = {name: weight + 1 for name, weight in network.state().items()}
    with pytest.raises(UsageError, match=r"weights are conv1.weight, .*; given were conv1.bias$"):
        network.load_state({"conv1.bias": other["conv1.bias"]})
    with pytest.raises(UsageError, match=r"linear1.weight is \(3, 64\); given was \(64, 3\)"):
        network.load_state({**other, "linear1.weight": other["linear1.weight"].T})
    assert network.state()["conv1.bias"].tolist() == before.tolist()
    network.load_state(other)
    assert all(np.array_equal(network.state()[name], other[name]) for name in other)
