"""The budget and the leases of a study, in tables of hpo's own beside Optuna's.

A study's budget is N rows, one a slot. A worker claims slots for the length of a lease, binds a
trial to each, and marks it done when the trial has finished; exactly N follows from N rows. A
slot whose holder fell silent is claimed by the next worker, with the trial that it carries.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from hpo.errors import StorageError
from hpo.holder import holder_name, is_gone
from hpo.search import tables
from hpo.search.outages import Patience
from hpo.search.slots import Counts, LostLease, Slot, SlotRow, lives
from hpo.search.statements import statements
from hpo.search.url import redact

__all__ = ["Counts", "Ledger", "LostLease", "Slot", "SlotRow", "holder_name"]

_row = tables.slots.c


class Ledger:
    """Claims, renews and finishes the slots of any study in one database.

    Errors of the database are raised as SQLAlchemy raises them, once patience has run out. Safe to
    share between the threads of a process.

    Args:
        engine: an engine on a database that holds Optuna's tables; hpo's own are created or
            brought up to date here.
        patience: what every call but `renew` goes through.

    Attributes:
        database_id: 32 hexadecimal digits, this database's and no other's.

    Raises:
        StorageError: the tables were made by a newer hpo.
    """

    def __init__(self, engine: Engine, patience: Patience | None = None) -> None:
        self._engine = engine
        # Where one statement is the whole transaction, nothing else need be said to the server.
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._patience = patience or Patience()
        self._sqlite = engine.dialect.name == "sqlite"
        self._say = statements(sqlite=self._sqlite)
        self._mine: dict[str, set[int]] = {}
        self._leaving: dict[str, set[int]] = {}
        self._lost: dict[str, set[int]] = {}
        self._mine_lock = threading.Lock()
        if self.version() != tables.VERSION:
            self._migrate()
        with self._single.connect() as connection:
            self.database_id: str = connection.execute(
                sa.select(tables.database.c.id)
            ).scalar_one()

    def version(self) -> int:
        """The version of hpo's tables in the database; 0 where there are none."""

        def version() -> int:
            with self._single.connect() as connection:
                return tables.version(connection)

        return self._patience(version)

    def set_budget(self, study_id: int, slots: int) -> int:
        """Give a study `slots` slots in total, and return how many it has then.

        Rows are added, or taken away where no trial was bound and nobody holds them; so
        a smaller budget cannot undo what is done or in progress.
        """
        return self._patience(lambda: self._set_budget(study_id, slots))

    def claim(self, study_id: int, holder: str, most: int, lease: float) -> list[Slot]:
        """Take up to `most` slots for `lease` seconds.

        What others have begun and released, fell silent with or died with comes first, slots
        with a trial before others, then free ones, each by number. A holder that certainly died
        on this machine counts as silent at once. The caller's own slots are left alone, even when
        their lease ran out, except those that it does not know of: the answer to an earlier
        claim was lost, and they come before all.
        """
        if most < 1:
            return []
        slots = self._patience(lambda: self._claim(study_id, holder, most, lease))
        claimed = {slot.id for slot in slots}
        with self._mine_lock:
            self._mine.setdefault(holder, set()).update(claimed)
            self._lost.setdefault(holder, set()).difference_update(claimed)
        return slots

    def assign(self, slot: Slot, trial_id: int) -> Slot:
        """Bind a trial to a slot, and return the slot that carries it.

        Raises:
            LostLease: somebody else holds the slot now.
        """
        self._change(slot, self._say.assign, trial=trial_id)
        return replace(slot, trial_id=trial_id)

    def renew(self, holder: str, lease: float) -> set[int]:
        """Extend all leases of a holder to `lease` seconds from now; returns their slots' ids.

        A lease that ran out is renewed too, as long as nobody took the slot. An error is raised
        at once: whoever renews does so again and again anyway.
        """
        return {row.id for row in self._rows(self._say.renew, me=holder, lease=lease)}

    def release(self, holder: str, slots: Iterable[Slot] | None = None) -> int:
        """Hand back some or all slots of a holder, with their trials; returns how many.

        What the holder has lost already is passed over.
        """
        if slots is None:
            chosen, query, ids = None, self._say.release_all, {}
        else:
            chosen = {slot.id for slot in slots}
            query, ids = self._say.release, {"slots": list(chosen)}
        with self._forget(holder, chosen):
            return self._patience(lambda: self._execute(query, me=holder, **ids))

    def finish(self, slot: Slot) -> None:
        """Mark a slot as done.

        Raises:
            LostLease: somebody else holds the slot now, or it is done already.
        """
        with self._forget(slot.holder, {slot.id}):
            self._change(slot, self._say.finish)

    def settle(self, slots: Iterable[int]) -> int:
        """Mark slots, by their ids, as done whoever holds them: their trials have been told."""
        chosen = list(slots)
        return self._patience(lambda: self._execute(self._say.settle, slots=chosen))

    def free(self, study_id: int) -> int:
        """Take back the slots of holders that fell silent or died; returns how many.

        Whoever claims one next is told that it was taken over.
        """
        return self._patience(
            lambda: self._execute(self._say.free, study=study_id, gone=self._gone(study_id))
        )

    def counts(self, study_id: int) -> Counts:
        """How the study's budget stands now."""
        groups = self._heaps(study_id)
        budget = sum(group.size for group in groups)
        done = sum(group.size for group in groups if group.done)
        held = sum(g.size for g in groups if not g.done and lives(g.holder, g.expires_in))
        return Counts(budget, done, held, budget - done - held)

    def next_expiry(self, study_id: int, holder: str) -> float | None:
        """Seconds until the first lease of another holder runs out; None if there is none.

        It is 0 where a slot can be claimed already.
        """
        groups = self._heaps(study_id)
        others = [group for group in groups if not group.done and group.holder != holder]
        if not others:
            return None
        return min(g.expires_in if lives(g.holder, g.expires_in) else 0.0 for g in others)

    def slots(self, study_id: int) -> list[SlotRow]:
        """Every slot of a study, by number."""
        rows = self._patience(lambda: self._rows(self._say.slots, study=study_id))
        return [SlotRow(*row) for row in rows]

    def believed(self, holder: str) -> frozenset[int]:
        """The ids of the slots that this process claimed for a holder and has not let go."""
        with self._mine_lock:
            return frozenset(self._mine.get(holder, ()))

    def lose(self, holder: str, slots: Iterable[int]) -> bool:
        """Note that others have slots of this holder; returns whether that is news."""
        with self._mine_lock:
            lost = self._lost.setdefault(holder, set())
            news = set(slots) - lost
            lost |= news
            return bool(news)

    def lost(self, holder: str) -> frozenset[int]:
        """The ids of the slots that this holder has lost and not claimed again."""
        with self._mine_lock:
            return frozenset(self._lost.get(holder, ()))

    def _set_budget(self, study_id: int, slots: int) -> int:
        unused = sa.and_(~_row.done, _row.trial_id.is_(None), _row.holder.is_(None))
        with self._write() as connection:
            if not self._sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(tables.LOCK, study_id)))
            rows = connection.execute(
                sa.select(_row.id, _row.number, unused.label("unused"))
                .where(_row.study_id == study_id)
                .order_by(_row.number.desc())
            ).all()
            surplus = [row.id for row in rows if row.unused][: max(0, len(rows) - slots)]
            # Claimed since they were read (PostgreSQL): then they are somebody's, and stay.
            gone = connection.execute(
                sa.delete(tables.slots).where(_row.id.in_(surplus), unused)
            ).rowcount
            taken = {row.number for row in rows}
            numbers = [number for number in range(slots) if number not in taken]
            missing = numbers[: max(0, slots - len(rows))]
            if missing:
                connection.execute(
                    sa.insert(tables.slots),
                    [
                        {
                            "study_id": study_id,
                            "number": number,
                            "done": False,
                            "taken_over": False,
                            "claims": 0,
                        }
                        for number in missing
                    ],
                )
            return len(rows) - gone + len(missing)

    def _claim(self, study_id: int, holder: str, most: int, lease: float) -> list[Slot]:
        with self._mine_lock:
            known = self._mine.get(holder, set()) | self._leaving.get(holder, set())
        rows = self._rows(
            self._say.claim,
            study=study_id,
            me=holder,
            most=most,
            lease=lease,
            known=list(known),
            gone=self._gone(study_id),
        )
        rows.sort(key=lambda row: (row.trial_id is None, row.number))
        return [
            Slot(
                row.id,
                study_id,
                row.number,
                row.trial_id,
                holder,
                taken_over=row.taken_over,
                fresh=row.claims == 1,
            )
            for row in rows
        ]

    def _gone(self, study_id: int) -> list[str]:
        """The holders that certainly died: they ran on this machine."""
        rows = self._rows(self._say.holders, study=study_id)
        return [row.holder for row in rows if is_gone(row.holder)]

    def _heaps(self, study_id: int) -> list[Any]:
        return self._patience(lambda: self._rows(self._say.heaps, study=study_id))

    def _change(self, slot: Slot, query: sa.UpdateBase, **values: Any) -> None:
        again = False

        def change() -> bool:
            nonlocal again
            first, again = not again, True
            if self._execute(query, slot=slot.id, me=slot.holder, **values):
                return True
            if first or query is not self._say.finish:
                return False
            # Done by an earlier try, whose answer was lost.
            return bool(self._rows(self._say.is_done, slot=slot.id))

        if not self._patience(change):
            with self._forget(slot.holder, {slot.id}):
                raise LostLease(f"slot {slot.number} was taken over by another worker")

    @contextmanager
    def _forget(self, holder: str, slots: set[int] | None) -> Iterator[None]:
        """Let go of slots before the database hears of it, and take them back if it does not.

        In this order a `LeaseKeeper` never mistakes a slot that is being finished for a lost one.
        """
        with self._mine_lock:
            held = self._mine.setdefault(holder, set())
            leaving = self._leaving.setdefault(holder, set())
            dropped = set(held) if slots is None else held & slots
            held -= dropped
            leaving |= dropped
        try:
            yield
        except LostLease:
            raise
        except BaseException:
            with self._mine_lock:
                held |= dropped
            raise
        finally:
            with self._mine_lock:
                leaving -= dropped

    def _execute(self, query: sa.UpdateBase, **values: Any) -> int:
        """One statement that is a transaction; returns how many rows it changed."""
        with self._single.connect() as connection:
            return connection.execute(query, values).rowcount

    def _rows(self, query: sa.Executable, **values: Any) -> list[Any]:
        """One statement that is a transaction; returns its rows."""
        with self._single.connect() as connection:
            return list(connection.execute(query, values))

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
