"""How large a layer's first weights are.

A sum of n products has n times the variance of one, so weights must shrink with the number of
inputs a value is summed over, the fan-in, or signals would grow from layer to layer. All rules
draw from the normal distribution with mean 0; they differ in the variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hpo.errors import UsageError
from hpo.models.numpy_cnn.arrays import Array

__all__ = ["INITIALIZERS", "draw"]

INITIALIZERS: dict[str, Callable[[int, int], float]] = {
    # LeCun et al. 1998, "Efficient BackProp", section 4.6: keeps the variance of linear layers.
    "lecun": lambda fan_in, fan_out: 1 / fan_in,  # noqa: ARG005 - all rules are called alike
    # He et al. 2015: ReLU sets half of the values to zero, so twice as much is needed.
    "he": lambda fan_in, fan_out: 2 / fan_in,  # noqa: ARG005 - as above
    # Glorot and Bengio 2010: halfway between what the way forward and the way back ask for.
    "xavier": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
}
"""The variance of the weights by rule, from how many inputs a value is summed over (fan-in) and
how many outputs an input goes to (fan-out)."""


def draw(
    rule: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    generator: np.random.Generator,
) -> Array:
    """First weights of a shape `[outputs, inputs, ...]`; the rest of it is the kernel.

    They are drawn in float64 whatever the dtype, so both dtypes start from the same weights.

    Raises:
        UsageError: there is no such rule.
    """
    if rule not in INITIALIZERS:
        known = ", ".join(INITIALIZERS)
        raise UsageError(f"there is no initialization {rule!r}; there are {known}")
    outputs, inputs, *kernel = shape
    positions = int(np.prod(kernel))
    variance = INITIALIZERS[rule](inputs * positions, outputs * positions)
    weights: Array = (generator.standard_normal(shape) * np.sqrt(variance)).astype(dtype)
    return weights
