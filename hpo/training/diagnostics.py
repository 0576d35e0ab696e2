"""What can be watched while members train, on top of what every epoch notes; nothing hangs on it.

`gradient_norms`: for each linear layer of a member, first to last, the squared sum of the
derivative of the loss by what the layer writes (its delta: before batch norm and activation),
over its units, the rows of a batch, and the batches of an epoch. The loss is that of a step: the
mean over the rows of a batch. So the same deltas in batches of twice the size come to a quarter:
as many rows in all, each with half the weight. With folds, it is the mean over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from hpo.models.wide_mlp import WideMlp

__all__ = ["GRADIENT_NORMS", "GradientNorms", "mean_norms"]

GRADIENT_NORMS = "gradient_norms"
_LOGITS = -1


def mean_norms(folds: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Those of an epoch: the means over a member's folds, layer by layer.

    Nothing where one is beyond all numbers: no database stores that.
    """
    means = tuple(fmean(layer) for layer in zip(*folds, strict=True))
    return means if all(map(math.isfinite, means)) else ()


class GradientNorms:
    """The squared sums of members that lie side by side.

    They are float64: squares of float32 numbers span more than float32 does.

    Args:
        model: what the members lie in.
        depths: of each, where its hidden linear layers are, first to last.
        begun: of each, the sums over the batches of this epoch that were done elsewhere; empty
            where there are none.
    """

    def __init__(
        self, model: WideMlp, depths: Sequence[Sequence[int]], begun: Sequence[Sequence[float]]
    ) -> None:
        self._depths = depths
        self._lengths: dict[int, Tensor] = {}
        self._sums: dict[int, Tensor] = {}
        self._turns: dict[int, dict[int, int]] = {}  # the members of a layer lie in its own order
        for layer in (*range(model.layers), _LOGITS):
            rows = model.rows_of(layer)
            lengths = [own.stop - own.start for own in rows.values()]
            self._lengths[layer] = torch.tensor(lengths, device=model.device)
            self._sums[layer] = torch.zeros(len(rows), dtype=torch.float64, device=model.device)
            self._turns[layer] = {member: turn for turn, member in enumerate(rows)}
        for place, sums in enumerate(begun):
            for layer, value in zip(self._layers_of(place), sums, strict=False):
                self._sums[layer][self._turns[layer][place]] = value

    def observe(self, depth: int, delta: Tensor) -> None:
        """Add one batch.

        Args:
            delta: `[units, batch]`, of all members that have that layer.
        """
        squares = torch.linalg.vector_norm(delta, dim=1, dtype=torch.float64).square_()
        # Member by member in a fixed order: `index_add_` has none on a GPU, and a product with
        # zeros would carry the NaN of one that diverged to all others.
        self._sums[depth] += torch.segment_reduce(
            squares, "sum", lengths=self._lengths[depth], initial=0.0, unsafe=True
        )

    def sums(self) -> list[list[float]]:
        """Of each member: of each of its layers, first to last, over the epoch so far."""
        columns = {layer: sums.tolist() for layer, sums in self._sums.items()}
        return [
            [columns[layer][self._turns[layer][place]] for layer in self._layers_of(place)]
            for place in range(len(self._depths))
        ]

    def clear(self) -> None:
        """Begin an epoch."""
        for sums in self._sums.values():
            sums.zero_()

    def _layers_of(self, place: int) -> list[int]:
        return [*self._depths[place], _LOGITS]
