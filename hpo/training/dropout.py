"""Dropout masks from raw random bytes, each member from a generator of its own."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DropoutMasks"]

_LEVELS = 256


class DropoutMasks:
    """Draws one member's masks (Srivastava et al. 2014, in the inverted form).

    One random byte a unit is compared with a threshold, several times faster than Bernoulli
    draws, so the probability is rounded to a multiple of 1/256 (0.3 becomes 0.3008). The kept
    units are scaled by what was really kept, so the expectation is exact.

    Args:
        probability: of a zero, in [0, 1).
        generator: on the device of the masks.
    """

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        self._threshold = min(round(probability * _LEVELS), _LEVELS - 1)
        self._scale = _LEVELS / (_LEVELS - self._threshold)
        self.generator = generator
        self._words = torch.empty(0, dtype=torch.int64)

    def fill(self, mask: Tensor) -> None:
        """Write fresh factors, 0 or 1 / keep, to `mask`, of any shape and strides."""
        words = -(-mask.numel() // 8)
        if len(self._words) < words:
            self._words = torch.empty(words, dtype=torch.int64, device=mask.device)
        drawn = self._words[:words].random_(-(2**63), None, generator=self.generator)
        noise = drawn.view(torch.uint8)[: mask.numel()].view(mask.shape)
        torch.ge(noise, self._threshold, out=mask)
        mask.mul_(self._scale)
