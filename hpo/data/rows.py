"""Labelled rows: the one form in which images and their labels travel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.errors import DataError


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Images and their labels, row by row.

    Attributes:
        images: uint8 `[n, height, width]` or `[n, channels, height, width]`; memory-mapped
            (copy on write, the file never changes) where it came from a file.
        labels: int64 `[n]`, class indices from 0.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def check_rows(
    rows: LabelledRows, n: int, shape: tuple[int, ...], classes: int, what: str
) -> None:
    """Hold rows to their description, so that no later room has to.

    Args:
        rows: what a dataset returned; may be anything, since packages may bring datasets.
        n: how many rows there must be.
        shape: of one image.
        classes: labels must lie in `0..classes-1`.
        what: names the rows in the message, such as `mnist (train)`.

    Raises:
        DataError: naming the first thing that differs.
    """
    if not isinstance(rows, LabelledRows):
        raise DataError(f"{what}: a dataset must return LabelledRows, not {type(rows).__name__}")
    images, labels = rows.images, rows.labels
    for part, array, dtype, expected in (
        ("images", images, np.uint8, (n, *shape)),
        ("labels", labels, np.int64, (n,)),
    ):
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            found = getattr(array, "dtype", type(array).__name__)
            raise DataError(f"{what}: {part} must be a {np.dtype(dtype)} array, not {found}")
        if array.shape != expected:
            raise DataError(f"{what}: {part} must have the shape {expected}, not {array.shape}")
    if n and (labels.min() < 0 or labels.max() >= classes):
        raise DataError(
            f"{what}: labels must lie in 0..{classes - 1}, "
            f"but they run from {labels.min()} to {labels.max()}"
        )
