"""A dataset of plain numbers as tensors on the device that trains on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hpo.data.augment import Augmentation
from hpo.data.rows import MeasuredRows, Rows
from hpo.data.tensors import ImageTensors, Normalization, tensor_of

__all__ = ["Examples", "VectorTensors", "on_device"]


class VectorTensors:
    """Inputs and targets on a device; batches come standardised, both of them.

    Args:
        rows: float32 `[n, features]` and `[n, targets]`.
        device: where batches are wanted.

    Attributes:
        inputs: float32 `[n, features]`.
        targets: float32 `[n, targets]`, in their own units.
        features: numbers a row.
        shape: of a row.
    """

    def __init__(self, rows: MeasuredRows, device: torch.device) -> None:
        self.inputs = tensor_of(rows.inputs).to(device)
        self.targets = tensor_of(rows.targets).to(device)
        self.device = device
        self.features = self.inputs.shape[1]
        self.shape = (self.features,)

    def __len__(self) -> int:
        return len(self.targets)

    def normalization(self, index: Tensor) -> Normalization:
        """Mean and standard deviation of each input and target over the rows of `index`.

        What never changes gets a standard deviation of one.
        """
        index = index.to(self.device)
        return Normalization(
            *_moments(self.inputs[index].double()), *_moments(self.targets[index].double())
        )

    def batch(
        self,
        index: Tensor,
        normalization: Normalization,
        dtype: torch.dtype,
        augmentations: Sequence[Augmentation] = (),
        generator: torch.Generator | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Some rows, ready for a network.

        Args:
            index: int64 `[rows]`; on any device, but a copy from the CPU waits for this one.
            augmentations: none; there is nothing to turn or flip.

        Returns:
            Features `[rows, features]` in `dtype`, and standardised targets `[rows, targets]`.
        """
        assert not augmentations, "numbers cannot be augmented as images can"
        index = index.to(self.device)
        inputs, targets = self.inputs.index_select(0, index), self.targets.index_select(0, index)
        inputs = inputs.sub_(normalization.mean).div_(normalization.std)
        assert normalization.target_mean is not None
        assert normalization.target_std is not None
        targets = targets.sub_(normalization.target_mean).div_(normalization.target_std)
        return inputs.to(dtype), targets

    def batches(
        self, index: Tensor, normalization: Normalization, dtype: torch.dtype, rows: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows of `index` in order, at most `rows` at a time, as `batch` gives them."""
        for chunk in torch.split(index.to(self.device), rows):
            yield self.batch(chunk, normalization, dtype)


Examples = ImageTensors | VectorTensors
"""A dataset's rows on a device, of whichever form."""


def on_device(rows: Rows, device: torch.device) -> Examples:
    """The rows as tensors there."""
    if isinstance(rows, MeasuredRows):
        return VectorTensors(rows, device)
    return ImageTensors(rows, device)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = values.mean(0), values.std(0, correction=0)
    return mean.float(), torch.where(std > 0, std, 1.0).float()
