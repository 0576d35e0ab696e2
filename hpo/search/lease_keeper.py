"""The thread that keeps a worker's leases while the worker trains."""

from __future__ import annotations

import logging
import threading

from hpo.search.ledger import Ledger

__all__ = ["LeaseKeeper"]

_log = logging.getLogger(__name__)

_LONGEST_PAUSE = 1.0  # between tries while the database is away


class LeaseKeeper:
    """Renews the leases of a holder in a thread, four times a lease, until the block ends.

    No error of the database ends the thread: it is logged once an outage, and the next try
    comes within a second, so that leases are fresh soon after the database is back. `lost` is
    set when a slot that this process claimed is no longer its own.

    Attributes:
        lost: set once `lost_slots()` is not empty.
    """

    def __init__(self, ledger: Ledger, holder: str, lease: float) -> None:
        self.lost = threading.Event()
        self._ledger = ledger
        self._holder = holder
        self._lease = lease
        self._lost_slots: set[int] = set()
        self._stop = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="hpo-leases", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A renewal that hangs on a dead connection must not keep a worker from leaving.
        self._stop.set()
        self._thread.join(timeout=1.0)

    def lost_slots(self) -> frozenset[int]:
        """The ids of the slots that others took over; the work on their trials is void."""
        return frozenset(self._lost_slots)

    def _run(self) -> None:
        while not self._stop.wait(
            min(self._lease / 16, _LONGEST_PAUSE) if self._away else self._lease / 4
        ):
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001 (whatever it is, leases must go on)
                if not self._away:
                    _log.warning(
                        "leases could not be renewed (%s); trying on", type(error).__name__
                    )
                self._away = True
            else:
                if self._away:
                    _log.warning("leases are renewed again")
                self._away = False

    def _renew(self) -> None:
        before = self._ledger.believed(self._holder)
        renewed = self._ledger.renew(self._holder, self._lease)
        lost = (before - renewed) & self._ledger.believed(self._holder)
        if lost - self._lost_slots:
            _log.warning("%d trial(s) were taken over by another worker", len(lost))
            self._lost_slots |= lost
            self.lost.set()
