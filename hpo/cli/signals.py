"""Stopping by a signal: the first asks, the second insists."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from types import FrameType

__all__ = ["Stop"]

_SHOW_CURSOR = b"\x1b[?25h\n"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Listens for SIGINT and SIGTERM, and for a deadline, while its block runs.

    The first signal is only noted, so that work can be handed back; a second one ends the
    process at once with the exit code that shells give it.

    Args:
        timeout: seconds from now after which to stop; None for never.

    Attributes:
        signal_number: of the signal that came; None if none did.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.signal_number: int | None = None
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._previous: dict[int, signal._HANDLER] = {}

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.signal_number is not None or self._late()

    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def __enter__(self) -> Stop:
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal_number is not None:
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)  # the bar has no time left to do so
            os._exit(128 + number)
        self.signal_number = number
        # Straight to the file: a handler may run in the middle of anything else's writing.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping; once more ends it at once\n")
