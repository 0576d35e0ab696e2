"""How a search goes, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hpo.cli.rendering import metric

if TYPE_CHECKING:
    from hpo.definition import StudyDefinition

__all__ = ["SearchProgress", "Spinner", "WorkerLog"]

_log = logging.getLogger(__name__)
_QUIET_SECONDS = 15.0


def _is_drawn(console: Console) -> bool:
    """Whether progress is drawn there; `--quiet` silences it as it does log lines."""
    return console.is_terminal and _log.isEnabledFor(logging.INFO)


class SearchProgress:
    """Shows finished trials of the budget, the best value, running trials, and the time left.

    Args:
        finished: how many trials of the study have finished, over all workers.
        budget: how many there are to be.
        best: the best value that any trial has reported so far, if there is one.
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
        self._first = self._done = finished()
        self._drawn = _is_drawn(console)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._drawn,
        )
        self._task = self._progress.add_task(
            "trials", total=budget, completed=self._first, status=self._status()
        )

    def epoch(self, running: int, value: float) -> None:
        """An epoch of some trial was reported; so many are in training."""
        self._running = running
        if self._improves(value):
            self._best = value
        self._show(self._done)

    def finished(self, number: int, state: str, value: float | None) -> None:
        """A trial was told."""
        _log.debug("trial %d: %s%s", number, state, "" if value is None else f", {metric(value)}")
        self._done = self._finished()
        self._show(self._done)

    def waiting(self) -> None:
        """Nothing is left to train here, and others have yet to finish."""
        self._running = 0
        self._done = self._finished()
        self._show(self._done)

    def show(self, done: int, running: int, best: float | None) -> None:
        """Show how the study stands, for whoever watches others train."""
        self._done, self._running = done, running
        if best is not None and self._improves(best):
            self._best = best
        self._show(done)

    def __enter__(self) -> SearchProgress:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def _show(self, done: int) -> None:
        self._progress.update(self._task, completed=done, status=self._status())
        now = time.monotonic()
        if not self._drawn and now - self._spoken > _QUIET_SECONDS:
            self._spoken = now
            _log.info(
                "%d of %d trials, %s, %s", done, self._budget, self._status(), self._left(done)
            )

    def _status(self) -> str:
        best = "no value yet" if self._best is None else f"best {metric(self._best)}"
        return f"{best}, {self._running} running"

    def _left(self, done: int) -> str:
        fresh = done - self._first
        if done >= self._budget:
            return "ending"
        if fresh < 1:
            return "time left unknown"
        seconds = (time.monotonic() - self._started) / fresh * (self._budget - done)
        return f"about {max(1, round(seconds / 60))} min left"

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self._best is None:
            return True
        return value > self._best if self._maximize else value < self._best


class WorkerLog:
    """Says what a worker does at a study: that it begins, and now and then how it goes.

    Args:
        level: of the log, at which it says so.
    """

    def __init__(self, study: str, definition: StudyDefinition, level: int) -> None:
        self._level = level
        self._study = study
        self._metric = definition.search.metric
        self._ended = 0
        self._begun = False
        self._spoken = time.monotonic()

    def epoch(self, running: int, value: float) -> None:
        """An epoch of some trial was reported; so many are in training."""
        if not self._begun:
            self._begun = True
            _log.log(self._level, "%s: training", self._study)
        self._speak(f"{running} in training, {self._metric} {metric(value)} in the latest epoch")

    def finished(self, number: int, state: str, value: float | None) -> None:
        """A trial was told."""
        self._ended += 1
        shown = "" if value is None else f", {self._metric} {metric(value)}"
        _log.debug("%s: trial %d: %s%s", self._study, number, state, shown)

    def waiting(self) -> None:
        """Nothing is left to train here, and others have yet to finish."""
        self._speak("others train the rest")

    def _speak(self, what: str) -> None:
        now = time.monotonic()
        if now - self._spoken > _QUIET_SECONDS:
            self._spoken = now
            _log.log(self._level, "%s: %d trials ended here, %s", self._study, self._ended, what)


class Spinner:
    """Shows what a longer step is at: the newest sentence on a terminal, each one elsewhere."""

    def __init__(self, console: Console) -> None:
        self._status = console.status("") if _is_drawn(console) else None

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

    def __exit__(self, *error: object) -> None:
        if self._status is not None:
            self._status.stop()
