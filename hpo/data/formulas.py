"""Small regressions whose truth is known: a formula of one number, and noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpo.data.dataset import Part
from hpo.data.info import DatasetInfo
from hpo.data.rows import MeasuredRows

__all__ = ["FREEFALL", "LINEAR", "SINE", "Formula"]

_Numbers = NDArray[np.float64]
_SEED = 0x666F726D  # "form"
_PARTS: dict[Part, int] = {"train": 0, "test": 1}


class Formula:
    """Rows `y = f(x) + noise`, made anew whenever they are asked for, and always the same.

    The rows follow from the dataset's name and part alone, not from a study's seed: all studies
    and seeds see one training and one test part, as with every other dataset.

    Args:
        text: the formula, for people.
        low, high: x is uniform between them.
        noise: the standard deviation of the normal noise, in units of y.
    """

    def __init__(
        self,
        name: str,
        text: str,
        formula: Callable[[_Numbers], _Numbers],
        *,
        low: float,
        high: float,
        noise: float,
        rows: tuple[int, int] = (2000, 1000),
    ) -> None:
        self._formula = formula
        self._low, self._high, self._noise = low, high, noise
        spoken = f" + noise of {noise:g}" if noise else ""
        self.info = DatasetInfo(
            name,
            classes=0,
            shape=(1,),
            n_train=rows[0],
            n_test=rows[1],
            origin=f"made here: {text}{spoken}, x from {low:g} to {high:g}",
            licence="none needed",
            targets=1,
        )

    def missing(self, _folder: Path, _part: Part) -> list[str]:
        """Return nothing: the rows are made."""
        return []

    def fetch(self, _folder: Path) -> None:
        """Do nothing."""

    def load_train(self, _folder: Path) -> MeasuredRows:
        """Return the training rows."""
        return self._rows("train", self.info.n_train)

    def load_test(self, _folder: Path) -> MeasuredRows:
        """Return the test rows."""
        return self._rows("test", self.info.n_test)

    def _rows(self, part: Part, count: int) -> MeasuredRows:
        seeds = np.random.SeedSequence([_SEED, *self.info.name.encode(), _PARTS[part]])
        # Raw bits stay the same with every NumPy (NEP 19), what a Generator makes of them may not.
        raw = np.random.PCG64(seeds).random_raw(3 * count).reshape(3, count)
        place, radius, angle = (raw >> np.uint64(11)) * 2.0**-53
        x = self._low + (self._high - self._low) * place
        # Box and Muller (1958): two uniform numbers make a normal one.
        normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * math.pi * angle)
        y = self._formula(x) + self._noise * normal
        return MeasuredRows(x[:, None].astype(np.float32), y[:, None].astype(np.float32))


LINEAR = Formula("linear", "y = 3 x + 4", lambda x: 3 * x + 4, low=-10, high=10, noise=1)
FREEFALL = Formula("freefall", "y = 9.8 x^2", lambda x: 9.8 * x**2, low=0, high=5, noise=2)
SINE = Formula("sine", "y = sin x", np.sin, low=-2 * math.pi, high=2 * math.pi, noise=0)
