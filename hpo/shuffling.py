"""An order that follows from a seed, the same on every machine and with every NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["shuffled"]


def shuffled(n: int, seed: int, *purpose: int) -> NDArray[np.int64]:
    """The numbers `0..n-1` in an order of their own for each seed and purpose.

    They are sorted by raw PCG64 output, which NumPy keeps stable (NEP 19), where it may change
    what `Generator.permutation` returns.

    Args:
        seed: 0 or above.
        purpose: keeps this use of the seed apart from every other; a 0 at its end counts for
            nothing.
    """
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=purpose))
    return np.argsort(bits.random_raw(n), kind="stable").astype(np.int64, copy=False)
