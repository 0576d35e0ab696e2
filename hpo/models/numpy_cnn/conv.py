"""Convolution as one matrix product.

Every window of every image becomes a column of a matrix ("im2col": Chellapilla, Puri and Simard
2006), every kernel a row of another; their product is what all kernels say of all windows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hpo.models.numpy_cnn.arrays import Array, Shape, at_least_one
from hpo.models.numpy_cnn.initializers import draw
from hpo.models.numpy_cnn.layer import Layer
from hpo.models.numpy_cnn.windows import Pair, Windows

__all__ = ["Conv2d"]


class Conv2d(Layer):
    """A convolution over images (without flipping the kernel, as everywhere in deep learning).

    Args:
        channels: of the images it takes.
        filters: kernels, and so channels of the images it gives.
        kernel: size of a kernel.
        stride: from one window to the next.
        padding: lines of zeros around the image.
        activation: a name in `ACTIVATIONS`.
        initialization: a name in `INITIALIZERS`.

    Weights:
        weight: `[filters, channels, kernel height, kernel width]`.
        bias: `[filters]`.
    """

    kind = "conv"

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        activation: str = "identity",
        initialization: str = "he",
    ) -> None:
        super().__init__(activation)
        self.channels = at_least_one("channels", channels)
        self.filters = at_least_one("filters", filters)
        self.windows = Windows(kernel, stride, padding)
        self.initialization = initialization
        self._columns: Array = np.empty(0)
        self._input_shape: Shape = ()

    def takes(self, shape: Shape) -> str:
        """As `Layer.takes`."""
        if len(shape) != 3 or shape[0] != self.channels:
            return f"images of {self.channels} channel{'s' * (self.channels > 1)}"
        return self.windows.takes(shape)

    def output_shape(self, shape: Shape) -> Shape:
        """As `Layer.output_shape`."""
        return (self.filters, *self.windows.counts(shape))

    def start(self, dtype: np.dtype[Any], generator: np.random.Generator) -> None:
        """As `Layer.start`; biases start at zero."""
        shape = (self.filters, self.channels, self.windows.height, self.windows.width)
        self.weights["weight"] = draw(self.initialization, shape, dtype, generator)
        self.weights["bias"] = np.zeros(self.filters, dtype)

    def compute(self, inputs: Array) -> Array:
        """`[channels, height, width, batch]` to `[filters, down, right, batch]`."""
        self._input_shape = inputs.shape
        patches = self.windows.cut(self.windows.pad(inputs))
        *_, down, right, batch = patches.shape
        # The one copy: [values of a window, windows of all images].
        self._columns = patches.reshape(self._matrix().shape[1], -1)
        z = self._matrix() @ self._columns
        z += self.weights["bias"][:, None]
        return z.reshape(self.filters, down, right, batch)

    def weight_gradient(self, delta: Array) -> None:
        """As `Layer.weight_gradient`: a kernel's gradient sums over all windows it looked at."""
        flat = delta.reshape(self.filters, -1)
        self.gradients["weight"] = (flat @ self._columns.T).reshape(self.weights["weight"].shape)
        self.gradients["bias"] = flat.sum(axis=1)

    def backward(self, delta: Array) -> Array:
        """As `Layer.backward`: a pixel's gradient sums over the windows that cover it."""
        windows, (channels, height, width, batch) = self.windows, self._input_shape
        _, down, right, _ = delta.shape
        # The gradient of every column, in one product; then columns go back to their pixels, one
        # place of the window at a time (a kernel has few places, an image many pixels).
        columns = self._matrix().T @ delta.reshape(self.filters, -1)
        patches = columns.reshape(channels, windows.height, windows.width, down, right, batch)
        padded = np.zeros((channels, *windows.padded_size(height, width), batch), delta.dtype)
        for row, column, pixels in windows.places((down, right)):
            padded[pixels] += patches[:, row, column]
        return windows.within(padded)

    def _matrix(self) -> Array:
        """The kernels as rows: `[filters, values of a window]`; a view."""
        return self.weights["weight"].reshape(self.filters, -1)
