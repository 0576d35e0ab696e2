"""Rows: the two forms in which data travels, images with labels and numbers with targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hpo.data.info import DatasetInfo
from hpo.errors import DataError


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Images and their labels, row by row.

    Attributes:
        images: uint8 `[n, height, width]` or `[n, channels, height, width]`, or `[n, features]`
            of what is no image; memory-mapped (copy on write, the file never changes) where it
            came from a file.
        labels: int64 `[n]`, class indices from 0.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class MeasuredRows:
    """Numbers and what is to be predicted from them, row by row.

    Attributes:
        inputs: float32 `[n, features]`.
        targets: float32 `[n, targets]`, in units of their own.
    """

    inputs: NDArray[np.float32]
    targets: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.targets)


Rows = LabelledRows | MeasuredRows


def kind_of(info: DatasetInfo) -> type[Rows]:
    """The form of a dataset's rows."""
    return MeasuredRows if info.targets else LabelledRows


def check_rows(rows: Rows, n: int, info: DatasetInfo, what: str) -> None:
    """Hold rows to their description, so that no later room has to.

    Args:
        rows: what a dataset returned; may be anything, since packages may bring datasets.
        n: how many rows there must be.
        info: the shape of a row, and its classes or targets.
        what: names the rows in the message, such as `mnist (train)`.

    Raises:
        DataError: naming the first thing that differs.
    """
    kind = kind_of(info)
    if not isinstance(rows, kind):
        raise DataError(
            f"{what}: a dataset must return {kind.__name__}, not {type(rows).__name__}"
        )
    if isinstance(rows, MeasuredRows):
        _check_array(rows.inputs, np.float32, (n, *info.shape), f"{what}: inputs")
        _check_array(rows.targets, np.float32, (n, info.targets), f"{what}: targets")
        for part, array in (("inputs", rows.inputs), ("targets", rows.targets)):
            if not np.isfinite(array).all():
                raise DataError(f"{what}: {part} hold values that are no finite numbers")
        return
    labels = rows.labels
    _check_array(rows.images, np.uint8, (n, *info.shape), f"{what}: images")
    _check_array(labels, np.int64, (n,), f"{what}: labels")
    if n and (labels.min() < 0 or labels.max() >= info.classes):
        raise DataError(
            f"{what}: labels must lie in 0..{info.classes - 1}, "
            f"but they run from {labels.min()} to {labels.max()}"
        )


def _check_array(
    array: NDArray[Any], dtype: DTypeLike, expected: tuple[int, ...], what: str
) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        found = getattr(array, "dtype", type(array).__name__)
        raise DataError(f"{what} must be a {np.dtype(dtype)} array, not {found}")
    if array.shape != expected:
        raise DataError(f"{what} must have the shape {expected}, not {array.shape}")
