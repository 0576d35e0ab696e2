"""How a search goes, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["SearchProgress", "Spinner"]

_log = logging.getLogger(__name__)
_QUIET_SECONDS = 15.0


class SearchProgress:
    """Shows finished trials of the budget, the best value, running trials, and the time left.

    Args:
        finished: how many trials of the study have finished, over all workers.
        budget: how many there are to be.
        best: the best value so far, if there is one.
        maximize: whether larger is better.
    """

    def __init__(
        self,
        console: Console,
        finished: Callable[[], int],
        budget: int,
        best: float | None,
        *,
        maximize: bool,
    ) -> None:
        self._finished = finished
        self._budget = budget
        self._best = best
        self._maximize = maximize
        self._running = 0
        self._spoken = time.monotonic()
        self._started = time.monotonic()
        self._first = finished()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._terminal = console.is_terminal
        self._task = self._progress.add_task(
            "trials", total=budget, completed=self._first, status=self._status()
        )

    def epoch(self, running: int) -> None:
        """An epoch of some trial was reported; so many are in training."""
        self._running = running
        self._show(self._progress.tasks[0].completed)

    def finished(self, number: int, state: str, value: float | None) -> None:
        """A trial was told."""
        done = self._finished()
        improved = value is not None and self._improves(value)
        if improved:
            self._best = value
            _log.info("trial %d is the best so far: %.4f", number, value)
        else:
            _log.debug("trial %d: %s", number, state)
        self._show(done)

    def __enter__(self) -> SearchProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def _show(self, done: float) -> None:
        self._progress.update(self._task, completed=done, status=self._status())
        now = time.monotonic()
        if not self._terminal and now - self._spoken > _QUIET_SECONDS:
            self._spoken = now
            _log.info(
                "%d of %d trials, %s, %s", done, self._budget, self._status(), self._left(done)
            )

    def _status(self) -> str:
        best = "no value yet" if self._best is None else f"best {self._best:.4f}"
        return f"{best}, {self._running} running"

    def _left(self, done: float) -> str:
        fresh = done - self._first
        if fresh < 1:
            return "time left unknown"
        seconds = (time.monotonic() - self._started) / fresh * (self._budget - done)
        return f"about {max(1, round(seconds / 60))} min left"

    def _improves(self, value: float) -> bool:
        if self._best is None:
            return True
        return value > self._best if self._maximize else value < self._best


class Spinner:
    """Shows what a longer step is at: the newest sentence on a terminal, each one elsewhere."""

    def __init__(self, console: Console) -> None:
        self._status = console.status("") if console.is_terminal else None

    def __call__(self, sentence: str) -> None:
        """Show a sentence."""
        if self._status is None:
            _log.info("%s", sentence)
        else:
            self._status.update(sentence)

    def __enter__(self) -> Spinner:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()
