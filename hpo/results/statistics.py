"""Mean, spread and interval of a metric over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Summary", "summarize"]


@dataclass(frozen=True)
class Summary:
    """A metric over n seeds.

    Attributes:
        std: the sample's standard deviation (n - 1); None for a single value.
        ci95: the 95 % interval of the mean by Student's t with n - 1 degrees of freedom; None
            for a single value, which says nothing about spread.
    """

    mean: float
    std: float | None
    n: int
    ci95: tuple[float, float] | None
    values: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        data = asdict(self)
        data["values"] = list(self.values)
        data["ci95"] = None if self.ci95 is None else list(self.ci95)
        return data


def summarize(values: Sequence[float]) -> Summary:
    """Summarise at least one finite value."""
    n = len(values)
    mean = float(np.mean(values))
    if n == 1:
        return Summary(mean, None, 1, None, tuple(values))
    from scipy.stats import t  # a slow import that only a retrain needs

    std = float(np.std(values, ddof=1))
    half = float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return Summary(mean, std, n, (mean - half, mean + half), tuple(values))
