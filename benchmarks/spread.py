"""Repeated measurements in a cell of a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["median_and_range", "ratios"]


def median_and_range(values: Sequence[float], digits: int = 2) -> str:
    """The median, and in brackets the least and the largest, which show what to make of it."""
    least, middle, largest = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f} to {largest:.{digits}f})"


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Each value over the one that was measured with it in one turn."""
    return [value / other for value, other in zip(values, base, strict=True)]
