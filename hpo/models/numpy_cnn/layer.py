"""What every layer is: a step forward, and its three gradients on the way back.

Of one layer, with inputs `x`, weights `W`, `z` what they come to, and `a = f(z)`:

    forward              x -> a          and the layer keeps what the way back needs
    activation gradient  dL/da -> dL/dz  called delta
    weight gradient      delta -> dL/dW
    backward             delta -> dL/dx  which is dL/da of the layer before
    update               W follows dL/dW by the optimizer's rule

The order is that of Rumelhart, Hinton and Williams (1986), "Learning representations by
back-propagating errors".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from hpo.models.numpy_cnn.activations import activation_named
from hpo.models.numpy_cnn.arrays import Array, Shape
from hpo.models.numpy_cnn.optimizers import Optimizer

__all__ = ["Layer"]


class Layer(ABC):
    """A layer; the batch is the last axis of everything that goes through it.

    Args:
        activation: applied to what the layer computes; a name in `ACTIVATIONS`.

    Attributes:
        kind: the word its name is made of: the second `Conv2d` of a network is `conv2`.
        name: given by the network.
        weights: its arrays by name; empty where nothing is learnt.
        gradients: of the loss by each of the weights, from the last `weight_gradient`.
    """

    kind: ClassVar[str]

    def __init__(self, activation: str = "identity") -> None:
        self.name = self.kind
        self.activation = activation_named(activation)
        self.weights: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        self._z: Array = np.empty(0)
        self._a: Array = np.empty(0)

    # --- sizes and first weights

    @abstractmethod
    def takes(self, shape: Shape) -> str:
        """What it takes in place of rows of that shape, in words; empty where it takes them."""

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """What becomes of a row of a shape that it takes."""

    def start(self, dtype: np.dtype[Any], generator: np.random.Generator) -> None:  # noqa: B027
        """Draw the first weights; a layer without weights has nothing to do.

        Args:
            dtype: of the weights, and so of all that the layer computes.
            generator: where the draws come from.
        """

    # --- forward

    def forward(self, inputs: Array) -> Array:
        """`[*shape, batch]` to `[*output_shape, batch]`; keeps what the way back needs."""
        self._z = self.compute(inputs)
        self._a = self.activation.value(self._z)
        return self._a

    @abstractmethod
    def compute(self, inputs: Array) -> Array:
        """What the layer does before its activation: z, `[*output_shape, batch]`."""

    # --- the way back; all of it speaks of the last batch that went forward

    def activation_gradient(self, gradient: Array) -> Array:
        """The loss's gradient by the outputs, to delta, the one by z.

        Both are `[*output_shape, batch]`.
        """
        return self.activation.gradient(gradient, self._z, self._a)

    def weight_gradient(self, delta: Array) -> None:  # noqa: B027
        """Put the loss's gradient by the weights into `gradients`.

        Args:
            delta: the gradient by z, `[*output_shape, batch]`.
        """

    @abstractmethod
    def backward(self, delta: Array) -> Array:
        """Delta, `[*output_shape, batch]`, to the gradient by the inputs, `[*shape, batch]`."""

    def update(self, optimizer: Optimizer) -> None:
        """Let every weight follow its gradient, in place."""
        for name, weight in self.weights.items():
            optimizer.update(f"{self.name}.{name}", weight, self.gradients[name])
