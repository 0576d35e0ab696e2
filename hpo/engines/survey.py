"""How a study stands, read again and again beside other work."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from hpo.errors import HpoError
from hpo.search.status import Standing

__all__ = ["Survey"]

_log = logging.getLogger(__name__)
_SECONDS = 1.0
_COST = 20.0  # of a large study, the reading takes at most a twentieth of the time


class Survey:
    """Reads a study's standing about once a second in a thread, until the block ends.

    A database that is away is reported once; the last standing stays until it is back. Workers
    have a patience of their own, so nothing is decided here.

    Args:
        read: such as `read_standing`; it may raise any error of hpo's.
    """

    def __init__(self, read: Callable[[], Standing]) -> None:
        self.standing = read()
        self._read = read
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hpo-survey", daemon=True)

    @property
    def done(self) -> int:
        """Finished trials."""
        return self.standing.done

    @property
    def is_met(self) -> bool:
        """Whether the study has all its trials."""
        return self.standing.is_met

    @property
    def halted(self) -> str | None:
        """Why no worker is to go on with the study; None if they may."""
        return self.standing.halted

    def __enter__(self) -> Survey:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A read that hangs on a dead connection must not keep anybody from leaving.
        self._stop.set()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        away, pause = False, _SECONDS
        while not self._stop.wait(pause):
            start = time.monotonic()
            try:
                self.standing = self._read()
            except HpoError as error:
                if not away:
                    _log.warning("%s", error)
                away = True
            else:
                if away:
                    _log.warning("the database is back")
                away = False
            pause = max(_SECONDS, _COST * (time.monotonic() - start))
