"""Writing checkpoints beside training: whoever trains pays for the copies, not for the disk."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from hpo.training.checkpoints import Checkpoints
from hpo.training.snapshot import Snapshot

__all__ = ["CheckpointWriter"]

_SHARE = 0.05  # of the processor's time may go into checkpoints


class CheckpointWriter:
    """Saves and removes checkpoints in a thread of its own, in the order in which it is told to.

    Args:
        checkpoints: where they lie.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Condition()
        self._waiting = 0
        self._error: Exception | None = None
        self._cost = 0.0
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="hpo-checkpoints", daemon=True)
        self._thread.start()

    def due(self) -> bool:
        """Whether it is time for the next round, by what the last one took.

        Raises:
            FileError: the disk has refused what was to be saved or removed.
        """
        self._raise()
        return self._waiting == 0 and time.monotonic() - self._began >= self._cost / _SHARE

    def save(self, members: Sequence[tuple[int, Callable[[], Snapshot], dict[str, Any]]]) -> None:
        """Copy some members now, and write them soon.

        Args:
            members: of each its key, what takes its snapshot, and its identity.
        """
        self._began, start = time.monotonic(), time.thread_time()
        copies = [(key, snapshot(), identity) for key, snapshot, identity in members]
        self._cost = time.thread_time() - start

        def write() -> None:
            begin = time.thread_time()
            for copy in copies:
                self._checkpoints.save(*copy)
            self._cost += time.thread_time() - begin

        self._do(write)

    def remove(self, key: int) -> None:
        """Remove all checkpoints of a key, soon."""
        self._do(lambda: self._checkpoints.remove(key))

    def load(self, key: int, identity: dict[str, Any]) -> Snapshot | None:
        """As `Checkpoints.load`, once all is written.

        Raises:
            FileError: the disk refuses, or has refused before.
        """
        self.flush()
        return self._checkpoints.load(key, identity)

    def flush(self, seconds: float | None = None) -> bool:
        """Wait until all is written, but not for ever; returns whether it is.

        Raises:
            FileError: the disk has refused something.
        """
        with self._idle:
            done = self._idle.wait_for(lambda: self._waiting == 0, seconds)
        self._raise()
        return done

    def close(self, seconds: float) -> None:
        """End the thread once all is written, and wait for that, but not for ever."""
        self._work.put(None)
        self._thread.join(seconds)

    def _do(self, work: Callable[[], None]) -> None:
        with self._idle:
            self._waiting += 1
        self._work.put(work)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 (it is raised where training goes on)
                self._error = self._error or error
            del work
            with self._idle:
                self._waiting -= 1
                self._idle.notify_all()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
