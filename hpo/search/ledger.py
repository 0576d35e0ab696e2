"""The budget and the leases of a study, in two tables of hpo's own beside Optuna's.

A study's budget is N rows, one a slot. A worker claims slots for the length of a lease, binds a
trial to each, and marks it done when the trial has finished; exactly N follows from N rows. A
slot whose holder fell silent is claimed by the next worker, with the trial that it carries.

Time is the database's clock, in seconds since 1970 as a float: the arithmetic is then the same
in SQLite and PostgreSQL, and no time zone or date type takes part in it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from hpo.errors import HpoError, StorageError
from hpo.search import tables
from hpo.search.holder import holder_name, is_gone
from hpo.search.url import redact

__all__ = ["Counts", "LeaseKeeper", "Ledger", "LostLease", "Slot", "SlotRow", "holder_name"]

_log = logging.getLogger(__name__)
_row = tables.slots.c


class LostLease(HpoError):  # noqa: N818 (it is an event more than an error)
    """The slot is no longer this holder's: the lease ran out and somebody else took the trial."""


@dataclass(frozen=True)
class Slot:
    """A claimed slot.

    Attributes:
        id: never used again, not even when the slot is removed; trials carry it.
        number: the place in the budget, from 0.
        trial_id: Optuna's id of the trial to take over; None if no trial was bound yet.
    """

    id: int
    study_id: int
    number: int
    trial_id: int | None
    holder: str


@dataclass(frozen=True)
class SlotRow:
    """A slot as `hpo status` shows it; `expires_in` is in seconds, negative once it ran out."""

    id: int
    number: int
    trial_id: int | None
    holder: str | None
    expires_in: float | None
    done: bool

    @property
    def live(self) -> bool:
        """Whether somebody holds it whose lease runs, and who did not die on this machine."""
        if self.done or self.holder is None or is_gone(self.holder):
            return False
        return (self.expires_in or 0.0) > 0.0


@dataclass(frozen=True)
class Counts:
    """How a budget stands: `budget == done + held + free`; a lease that ran out is free."""

    budget: int
    done: int
    held: int
    free: int


class Ledger:
    """Claims, renews and finishes the slots of any study in one database.

    Errors of the database are raised as SQLAlchemy raises them, so that a caller can tell what
    is worth another try. Safe to share between the threads of a process.

    Args:
        engine: an engine on a database that holds Optuna's tables; hpo's own are created or
            brought up to date here.

    Raises:
        StorageError: the tables were made by a newer hpo.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        self._now: sa.ColumnElement[float] = sa.literal_column(
            "((julianday('now') - 2440587.5) * 86400.0)"
            if self._sqlite
            else "(extract(epoch from clock_timestamp())::float8)",
            sa.Double,
        )
        self._mine: dict[str, set[int]] = {}
        self._mine_lock = threading.Lock()
        if self.version() != tables.VERSION:
            self._migrate()

    def version(self) -> int:
        """The version of hpo's tables in the database; 0 where there are none."""
        with self._engine.connect() as connection:
            return tables.version(connection)

    def set_budget(self, study_id: int, slots: int) -> int:
        """Give a study `slots` slots in total, and return how many it has then.

        Rows are added, or taken away where no trial was bound and nobody ever claimed them; so
        a smaller budget cannot undo what is done or in progress.
        """
        with self._write() as connection:
            if not self._sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(tables.LOCK, study_id)))
            rows = connection.execute(
                sa.select(
                    _row.id,
                    _row.number,
                    sa.and_(
                        ~_row.done,
                        _row.trial_id.is_(None),
                        _row.holder.is_(None),
                    ).label("unused"),
                )
                .where(_row.study_id == study_id)
                .order_by(_row.number.desc())
            ).all()
            surplus = [row.id for row in rows if row.unused][: max(0, len(rows) - slots)]
            # Claimed since they were read (PostgreSQL): then they are somebody's, and stay.
            gone = connection.execute(
                sa.delete(tables.slots).where(_row.id.in_(surplus), _row.holder.is_(None))
            ).rowcount
            taken = {row.number for row in rows}
            numbers = [number for number in range(slots) if number not in taken]
            missing = numbers[: max(0, slots - len(rows))]
            if missing:
                connection.execute(
                    sa.insert(tables.slots),
                    [{"study_id": study_id, "number": n, "done": False} for n in missing],
                )
            return len(rows) - gone + len(missing)

    def claim(self, study_id: int, holder: str, most: int, lease: float) -> list[Slot]:
        """Take up to `most` slots for `lease` seconds.

        Slots with a trial whose holder released them, fell silent or died come first, then
        free ones, each by number. A holder that certainly died on this machine counts as
        silent at once. The caller's own slots are left alone, even when their lease ran out.
        """
        if most < 1:
            return []
        with self._write() as connection:
            claimable = sa.or_(
                _row.holder.is_(None),
                sa.and_(
                    _row.holder != holder,
                    sa.or_(
                        _row.expires <= self._now,
                        _row.holder.in_(_gone_holders(connection, study_id)),
                    ),
                ),
            )
            rows = connection.execute(
                sa.select(_row.id, _row.number, _row.trial_id)
                .where(_row.study_id == study_id, ~_row.done, claimable)
                .order_by(_row.trial_id.is_(None), _row.number)
                .limit(most)
                .with_for_update(skip_locked=True)
            ).all()
            connection.execute(
                sa.update(tables.slots)
                .where(_row.id.in_([row.id for row in rows]))
                .values(holder=holder, expires=self._now + lease)
            )
        with self._mine_lock:
            self._mine.setdefault(holder, set()).update(row.id for row in rows)
        return [Slot(row.id, study_id, row.number, row.trial_id, holder) for row in rows]

    def assign(self, slot: Slot, trial_id: int) -> Slot:
        """Bind a trial to a slot, and return the slot that carries it.

        Raises:
            LostLease: somebody else holds the slot now.
        """
        self._change(slot, trial_id=trial_id)
        return replace(slot, trial_id=trial_id)

    def renew(self, holder: str, lease: float) -> set[int]:
        """Extend all leases of a holder to `lease` seconds from now; returns their slots' ids.

        A lease that ran out is renewed too, as long as nobody took the slot.
        """
        own = sa.and_(_row.holder == holder, ~_row.done)
        with self._write() as connection:
            connection.execute(
                sa.update(tables.slots).where(own).values(expires=self._now + lease)
            )
            return set(connection.scalars(sa.select(_row.id).where(own)))

    def release(self, holder: str, slots: Iterable[Slot] | None = None) -> int:
        """Hand back some or all slots of a holder, with their trials; returns how many.

        What the holder has lost already is passed over.
        """
        chosen = None if slots is None else {slot.id for slot in slots}
        with self._forget(holder, chosen), self._write() as connection:
            query = sa.update(tables.slots).where(_row.holder == holder, ~_row.done)
            if chosen is not None:
                query = query.where(_row.id.in_(chosen))
            return connection.execute(query.values(holder=None, expires=None)).rowcount

    def finish(self, slot: Slot) -> None:
        """Mark a slot as done.

        Raises:
            LostLease: somebody else holds the slot now, or it is done already.
        """
        with self._forget(slot.holder, {slot.id}):
            self._change(slot, done=True, holder=None, expires=None)

    def counts(self, study_id: int) -> Counts:
        """How the study's budget stands now."""
        rows = self.slots(study_id)
        done = sum(row.done for row in rows)
        held = sum(row.live for row in rows)
        return Counts(len(rows), done, held, len(rows) - done - held)

    def next_expiry(self, study_id: int, holder: str) -> float | None:
        """Seconds until the first lease of another holder runs out; None if there is none.

        It is 0 where a slot can be claimed already.
        """
        others = [row for row in self.slots(study_id) if not row.done and row.holder != holder]
        if not others:
            return None
        return min(row.expires_in or 0.0 if row.live else 0.0 for row in others)

    def slots(self, study_id: int) -> list[SlotRow]:
        """Every slot of a study, by number."""
        query = (
            sa.select(
                _row.id,
                _row.number,
                _row.trial_id,
                _row.holder,
                (_row.expires - self._now).label("expires_in"),
                _row.done,
            )
            .where(_row.study_id == study_id)
            .order_by(_row.number)
        )
        with self._engine.connect() as connection:
            return [SlotRow(*row) for row in connection.execute(query)]

    def believed(self, holder: str) -> frozenset[int]:
        """The ids of the slots that this process claimed for a holder and has not let go."""
        with self._mine_lock:
            return frozenset(self._mine.get(holder, ()))

    def _change(self, slot: Slot, **values: object) -> None:
        with self._write() as connection:
            changed = connection.execute(
                sa.update(tables.slots)
                .where(
                    _row.id == slot.id,
                    _row.holder == slot.holder,
                    ~_row.done,
                )
                .values(**values)
            ).rowcount
        if not changed:
            with self._forget(slot.holder, {slot.id}):
                raise LostLease(f"slot {slot.number} was taken over by another worker")

    @contextmanager
    def _forget(self, holder: str, slots: set[int] | None) -> Iterator[None]:
        """Let go of slots before the database hears of it, and take them back if it does not.

        In this order a `LeaseKeeper` never mistakes a slot that is being finished for a lost one.
        """
        with self._mine_lock:
            held = self._mine.setdefault(holder, set())
            dropped = set(held) if slots is None else held & slots
            held -= dropped
        try:
            yield
        except LostLease:
            raise
        except BaseException:
            with self._mine_lock:
                held |= dropped
            raise

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """One transaction that will write; on SQLite it takes the lock at once.

        A transaction that reads first and writes later fails there when another wrote in
        between, and no timeout helps. The driver begins one by itself only before a change, so
        the explicit BEGIN is the only one; Optuna's sessions on this engine are not touched.
        """
        with self._engine.connect() as connection, connection.begin():
            if self._sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def _migrate(self) -> None:
        with self._write() as connection:
            if not self._sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(tables.LOCK, 0)))
            version = tables.version(connection)
            if version > tables.VERSION:
                raise StorageError(
                    f"{redact(str(self._engine.url))}: a newer hpo keeps its studies here "
                    f"(ledger version {version}, this one knows {tables.VERSION}); update hpo"
                )
            tables.bring_up_to_date(connection)


class LeaseKeeper:
    """Renews the leases of a holder in a thread, four times a lease, until the block ends.

    No error of the database ends the thread: it is logged once an outage, and the next try
    comes sooner. `lost` is set when a slot that this process claimed is no longer its own.

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
        self._thread.join(timeout=2.0)

    def lost_slots(self) -> frozenset[int]:
        """The ids of the slots that others took over; the work on their trials is void."""
        return frozenset(self._lost_slots)

    def _run(self) -> None:
        while not self._stop.wait(self._lease / (16 if self._away else 4)):
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


def _gone_holders(connection: Connection, study_id: int) -> list[str]:
    query = (
        sa.select(_row.holder)
        .where(
            _row.study_id == study_id,
            ~_row.done,
            _row.holder.is_not(None),
        )
        .distinct()
    )
    return [holder for holder in connection.scalars(query) if holder and is_gone(holder)]
