"""Max pooling: of every window, the largest value."""

from __future__ import annotations

import numpy as np

from hpo.models.numpy_cnn.arrays import Array, Shape
from hpo.models.numpy_cnn.layer import Layer
from hpo.models.numpy_cnn.windows import Pair, Windows

__all__ = ["MaxPool2d"]


class MaxPool2d(Layer):
    """The largest value of every window, channel by channel; nothing is learnt.

    Args:
        window: its size.
        stride: from one window to the next; the window's size if it is not given, so that
            windows lie side by side.
        activation: a name in `ACTIVATIONS`. One that never falls (ReLU and most others, but not
            SiLU and GELU) may stand here in place of the layer before: the largest of the values
            is the value of the largest, and there are fewer of them to compute.
    """

    kind = "pool"

    def __init__(
        self, window: Pair, stride: Pair | None = None, activation: str = "identity"
    ) -> None:
        super().__init__(activation)
        self.windows = Windows(window, window if stride is None else stride, padding=0)
        self._inputs: Array = np.empty(0)

    def takes(self, shape: Shape) -> str:
        """As `Layer.takes`."""
        return self.windows.takes(shape) if len(shape) == 3 else "images"

    def output_shape(self, shape: Shape) -> Shape:
        """As `Layer.output_shape`."""
        return (shape[0], *self.windows.counts(shape))

    def compute(self, inputs: Array) -> Array:
        """`[channels, height, width, batch]` to `[channels, down, right, batch]`."""
        self._inputs = inputs
        first, *rest = self.windows.places(self.windows.counts(inputs.shape[:3]))
        largest = inputs[first.pixels].copy()
        for place in rest:
            np.maximum(largest, inputs[place.pixels], out=largest)
        return largest

    def backward(self, delta: Array) -> Array:
        """As `Layer.backward`: a window's gradient goes to its largest value.

        Of equal ones the first, row by row, has it all, as in torch.
        """
        gradient = np.zeros_like(self._inputs)
        waiting = np.ones(delta.shape, bool)
        for place in self.windows.places(delta.shape[1:3]):
            here = self._inputs[place.pixels] == self._z
            here &= waiting
            gradient[place.pixels] += delta * here
            waiting ^= here
        return gradient
