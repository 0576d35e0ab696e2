"""The loop that the public tutorials teach: PIL images, ToTensor, DataLoader, nn.Sequential.

It is what PyTorch's beginner tutorials and Optuna's PyTorch examples do: every image is made a PIL
image, a tensor and a normalised tensor whenever it is read, a DataLoader shuffles and stacks them,
and each batch takes `zero_grad`, `backward` and `step`. Optimizers have torch's defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from hpo.data.rows import LabelledRows
from hpo.data.tensors import ImageTensors

__all__ = ["BATCH", "MemoryBatches", "PilRows", "accuracy", "loader", "sequential", "train_epoch"]

BATCH = 128


class PilRows(Dataset[tuple[Tensor, int]]):
    """Some rows of a dataset with one channel, as torchvision's own datasets give them.

    Args:
        index: int64 `[n]`, which rows.
        normalized_by: the rows, by their number, whose mean and deviation normalise all.
    """

    def __init__(self, rows: LabelledRows, index: Tensor, normalized_by: Tensor) -> None:
        self._images = torch.from_numpy(rows.images)[index]
        self._labels = torch.from_numpy(rows.labels)[index]
        levels = ImageTensors(rows, torch.device("cpu")).normalization(normalized_by)
        self._transform = transforms.Compose(
            [
                transforms.ToTensor(),
                transforms.Normalize((levels.mean / 255).tolist(), (levels.std / 255).tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self._images[place].numpy())
        return self._transform(image), int(self._labels[place])


@dataclass(frozen=True)
class MemoryBatches:
    """What a DataLoader would give, from tensors in memory; for work that nobody times.

    Attributes:
        features: float32 `[n, ...]`.
        labels: int64 `[n]`.
    """

    features: Tensor
    labels: Tensor
    shuffle: bool

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n = len(self.labels)
        order = torch.randperm(n) if self.shuffle else torch.arange(n)
        for chunk in torch.split(order, BATCH):
            yield self.features[chunk], self.labels[chunk]


def loader(rows: PilRows, *, shuffle: bool) -> DataLoader[Any]:
    """Batches of 128, made in the process that trains."""
    return DataLoader(rows, batch_size=BATCH, shuffle=shuffle)


def sequential(
    features: int,
    widths: Sequence[int],
    classes: int,
    dropouts: Sequence[float],
    *,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Linear, batch norm (if any), ReLU and dropout for each width; then the classes."""
    layers: list[nn.Module] = [nn.Flatten()]
    for (below, width), dropout in zip(pairwise([features, *widths]), dropouts, strict=True):
        layers.append(nn.Linear(below, width))
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers += [nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
) -> None:
    """One pass over the batches."""
    loss_of = nn.CrossEntropyLoss()
    model.train()
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> float:
    """The share of the batches' rows that are classified rightly."""
    model.eval()
    right = rows = 0
    for images, labels in batches:
        found = model(images.to(device)).argmax(1)
        right += int((found == labels.to(device)).sum().item())
        rows += len(labels)
    return right / rows
