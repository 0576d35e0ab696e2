"""Waiting, but not beyond a stop."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["stopped_within"]

_LOOK_SECONDS = 0.05


def stopped_within(seconds: float, stopping: Callable[[], bool]) -> bool:
    """Wait for so long; returns at once, and True, when `stopping` says so."""
    end = time.monotonic() + seconds
    while not stopping():
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, _LOOK_SECONDS))
    return True
