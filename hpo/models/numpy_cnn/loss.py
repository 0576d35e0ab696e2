"""Softmax cross-entropy: how far the network is from the labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.models.numpy_cnn.arrays import Array

__all__ = ["softmax_cross_entropy"]


def softmax_cross_entropy(
    logits: Array, labels: NDArray[np.integer[Any]], smoothing: float = 0.0
) -> tuple[float, Array]:
    """The mean over the batch of `-log p(label)`, with p the softmax of the logits.

    Of each row the largest logit is taken off first: the softmax stays the same, and no
    exponential overflows. The gradient is the textbook's `(p - target) / batch` (Bishop 2006,
    equation 4.109); the target is one for the label and zero for all else, unless it is smoothed.

    Args:
        logits: `[classes, batch]`.
        labels: `[batch]`, from 0 to classes - 1.
        smoothing: the share of the target that is spread evenly over all classes (Szegedy et al.
            2016, section 7).

    Returns:
        The loss in nats, and its gradient by the logits, `[classes, batch]`.
    """
    classes, batch = logits.shape
    rows = np.arange(batch)
    shifted = logits - logits.max(axis=0)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=0)
    losses = np.log(sums) - (1 - smoothing) * shifted[labels, rows]
    gradient = exponentials / sums
    gradient[labels, rows] -= 1 - smoothing
    if smoothing:
        losses -= smoothing * shifted.mean(axis=0)
        gradient -= smoothing / classes
    gradient /= batch
    return float(losses.mean()), gradient
