"""Looking after the workers of one search: the rules for those that die."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hpo.engines.base import Ended, Engine
from hpo.engines.slots import Slot
from hpo.errors import FileError, HpoError, StorageError, TrainingError, UsageError

__all__ = ["MOST_DEATHS", "Look", "Supervisor"]

MOST_DEATHS = 7
"""How often in a row a slot's worker may die without a trial of the study finishing meanwhile.

A trial that takes its worker with it fails when it is begun for the seventh time.
"""

_log = logging.getLogger(__name__)
_TICK = 0.1
_GRACE = 15.0  # seconds in which a worker that was asked to leave may still write
# So long may a worker still be there once the study has all its trials: it waits for others, tells
# what lies on the disk, and closes. A later one hangs, and holds nothing that could be lost.
_LINGER = 60.0
_FIRST_PAUSE = 0.5
_FACTOR, _LONGEST_PAUSE = 2.0, 4.0
# A worker that ends so would end so again: what it was asked cannot be done.
_FINAL: dict[int, type[HpoError]] = {2: UsageError, 69: StorageError, 74: FileError}


class Look(Protocol):
    """How the study stands, as far as it is known; asking costs nothing."""

    @property
    def done(self) -> int:
        """Finished trials."""

    @property
    def is_met(self) -> bool:
        """Whether the study has all its trials."""

    @property
    def halted(self) -> str | None:
        """Why no worker is to go on with the study; None if they may."""


@dataclass
class _Deaths:
    """Of one slot's workers: how many in a row, and how many trials had finished at the last."""

    count: int = 0
    done: int = 0
    pause: float = field(default=_FIRST_PAUSE)


class Supervisor:
    """Starts a worker in every slot, replaces those that die, and stops all when asked.

    A worker ends by itself, with exit code 0, once the study has all its trials or the time is
    up; one that hangs then is not waited for. One that dies (by a signal, or with another code)
    is replaced after a pause that grows, until it has died `MOST_DEATHS` times in a row while no
    trial of the study finished. Then its slot is given up, and the others go on.

    Args:
        look: how the study stands now.
        stopping: whether to stop; asked ten times a second.
        tick: called as often, to show how it goes.
        linger: seconds that workers have to leave once the study has all its trials.

    Attributes:
        given_up: the last worker of each slot that was given up.
    """

    def __init__(
        self,
        engine: Engine,
        look: Look,
        stopping: Callable[[], bool],
        tick: Callable[[], None] = lambda: None,
        linger: float = _LINGER,
    ) -> None:
        self.given_up: list[Ended] = []
        self._engine = engine
        self._look = look
        self._stopping = stopping
        self._tick = tick
        self._linger = linger
        self._met_at: float | None = None
        self._deaths: dict[Slot, _Deaths] = {}
        self._due: dict[Slot, float] = {}

    def run(self, slots: Sequence[Slot]) -> None:
        """Return when every worker has left.

        Raises:
            UsageError, StorageError, FileError: a worker ended with such an error's exit code;
                the message is the worker's.
            TrainingError: too many of the study's trials fail, or no worker can be started.
        """
        try:
            self._engine.start(slots)
            while self._anybody_left() and not self._stopping():
                for ended in self._engine.poll():
                    self._judge(ended)
                if self._look.halted is not None:
                    raise TrainingError(self._look.halted)
                self._replace()
                self._tick()
                time.sleep(_TICK)
            self._dismiss()
        except HpoError:
            self._dismiss()
            raise
        except OSError as error:
            self._dismiss()
            reason = error.strerror or error
            raise TrainingError(f"no further worker can be started here: {reason}") from None
        finally:
            self._engine.kill()

    def _anybody_left(self) -> bool:
        """Whether a worker is there, or about to be, that is worth waiting for."""
        if not self._engine.running() and not self._due:
            return False
        if not self._look.is_met:
            self._met_at = None
            return True
        now = time.monotonic()
        self._met_at = now if self._met_at is None else self._met_at
        if now - self._met_at < self._linger:
            return True
        _log.warning("workers that have not left: %d; they are ended", self._engine.running())
        return False

    def _judge(self, ended: Ended) -> None:
        if ended.code == 0:
            return
        if ended.code in _FINAL and not self._look.is_met:
            raise _FINAL[ended.code](ended.words.removeprefix("hpo: "))
        deaths = self._deaths.setdefault(ended.slot, _Deaths())
        if self._look.done > deaths.done:
            deaths.count, deaths.pause = 0, _FIRST_PAUSE
        deaths.count, deaths.done = deaths.count + 1, self._look.done
        if deaths.count >= MOST_DEATHS:
            _log.warning("worker %s ended %s; it is not replaced", ended.slot.name, ended.how)
            self.given_up.append(ended)
            return
        _log.warning("worker %s ended %s; another takes its place", ended.slot.name, ended.how)
        self._due[ended.slot] = time.monotonic() + deaths.pause
        deaths.pause = min(deaths.pause * _FACTOR, _LONGEST_PAUSE)

    def _replace(self) -> None:
        if self._look.is_met:
            self._due.clear()
        due = [slot for slot, at in self._due.items() if time.monotonic() >= at]
        for slot in due:
            del self._due[slot]
        if due:
            self._engine.start(due)

    def _dismiss(self) -> None:
        """Ask all to leave, and wait for it, but not for ever."""
        self._engine.stop()
        end = time.monotonic() + _GRACE
        while self._engine.running() and time.monotonic() < end:
            self._engine.poll()
            self._tick()
            time.sleep(_TICK / 2)
