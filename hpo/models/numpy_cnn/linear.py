"""A linear layer: every output is a weighted sum of all inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpo.models.numpy_cnn.arrays import Array, Shape, at_least_one, size_of
from hpo.models.numpy_cnn.initializers import draw
from hpo.models.numpy_cnn.layer import Layer

__all__ = ["Linear"]


class Linear(Layer):
    """z = W x + b.

    Args:
        inputs: values of a row it takes.
        outputs: values of a row it gives.
        activation: a name in `ACTIVATIONS`.
        initialization: a name in `INITIALIZERS`.

    Weights:
        weight: `[outputs, inputs]`.
        bias: `[outputs]`.
    """

    kind = "linear"

    def __init__(
        self, inputs: int, outputs: int, activation: str = "identity", initialization: str = "he"
    ) -> None:
        super().__init__(activation)
        self.inputs = at_least_one("inputs", inputs)
        self.outputs = at_least_one("outputs", outputs)
        self.initialization = initialization
        self._inputs: Array = np.empty(0)

    def takes(self, shape: Shape) -> str:
        """As `Layer.takes`."""
        if len(shape) == 1 and shape[0] == self.inputs:
            return ""
        flat = len(shape) == 1 or size_of(shape) != self.inputs
        return (
            f"{self.inputs}" if flat else f"{self.inputs} in one column, so Flatten comes between"
        )

    def output_shape(self, shape: Shape) -> Shape:  # noqa: ARG002 - it takes one shape only
        """As `Layer.output_shape`."""
        return (self.outputs,)

    def start(self, dtype: np.dtype[Any], generator: np.random.Generator) -> None:
        """As `Layer.start`; biases start at zero."""
        shape = (self.outputs, self.inputs)
        self.weights["weight"] = draw(self.initialization, shape, dtype, generator)
        self.weights["bias"] = np.zeros(self.outputs, dtype)

    def compute(self, inputs: Array) -> Array:
        """`[inputs, batch]` to `[outputs, batch]`."""
        self._inputs = inputs
        return self.weights["weight"] @ inputs + self.weights["bias"][:, None]

    def weight_gradient(self, delta: Array) -> None:
        """As `Layer.weight_gradient`; the products sum over the batch."""
        self.gradients["weight"] = delta @ self._inputs.T
        self.gradients["bias"] = delta.sum(axis=1)

    def backward(self, delta: Array) -> Array:
        """As `Layer.backward`."""
        gradient: Array = self.weights["weight"].T @ delta
        return gradient
