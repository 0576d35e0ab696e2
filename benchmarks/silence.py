"""Whoever watches a search for a benchmark that prints what it measures, and nothing else."""

from __future__ import annotations

__all__ = ["Silent"]


class Silent:
    """A watcher that shows nothing."""

    def epoch(self, running: int, value: float) -> None: ...

    def finished(self, number: int, state: str, value: float | None) -> None: ...

    def waiting(self) -> None: ...
