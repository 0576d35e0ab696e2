"""Streams: which rows come in which order, in batches of one size.

The order of an epoch is a function of the study's seed, the stream's number and the epoch, and of
nothing else, so a member's batches follow from the epoch at which it joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpo.data.tensors import Normalization
from hpo.errors import UsageError

__all__ = ["Stream", "derive_seed"]

_ORDER, _AUGMENT, _NOISE = 1, 2, 3


def derive_seed(*parts: int) -> int:
    """One 63-bit seed out of several numbers in 0..2^63 - 1, well mixed (NumPy's SeedSequence).

    SeedSequence reads numbers as words of 32 bits and drops zeros at the end, so 2^32 would be
    (0, 1), and 5 would be (5, 0): here every part has two words, and their count comes first.
    """
    halves = [half for part in parts for half in (part & 0xFFFFFFFF, part >> 32 & 0x7FFFFFFF)]
    words = np.random.SeedSequence([len(parts), *halves]).generate_state(2)
    return (int(words[0]) << 31) ^ int(words[1])


@dataclass(frozen=True)
class Stream:
    """A source of batches.

    Args:
        rows: int64 `[n]`, the training rows by their index in the dataset.
        batch_size: rows a batch; what is left over at the end of an epoch waits for the next
            shuffle, so that every batch has the same weight and batch norm never sees a scrap.
        seed: the study's.
        number: tells the streams of a study apart.
        normalization: from these rows, where they are not those that the task's is from.

    Raises:
        UsageError: a batch is larger than the rows there are.
    """

    rows: Tensor
    batch_size: int
    seed: int
    number: int = 0
    normalization: Normalization | None = None

    def __post_init__(self) -> None:
        if self.batch_size > len(self.rows):
            message = (
                f"training.batch_size: a batch of {self.batch_size} is larger than the "
                f"{len(self.rows)} training rows; choose a smaller batch"
            )
            raise UsageError(message)

    @property
    def batches(self) -> int:
        """How many there are in an epoch."""
        return len(self.rows) // self.batch_size

    def epoch(self, number: int, device: torch.device | None = None) -> Iterator[Tensor]:
        """The row indices `[batch_size]` of each batch of that epoch, in order.

        Args:
            device: where they are wanted; they are brought there at once, since every copy from
                the CPU waits for what the device still does.
        """
        order = self.rows[
            torch.randperm(len(self.rows), generator=self._generator(_ORDER, number))
        ].to(device=device)
        for start in range(0, self.batches * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size]

    def augmentation(self, epoch: int) -> torch.Generator:
        """The generator, on the CPU, from which an epoch's augmentation is drawn."""
        return self._generator(_AUGMENT, epoch)

    def noise(self, epoch: int, device: torch.device) -> torch.Generator:
        """The generator, on the device, of the noise with which an epoch's inputs are dropped."""
        return self._generator(_NOISE, epoch, device)

    def _generator(
        self, purpose: int, epoch: int, device: torch.device | None = None
    ) -> torch.Generator:
        seed = derive_seed(self.seed, self.number, purpose, epoch)
        return torch.Generator(device or "cpu").manual_seed(seed)
