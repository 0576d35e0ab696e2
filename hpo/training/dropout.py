"""Random bytes of dropout: a member's own in its hidden layers, a stream's for its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.models.noise import scale, threshold, words_and_bytes

__all__ = ["InputNoise", "LayerMasks"]


class LayerMasks:
    """The masks of one layer, drawn member by member and made of the draws all at once.

    Args:
        sources: of the members that have dropout: its units, the probability of a zero, in
            [0, 1), and what draws it, on the device of the mask.
        mask: where the factors are wanted, `[units, batch]`.
    """

    def __init__(
        self, sources: Sequence[tuple[slice, float, torch.Generator]], mask: Tensor
    ) -> None:
        units, batch = mask.shape
        # Members without dropout keep bytes of zero.
        words, self._bytes = words_and_bytes(units, batch, mask.device)
        self._mask = mask
        self._thresholds = torch.zeros(units, 1, dtype=torch.uint8, device=mask.device)
        self._scales = torch.ones(units, 1, dtype=mask.dtype, device=mask.device)
        self._draws = []
        for own, probability, generator in sources:
            self._thresholds[own] = threshold(probability)
            self._scales[own] = scale(probability)
            self._draws.append((words[own], generator))

    def fill(self) -> None:
        """Write fresh factors: 0 or 1 / keep, and 1 where there is no dropout."""
        for words, generator in self._draws:
            _draw(words, generator)
        torch.ge(self._bytes, self._thresholds, out=self._mask)
        self._mask.mul_(self._scales)


class InputNoise:
    """Random bytes for the dropout of a stream's batches.

    All members that read the stream compare the same bytes, each with a threshold of its own: the
    noise belongs to the batch, as augmentation does.

    Args:
        inputs: numbers of a row.
        batch: rows.
        generator: on the device of the batches.
    """

    def __init__(
        self, inputs: int, batch: int, generator: torch.Generator, device: torch.device
    ) -> None:
        self._words, self._bytes = words_and_bytes(inputs, batch, device)
        self._generator = generator

    def draw(self) -> Tensor:
        """Those of the next batch, uint8 `[inputs, batch]`; overwritten by the next draw."""
        _draw(self._words, self._generator)
        return self._bytes


def _draw(words: Tensor, generator: torch.Generator) -> None:
    words.random_(-(2**63), None, generator=generator)
