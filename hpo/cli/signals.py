"""Stopping by a signal: the first asks, the second insists."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from hpo.errors import Interrupted, StorageError

__all__ = ["Stop", "leave_at_signals"]

_SHOW_CURSOR = b"\x1b[?25h\n"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def leave_at_signals() -> None:
    """From now on, SIGINT and SIGTERM end the process at once, with the code of a shell.

    For the seconds in which modules are imported and nothing is held yet: an exception that is
    raised in the middle of an import is lost or comes out as another one.
    """
    for number in _SIGNALS:
        signal.signal(number, _leave)


class Stop:
    """Listens for SIGINT and SIGTERM, and for a deadline, while its block runs.

    The first signal is only noted, so that work can be handed back; a second one ends the
    process at once with the exit code that shells give it.

    Args:
        timeout: seconds from now after which to stop; None for never.
        parent: the process that started this one and must live on; None if it does not matter.
            Its death, of which no signal tells, counts as SIGTERM.

    Attributes:
        signal_number: of the signal that came; None if none did.
        at_once: called before a second signal ends the process; it must be quick.
    """

    def __init__(self, timeout: float | None = None, *, parent: int | None = None) -> None:
        self.signal_number: int | None = None
        self.at_once: Callable[[], None] = lambda: None
        self._parent = parent
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._previous: dict[int, signal._HANDLER] = {}

    def __call__(self) -> bool:
        """Whether to stop."""
        if self._parent is not None and os.getppid() != self._parent:
            self.signal_number = self.signal_number or signal.SIGTERM
        return self.signal_number is not None or self._late()

    def seconds_left(self) -> float | None:
        """Until the deadline, 0 after it; None if there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def __enter__(self) -> Stop:
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if isinstance(error, StorageError) and self.signal_number is not None:
            # Whoever was told to stop does not wait for a database that is away.
            raise Interrupted("stopped while the database was away", self.signal_number) from error

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            if self._parent is not None and os.getppid() == self._parent:
                # A service manager signals the parent and its workers, and then the parent its
                # workers. It insists by SIGKILL.
                return
            self.at_once()
            _leave(number, frame)
        self.signal_number = number
        if self._parent is not None:
            return  # the parent has said so already
        # Straight to the file: a handler may run in the middle of anything else's writing.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping; once more ends it at once\n")


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)  # a bar has no time left to do so
    os._exit(128 + number)
