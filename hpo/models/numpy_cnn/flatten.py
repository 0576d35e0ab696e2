"""Flatten: images to columns of values."""

from __future__ import annotations

from hpo.models.numpy_cnn.arrays import Array, Shape, size_of
from hpo.models.numpy_cnn.layer import Layer

__all__ = ["Flatten"]


class Flatten(Layer):
    """All values of a row in one column: channel by channel, each line by line, as in torch."""

    kind = "flatten"

    def __init__(self) -> None:
        super().__init__()
        self._input_shape: Shape = ()

    def takes(self, shape: Shape) -> str:  # noqa: ARG002 - it takes every shape
        """Nothing else: it takes every shape."""
        return ""

    def output_shape(self, shape: Shape) -> Shape:
        """As `Layer.output_shape`."""
        return (size_of(shape),)

    def compute(self, inputs: Array) -> Array:
        """`[*shape, batch]` to `[values, batch]`."""
        self._input_shape = inputs.shape
        return inputs.reshape(-1, inputs.shape[-1])

    def backward(self, delta: Array) -> Array:
        """As `Layer.backward`."""
        return delta.reshape(self._input_shape)
