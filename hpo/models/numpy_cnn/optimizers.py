"""Optimizers: the rule by which weights follow their gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

from hpo.errors import UsageError
from hpo.models.numpy_cnn.arrays import Array

__all__ = ["SGD", "Adam", "Optimizer"]


class Optimizer(ABC):
    """A rule, and what it remembers of every weight.

    Args:
        learning_rate: of every step; it may be changed between steps.

    Attributes:
        steps: how many were begun.
        state: arrays by the weight's name and what they hold (`conv1.weight.momentum`), each of
            the weight's shape; a weight has none before its first step.

    Raises:
        UsageError: the learning rate is not positive, or a share not from 0 to below 1.
    """

    def __init__(self, learning_rate: float) -> None:
        if not 0 < learning_rate < math.inf:
            raise UsageError(f"the learning rate is {learning_rate:g}; it must be above 0")
        self.learning_rate = learning_rate
        self.steps = 0
        self.state: dict[str, Array] = {}

    def begin_step(self) -> None:
        """Say that every weight is about to be updated once more."""
        self.steps += 1

    @abstractmethod
    def update(self, name: str, weight: Array, gradient: Array) -> None:
        """Change a weight in place.

        Args:
            name: the same for this weight in every step.
            weight: of any shape.
            gradient: the loss's gradient by it, of the same shape.
        """

    def remembered(self, name: str, weight: Array) -> Array:
        """What is remembered under a name; zeros of the weight's shape at first."""
        if name not in self.state:
            self.state[name] = np.zeros_like(weight)
        return self.state[name]


class SGD(Optimizer):
    """Gradient descent, `w - rate * v` with `v = momentum * v + g` (Polyak 1964).

    Args:
        momentum: the share of the last step's direction that is kept; 0 is the plain rule.
    """

    def __init__(self, learning_rate: float, momentum: float = 0.0) -> None:
        super().__init__(learning_rate)
        self.momentum = _share("momentum", momentum)

    def update(self, name: str, weight: Array, gradient: Array) -> None:
        """As `Optimizer.update`."""
        if self.momentum:
            velocity = self.remembered(f"{name}.momentum", weight)
            velocity *= self.momentum
            velocity += gradient
            gradient = velocity
        weight -= self.learning_rate * gradient


class Adam(Optimizer):
    """`w - rate * m_hat / sqrt(v_hat + epsilon)` (Kingma and Ba 2015).

    m and v are running means of the gradient and of its square; the hats divide out that both
    start at zero. Textbooks have the epsilon inside the root, the paper and torch outside:
    `sqrt(v_hat) + epsilon`. Inside, 1e-8 keeps the divisor above 1e-4 where outside it would be
    1e-8, so weights whose gradients are below 1e-4 move less here.

    Args:
        beta1, beta2: the share of the running means that is kept in a step.
        epsilon: keeps the divisor from zero.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate)
        self.beta1 = _share("beta1", beta1)
        self.beta2 = _share("beta2", beta2)
        if not epsilon > 0:
            raise UsageError(f"epsilon is {epsilon:g}; it must be above 0, or a divisor can be 0")
        self.epsilon = epsilon

    def update(self, name: str, weight: Array, gradient: Array) -> None:
        """As `Optimizer.update`."""
        mean = self.remembered(f"{name}.mean", weight)
        square = self.remembered(f"{name}.square", weight)
        mean *= self.beta1
        mean += (1 - self.beta1) * gradient
        square *= self.beta2
        square += (1 - self.beta2) * gradient**2
        mean_hat = mean / (1 - self.beta1**self.steps)
        square_hat = square / (1 - self.beta2**self.steps)
        weight -= self.learning_rate * mean_hat / np.sqrt(square_hat + self.epsilon)


def _share(what: str, share: float) -> float:
    """A share of the past that is kept; with all of it kept, nothing new would come in."""
    if not 0 <= share < 1:
        raise UsageError(f"{what} is {share:g}; it must be at least 0 and below 1")
    return share
