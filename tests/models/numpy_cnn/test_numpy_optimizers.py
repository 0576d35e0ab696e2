"""The optimizers against torch's where they agree, and against the formula where they do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hpo.errors import UsageError
from hpo.models.numpy_cnn import SGD, Adam

STEPS = 25


def gradients(shape: tuple[int, ...], scale: float = 1.0) -> list[np.ndarray]:
    random = np.random.default_rng(2)
    return [scale * random.standard_normal(shape) for _ in range(STEPS)]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_sgd_is_torchs(momentum: float) -> None:
    weight = np.linspace(-1, 1, 6).reshape(2, 3)
    tensor = torch.from_numpy(weight.copy()).requires_grad_()
    theirs = torch.optim.SGD([tensor], lr=0.03, momentum=momentum)
    ours = SGD(0.03, momentum)
    for gradient in gradients((2, 3)):
        tensor.grad = torch.from_numpy(gradient)
        theirs.step()
        ours.begin_step()
        ours.update("weight", weight, gradient)
        np.testing.assert_allclose(weight, tensor.detach(), rtol=1e-12)


def test_adam_is_torchs_where_the_epsilon_is_nothing() -> None:
    weight = np.linspace(-1, 1, 6).reshape(2, 3)
    tensor = torch.from_numpy(weight.copy()).requires_grad_()
    settings = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-30}
    theirs = torch.optim.Adam([tensor], **settings)  # type: ignore[arg-type]
    ours = Adam(0.01, 0.8, 0.95, epsilon=1e-30)
    for gradient in gradients((2, 3)):
        tensor.grad = torch.from_numpy(gradient)
        theirs.step()
        ours.begin_step()
        ours.update("weight", weight, gradient)
        np.testing.assert_allclose(weight, tensor.detach(), rtol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-9])
def test_adam_is_the_textbooks_with_the_epsilon_inside_the_root(scale: float) -> None:
    weight = np.array([0.5])
    adam = Adam(0.01, epsilon=1e-8)
    w, m, v = 0.5, 0.0, 0.0
    for t, gradient in enumerate(gradients((1,), scale), start=1):
        g = float(gradient[0])
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        w -= 0.01 * (m / (1 - 0.9**t)) / math.sqrt(v / (1 - 0.999**t) + 1e-8)
        adam.begin_step()
        adam.update("weight", weight, gradient)
        assert weight[0] == pytest.approx(w, rel=1e-12)


def test_adam_moves_little_where_gradients_are_below_the_root_of_epsilon() -> None:
    weight = np.zeros(2)
    adam = Adam(0.01)
    adam.begin_step()
    adam.update("weight", weight, np.array([1e-2, 1e-8]))
    assert weight == pytest.approx([-0.01, -1e-6], rel=1e-3)


def test_weights_of_different_names_are_remembered_apart() -> None:
    together, alone = Adam(0.1), Adam(0.1)
    first, second, only = np.ones(3), np.ones((2, 2)), np.ones(3)
    for gradient in gradients((3,)):
        together.begin_step()
        together.update("first", first, gradient)
        together.update("second", second, np.full((2, 2), 5.0))
        alone.begin_step()
        alone.update("first", only, gradient)
    assert first.tolist() == only.tolist()
    assert {name: array.shape for name, array in together.state.items()} == {
        "first.mean": (3,),
        "first.square": (3,),
        "second.mean": (2, 2),
        "second.square": (2, 2),
    }


@pytest.mark.parametrize("rate", [0.0, -0.1, math.nan, math.inf])
def test_a_learning_rate_is_above_zero(rate: float) -> None:
    for rule in (SGD, Adam):
        with pytest.raises(UsageError, match="it must be above 0"):
            rule(rate)


def test_shares_are_below_one() -> None:
    with pytest.raises(UsageError, match="momentum is 1; it must be at least 0 and below 1"):
        SGD(0.1, momentum=1)
    with pytest.raises(UsageError, match=r"beta2 is -0.1; it must be at least 0 and below 1"):
        Adam(0.1, beta2=-0.1)
