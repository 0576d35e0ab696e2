"""The thread that keeps a worker's leases while the worker trains."""

from __future__ import annotations

import logging
import threading
import time

from hpo.search.ledger import Ledger
from hpo.search.outages import is_contention

__all__ = ["LeaseKeeper"]

_log = logging.getLogger(__name__)

_LONGEST_PAUSE = 1.0  # between tries while the database is away, and between looks at the clock


class LeaseKeeper:
    """Renews the leases of a holder in a thread, four times a lease, until the block ends.

    Where the clock leaps, as when a machine wakes up, leases have run out at once that others may
    take; so they are renewed within a second.

    No error of the database ends the thread: it is logged once an outage, and the next try
    comes within a second, so that leases are fresh soon after the database is back. `lost` is
    set when a slot that this process claimed is no longer its own.

    Attributes:
        lost: set once a slot was lost.
    """

    def __init__(self, ledger: Ledger, holder: str, lease: float) -> None:
        self.lost = threading.Event()
        self._ledger = ledger
        self._holder = holder
        self._lease = lease
        self._stop = threading.Event()
        self._since = 0.0  # when renewals began to fail; 0 while they work
        self._told = False
        self._lead = _lead()
        self._thread = threading.Thread(target=self._run, name="hpo-leases", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A renewal that hangs on a dead connection must not keep a worker from leaving.
        self._stop.set()
        self._thread.join(timeout=0.3)

    def lost_slots(self) -> frozenset[int]:
        """The ids of the slots that others took over; the work on their trials is void.

        A slot that this holder claims anew is its own again.
        """
        return self._ledger.lost(self._holder)

    def _run(self) -> None:
        while not self._stopped_within(
            min(self._lease / 16, _LONGEST_PAUSE) if self._since else self._lease / 4
        ):
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001 (whatever it is, leases must go on)
                self._failed(error)
            else:
                if self._told:
                    _log.warning("leases are renewed again")
                self._since, self._told = 0.0, False

    def _stopped_within(self, seconds: float) -> bool:
        """Wait until the block ends, the time is over, or the clock has leapt."""
        end = time.monotonic() + seconds
        while not self._has_leapt() and (left := end - time.monotonic()) > 0:
            if self._stop.wait(min(left, _LONGEST_PAUSE)):
                return True
        return self._stop.is_set()

    def _has_leapt(self) -> bool:
        """Whether the clock has run ahead by a part of a lease since it was last looked at."""
        before, self._lead = self._lead, _lead()
        return self._lead - before > self._lease / 8

    def _failed(self, error: Exception) -> None:
        self._since = self._since or time.monotonic()
        # Others are often in the way for a moment; that is worth a word only when it goes on.
        lasts = time.monotonic() - self._since > self._lease / 2
        if not self._told and (lasts or not is_contention(error)):
            _log.warning("leases could not be renewed (%s); trying on", type(error).__name__)
            self._told = True

    def _renew(self) -> None:
        before = self._ledger.believed(self._holder)
        renewed = self._ledger.renew(self._holder, self._lease)
        lost = (before - renewed) & self._ledger.believed(self._holder)
        if self._ledger.lose(self._holder, lost):
            _log.warning("%d trial(s) were taken over by another worker", len(lost))
            self.lost.set()


def _lead() -> float:
    """How far the clock is ahead of the time that this machine has been awake, in seconds."""
    return time.time() - time.monotonic()
