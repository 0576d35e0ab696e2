"""The windows that a convolution or a pooling slides over images."""

from __future__ import annotations

from operator import index
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from hpo.errors import UsageError
from hpo.models.numpy_cnn.arrays import Array, Shape, told

__all__ = ["Pair", "Place", "Windows"]

Pair = int | tuple[int, int]
"""One number for height and width, or one for each."""


class Place(NamedTuple):
    """One place within a window.

    Attributes:
        row, column: in the window.
        pixels: the index of padded images that gives what lies there in every window,
            `[channels, down, right, batch]`. No pixel is there twice, so one may add to all of
            them at once.
    """

    row: int
    column: int
    pixels: tuple[slice, slice, slice]


class Windows:
    """Windows of a size, a stride apart, on images with zeros around them.

    Args:
        size: height and width of a window.
        stride: from one window to the next, downward and to the right.
        padding: lines of zeros added above and below, and left and right.

    Raises:
        UsageError: a number is too small.
    """

    def __init__(self, size: Pair, stride: Pair, padding: Pair) -> None:
        self.height, self.width = _pair("window", size, lowest=1)
        self.stride = _pair("stride", stride, lowest=1)
        self.padding = _pair("padding", padding, lowest=0)

    def takes(self, shape: Shape) -> str:
        """What there must be in place of images of that shape, which have no room for one window.

        Returns:
            The smallest such image in words; empty where there is room.
        """
        channels, height, width = shape
        tall, wide = self.padded_size(height, width)
        if tall >= self.height and wide >= self.width:
            return ""
        (top, left) = self.padding
        least = max(1, self.height - 2 * top), max(1, self.width - 2 * left)
        return f"at least {told((channels, *least))}"

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image with its padding."""
        return height + 2 * self.padding[0], width + 2 * self.padding[1]

    def counts(self, shape: Shape) -> tuple[int, int]:
        """How many windows images `(channels, height, width)` have downward and to the right.

        Lines at the end that do not fill a window are in none.
        """
        tall, wide = self.padded_size(*shape[1:])
        down, right = self.stride
        return (tall - self.height) // down + 1, (wide - self.width) // right + 1

    def pad(self, images: Array) -> Array:
        """`[channels, height, width, batch]` with its padding; itself if there is none."""
        if self.padding == (0, 0):
            return images
        channels, height, width, batch = images.shape
        padded = np.zeros((channels, *self.padded_size(height, width), batch), images.dtype)
        self.within(padded)[:] = images
        return padded

    def within(self, padded: Array) -> Array:
        """The view of padded images without their padding."""
        (top, left), (_, height, width, _) = self.padding, padded.shape
        return padded[:, top : height - top, left : width - left]

    def cut(self, padded: Array) -> Array:
        """Every window of padded images, without a copy.

        Returns:
            `[channels, window height, window width, down, right, batch]`: what lies at a place
            of the window, for every window. It is a view with strides of its own (so each pixel
            appears in as many windows as cover it), and must not be written to.
        """
        down, right = self.stride
        windows = sliding_window_view(padded, (self.height, self.width), axis=(1, 2))
        view: Array = windows[:, ::down, ::right].transpose(0, 4, 5, 1, 2, 3)
        return view

    def places(self, counts: tuple[int, int]) -> list[Place]:
        """Every place within a window, row by row.

        Args:
            counts: of windows downward and to the right.
        """
        (down, right), (n_down, n_right) = self.stride, counts
        return [
            Place(
                row,
                column,
                (
                    slice(None),
                    slice(row, row + down * n_down, down),
                    slice(column, column + right * n_right, right),
                ),
            )
            for row in range(self.height)
            for column in range(self.width)
        ]


def _pair(what: str, given: Pair, lowest: int) -> tuple[int, int]:
    try:
        down, right = given if isinstance(given, tuple | list) else (given, given)
        pair = index(down), index(right)
    except (TypeError, ValueError):
        raise UsageError(
            f"a {what} of {given} cannot be; write one whole number, or two for height and width"
        ) from None
    if min(pair) < lowest:
        raise UsageError(f"a {what} of {pair[0]}x{pair[1]} cannot be; the least is {lowest}")
    return pair
