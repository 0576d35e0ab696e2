"""Dropout masks from raw random bytes, each member's from a generator of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["LayerMasks"]

_LEVELS = 256
_BYTES_A_WORD = 8


class LayerMasks:
    """The masks of one layer, drawn member by member and made of the draws all at once.

    Dropout as of Srivastava et al. 2014, in the inverted form. One random byte a unit is compared
    with a threshold, several times faster than Bernoulli draws, so a probability is rounded to a
    multiple of 1/256 (0.3 becomes 0.3008). The kept units are scaled by what was really kept, so
    the expectation is exact.

    Args:
        sources: of the members that have dropout: its units, the probability of a zero, in
            [0, 1), and what draws it, on the device of the mask.
        mask: where the factors are wanted, `[units, batch]`.
    """

    def __init__(
        self, sources: Sequence[tuple[slice, float, torch.Generator]], mask: Tensor
    ) -> None:
        units, batch = mask.shape
        device = mask.device
        # Every row begins with a word, and members without dropout keep bytes of zero.
        words = torch.zeros(units, -(-batch // _BYTES_A_WORD), dtype=torch.int64, device=device)
        self._mask = mask
        self._bytes = words.view(torch.uint8)[:, :batch]
        self._thresholds = torch.zeros(units, 1, dtype=torch.uint8, device=device)
        self._scales = torch.ones(units, 1, dtype=mask.dtype, device=device)
        self._draws = []
        for own, probability, generator in sources:
            threshold = min(round(probability * _LEVELS), _LEVELS - 1)
            self._thresholds[own] = threshold
            self._scales[own] = _LEVELS / (_LEVELS - threshold)
            self._draws.append((words[own], generator))

    def fill(self) -> None:
        """Write fresh factors: 0 or 1 / keep, and 1 where there is no dropout."""
        for words, generator in self._draws:
            words.random_(-(2**63), None, generator=generator)
        torch.ge(self._bytes, self._thresholds, out=self._mask)
        self._mask.mul_(self._scales)
