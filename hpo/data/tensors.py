"""A dataset's rows as tensors on the device that trains on them.

Images stay bytes until a batch is drawn; on the CPU they are the mapped file itself, so many
processes on one machine share one copy.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpo.data.augment import Augmentation
from hpo.data.rows import LabelledRows

__all__ = ["ImageTensors", "Normalization", "tensor_of"]

_CHUNK = 4096


@dataclass(frozen=True)
class Normalization:
    """What is subtracted from a value, and what the rest is divided by.

    Attributes:
        mean, std: of the bytes of images, `[channels]`; or of numbers, `[features]`.
        target_mean, target_std: of what is to be predicted, `[targets]`; None of classes.
    """

    mean: Tensor
    std: Tensor
    target_mean: Tensor | None = None
    target_std: Tensor | None = None

    def to_targets(self, outputs: Tensor) -> Tensor:
        """What a network gives, `[..., targets]`, in the targets' own units."""
        assert self.target_mean is not None
        assert self.target_std is not None
        return outputs * self.target_std + self.target_mean


class ImageTensors:
    """Images and labels on a device.

    Args:
        rows: bytes `[n, height, width]` or `[n, channels, height, width]`, and labels; those of
            the shape `[n, features]` are images of one pixel, with a channel for each number.
        device: where batches are wanted.

    Attributes:
        images: uint8 `[n, channels, height, width]`; in memory as in the file, row by row or
            column by column.
        labels: int64 `[n]`.
        features: numbers a row, `channels * height * width`.
        shape: of a row, `(channels, height, width)`.
    """

    def __init__(self, rows: LabelledRows, device: torch.device) -> None:
        # Formats that go down the columns are turned batch by batch: the file stays mapped.
        self._turned = _by_columns(rows.images)
        stored = tensor_of(rows.images.swapaxes(-1, -2) if self._turned else rows.images)
        if stored.ndim == 2:  # no images: each number is a channel, and normalised by itself
            stored = stored[:, :, None, None]
        elif stored.ndim == 3:
            stored = stored.unsqueeze(1)
        self._stored = stored.to(device)
        self.images = self._stored.transpose(2, 3) if self._turned else self._stored
        self.labels = tensor_of(rows.labels).to(device)
        self.device = device
        self.features = stored[0].numel()
        self.shape = tuple(self.images.shape[1:])

    def __len__(self) -> int:
        return len(self.labels)

    def normalization(self, index: Tensor) -> Normalization:
        """Mean and standard deviation of each channel over the rows of `index`, exactly.

        A channel that never changes gets a standard deviation of one.
        """
        channels = self.images.shape[1]
        counts = torch.zeros(channels, 256, dtype=torch.int64)
        for chunk in torch.split(index, _CHUNK):
            for channel in range(channels):
                values = self._stored[chunk.to(self.device), channel].flatten()
                counts[channel] += torch.bincount(values, minlength=256).cpu()
        levels = torch.arange(256, dtype=torch.float64)
        share = counts.double() / counts.sum(1, keepdim=True)
        mean = share @ levels
        variance = (share * (levels - mean[:, None]) ** 2).sum(1)
        std = torch.where(variance > 0, variance.sqrt(), 1.0)
        return Normalization(mean.float().to(self.device), std.float().to(self.device))

    def batch(
        self,
        index: Tensor,
        normalization: Normalization,
        dtype: torch.dtype,
        augmentations: Sequence[Augmentation] = (),
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Some rows, ready for a network.

        Args:
            index: int64 `[rows]`; on any device, but a copy from the CPU waits for this one.
            augmentations: applied in order to these images; drawn from `generator`.

        Returns:
            Features `[rows, features]` in `dtype`, and labels `[rows]`.
        """
        index = index.to(self.device)
        # Whole rows: indexing pixel by pixel takes ten times as long.
        rows = self._stored.flatten(1).index_select(0, index)
        images = rows.view(-1, *self._stored.shape[1:])
        if self._turned:
            images = images.transpose(2, 3).contiguous()
        for augment in augmentations:
            assert generator is not None
            images = augment(images, generator)
        shape = (1, -1, 1, 1)
        std = normalization.std.view(shape)
        # In place: the rows, and what was made of them, are nobody else's.
        images = images.float().sub_(normalization.mean.view(shape)).div_(std)
        return images.flatten(1).to(dtype), self.labels.index_select(0, index)

    def batches(
        self, index: Tensor, normalization: Normalization, dtype: torch.dtype, rows: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows of `index` in order, at most `rows` at a time, as `batch` gives them."""
        for chunk in torch.split(index.to(self.device), rows):
            yield self.batch(chunk, normalization, dtype)


def _by_columns(images: NDArray[Any]) -> bool:
    """Whether images lie in memory column by column, and are whole otherwise."""
    turned = images.ndim > 2 and images.swapaxes(-1, -2).flags.c_contiguous
    return not images.flags.c_contiguous and bool(turned)


def tensor_of(array: NDArray[Any]) -> Tensor:
    """A tensor over the array's own memory; copied only where torch has no such strides."""
    with warnings.catch_warnings():
        # A dataset of somebody's own may be read-only; nothing here writes to it.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array))
