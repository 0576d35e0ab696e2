"""How values lie: the rows of a batch are the last axis.

A batch of images is `[channels, height, width, batch]`, a batch of rows `[values, batch]`. So a
layer reads like the formula of one row, `z = W x + b`, with a column for every row; and the same
pixel of all images lies side by side, so that NumPy's loops run over long stretches of memory
whatever the window, stride or padding. Weights have torch's shapes: `[outputs, inputs]` and
`[outputs, channels, height, width]`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.errors import UsageError

__all__ = ["Array", "Shape", "at_least_one", "size_of", "told", "told_with_size"]

Array = NDArray[np.floating[Any]]
"""Floating-point values of the network's dtype."""

Shape = tuple[int, ...]
"""Of one row, without the batch: `(channels, height, width)` or `(values,)`."""


def at_least_one(what: str, number: int) -> int:
    """A number of channels, values or the like.

    Raises:
        UsageError: it is below 1.
    """
    if number < 1:
        raise UsageError(f"{what} is {number}; the least is 1")
    return number


def size_of(shape: Shape) -> int:
    """How many values a row has."""
    return math.prod(shape)


def told(shape: Shape) -> str:
    """A shape as people write it: `5x5x40` (height, width, channels), or `1000`."""
    return "x".join(str(length) for length in (*shape[1:], shape[0]))


def told_with_size(shape: Shape) -> str:
    """A shape and how many values that is: `5x5x40 = 1000 values`, or `1000 values`."""
    return (
        f"{told(shape)} = {size_of(shape)} values" if len(shape) > 1 else f"{told(shape)} values"
    )
