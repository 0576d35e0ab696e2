"""The grid of a published study of Fashion-MNIST: 144 cells of 784-128-10, and their folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from hpo.config import MlpConfig, OptimizerConfig, TrialConfig

__all__ = ["BATCH_SIZES", "FOLDS", "PUBLISHED", "WIDTH", "Cell", "all_cells", "folds_of", "spread"]

WIDTH = 128
FOLDS = 3
BATCH_SIZES = (512, 1024)


@dataclass(frozen=True)
class Cell:
    """One combination of the grid."""

    activation: str
    batch_norm: bool
    dropout: float
    lr: float
    optimizer: str
    batch_size: int

    def config(self, epochs: int) -> TrialConfig:
        """As hpo trains it."""
        return TrialConfig(
            model=MlpConfig(
                widths=(WIDTH,),
                activation=self.activation,
                batch_norm=self.batch_norm,
                dropout=self.dropout,
            ),
            optimizer=OptimizerConfig(name=self.optimizer, lr=self.lr),
            batch_size=self.batch_size,
            epochs=epochs,
        )

    def __str__(self) -> str:
        norm = "batch norm" if self.batch_norm else "no batch norm"
        return (
            f"{self.activation}, {norm}, dropout {self.dropout}, {self.optimizer} at {self.lr}, "
            f"batch {self.batch_size}"
        )


PUBLISHED = Cell("silu", True, 0.2, 0.01, "adam", 512)
"""What the study named as the best of the grid."""


def all_cells(batch_sizes: Sequence[int] = BATCH_SIZES) -> list[Cell]:
    """Every cell; those of one batch size follow each other."""
    rest = product(
        ("relu", "selu", "silu"),
        (True, False),
        (0.2, 0.4),
        (0.001, 0.002, 0.01),
        ("rmsprop", "adam"),
    )
    combinations = list(rest)
    return [Cell(*values, size) for size in batch_sizes for values in combinations]


def spread(cells: Sequence[Cell], count: int) -> list[int]:
    """The places of `count` cells, as many of each batch size as can be; all for 0.

    The cells of a batch size are drawn at random, always the same.
    """
    if not count or count >= len(cells):
        return list(range(len(cells)))
    by_size: dict[int, list[int]] = {}
    for place, cell in enumerate(cells):
        by_size.setdefault(cell.batch_size, []).append(place)
    orders = [np.random.default_rng(0).permutation(places) for places in by_size.values()]
    in_turn = [
        int(order[rank]) for rank in range(len(cells)) for order in orders if rank < len(order)
    ]
    return in_turn[:count]


def folds_of(labels: NDArray[Any]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training and held-out rows of each fold, as `GridSearchCV(cv=3)` takes them."""
    folds = StratifiedKFold(FOLDS).split(np.zeros(len(labels)), labels)
    return [(training.astype(np.int64), held_out.astype(np.int64)) for training, held_out in folds]
