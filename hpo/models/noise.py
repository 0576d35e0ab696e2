"""Dropout by random bytes: a number is zeroed where its byte lies below a threshold.

Dropout as of Srivastava et al. 2014, in the inverted form. One random byte a number is several
times faster than Bernoulli draws, so a probability is rounded to a multiple of 1/256 (0.3 becomes
0.3008). What is kept is scaled by what was really kept, so the expectation is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["scale", "threshold", "words_and_bytes"]

_LEVELS = 256
_BYTES_A_WORD = 8


def threshold(probability: float) -> int:
    """Bytes below it make a zero, for a probability in [0, 1)."""
    return min(round(probability * _LEVELS), _LEVELS - 1)


def scale(probability: float) -> float:
    """What is kept is multiplied by it."""
    return _LEVELS / (_LEVELS - threshold(probability))


def words_and_bytes(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Zeros as int64 words to draw, and the same memory as bytes `[rows, columns]` to compare.

    Every row begins with a word.
    """
    words = torch.zeros(rows, -(-columns // _BYTES_A_WORD), dtype=torch.int64, device=device)
    return words, words.view(torch.uint8)[:, :columns]
