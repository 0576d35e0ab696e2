"""Training rows into training and validation rows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hpo.definition.schema import DatasetSection
from hpo.errors import UsageError
from hpo.shuffling import shuffled

Rows = NDArray[np.int64]

_PURPOSE = 0x73706C69  # "spli": keeps this use of the seed apart from every other


def split(n: int, share: float, seed: int) -> tuple[Rows, Rows]:
    """Shuffle row numbers by the seed and hold a share of them out.

    Args:
        n: how many rows, at least 2.
        share: of the rows to hold out, between 0 and 1; `round(share * n)` rows, at least one.
        seed: 0 or above.

    Returns:
        `(train, validation)`, int64 row numbers, disjoint, together `0..n-1`, both shuffled.

    Raises:
        UsageError: a value is out of range, or no training row would be left.
    """
    if n < 2:
        raise UsageError(f"{n} rows cannot be split: training and validation need one each")
    if not (math.isfinite(share) and 0 < share < 1):
        raise UsageError(f"the validation share {share} must lie between 0 and 1")
    if seed < 0:
        raise UsageError(f"the seed {seed} is below 0; a seed is 0 or above")
    held_out = max(1, round(share * n))
    if held_out >= n:
        raise UsageError(
            f"the validation share {share} of {n} rows leaves none for training; lower it"
        )
    order = shuffled(n, seed, _PURPOSE)
    return order[held_out:], order[:held_out]


def folds(n: int, count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Shuffle row numbers by the seed, cut them into folds, and hold out one after the other.

    Args:
        n: how many rows.
        count: of folds, at least 2; their sizes differ by one row at most, the first are larger.
        seed: 0 or above.

    Returns:
        For each fold `(train, validation)`, int64 row numbers, disjoint, together `0..n-1`; the
        validation rows of all folds are disjoint and together `0..n-1` too.

    Raises:
        UsageError: a value is out of range, or there are more folds than rows.
    """
    if count < 2:
        raise UsageError(f"{count} folds leave nothing to train on; there are at least 2")
    if count > n:
        raise UsageError(f"{n} rows cannot be cut into {count} folds; ask for fewer")
    if seed < 0:
        raise UsageError(f"the seed {seed} is below 0; a seed is 0 or above")
    parts = np.array_split(shuffled(n, seed, _PURPOSE), count)
    return [
        (np.concatenate([*parts[:place], *parts[place + 1 :]]), parts[place])
        for place in range(count)
    ]


def divide(dataset: DatasetSection, n: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Training and validation rows as a study asks for them, once or for each fold.

    Args:
        n: rows of the training part.
        seed: the study's.

    Raises:
        UsageError: so many rows cannot be divided like that.
    """
    if dataset.folds is not None:
        return folds(n, dataset.folds, seed)
    assert dataset.validation is not None, "a definition has a share or folds"
    return [split(n, dataset.validation, seed)]
