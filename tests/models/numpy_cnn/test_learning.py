"""First weights, and networks that learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits

from hpo.models.numpy_cnn import (
    INITIALIZERS,
    SGD,
    Adam,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Network,
    Optimizer,
)


@pytest.mark.parametrize("rule", INITIALIZERS)
def test_weights_are_normal_with_the_variance_of_their_rule(rule: str) -> None:
    conv = Conv2d(30, 50, (3, 5), padding=(1, 2), initialization=rule)
    linear = Linear(50 * 4, 300, initialization=rule)
    network = Network((30, 2, 2), [conv, Flatten(), linear])
    fans = {"conv1": (30 * 15, 50 * 15), "linear1": (200, 300)}
    for name, (fan_in, fan_out) in fans.items():
        weight = network.state()[f"{name}.weight"]
        expected = {
            "he": 2 / fan_in,
            "xavier": 2 / (fan_in + fan_out),
            "lecun": 1 / fan_in,
        }[rule]
        std, n = math.sqrt(expected), weight.size
        # Five standard errors of a mean, and of a variance of normal draws.
        assert abs(weight.mean()) < 5 * std / math.sqrt(n)
        assert np.square(weight).mean() == pytest.approx(expected, rel=5 * math.sqrt(2 / n))
        assert (abs(weight) < std).mean() == pytest.approx(0.6827, abs=0.015)
        assert not network.state()[f"{name}.bias"].any()


def test_a_seed_gives_the_same_weights_in_either_dtype() -> None:
    def weights(seed: int, dtype: type) -> np.ndarray:
        return Network((3,), [Linear(3, 4)], seed, dtype).state()["linear1.weight"]

    assert weights(1, np.float32).tolist() == weights(1, np.float32).tolist()
    assert weights(1, np.float32).tolist() == weights(1, np.float64).astype("f4").tolist()
    assert weights(1, np.float32).tolist() != weights(2, np.float32).tolist()


@pytest.mark.parametrize("optimizer", [SGD(0.05, momentum=0.9), Adam(0.005)])
def test_a_tiny_network_learns_digits(optimizer: Optimizer) -> None:
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    labels = digits.target
    network = Network(
        (1, 8, 8),
        [
            Conv2d(1, 12, 3, padding=1, activation="relu"),
            MaxPool2d(2),
            Conv2d(12, 24, 3, activation="relu"),
            Flatten(),
            Linear(96, 10),
        ],
    )
    random = np.random.default_rng(0)
    order = random.permutation(len(labels))
    train, held_out = order[:1400], order[1400:]
    for _ in range(8):
        for rows in np.array_split(random.permutation(train), 44):
            network.train_step(images[rows], labels[rows], optimizer)
    right = network.predict(images[held_out]) == labels[held_out]
    assert right.mean() > 0.95
    assert network.predict(images[held_out], batch=7).tolist() == (
        network.predict(images[held_out]).tolist()
    )
