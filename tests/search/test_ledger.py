from __future__ import annotations

import json
import os
import tempfile
import time
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hpo.search.ledger import Counts, Ledger, LostLease, Slot
from hpo.search.storage import Storage, open_storage

ELSEWHERE = "elsewhere:1:1-abc-1-x"
LEASE = 600.0


@pytest.fixture
def study_id(storage: Storage) -> int:
    return optuna.create_study(storage=storage.optuna, study_name="a")._study_id


@pytest.fixture
def ledger(storage: Storage) -> Ledger:
    return storage.ledger


def numbers(slots: list[Slot]) -> list[int]:
    return [slot.number for slot in slots]


# --- the budget


def test_a_budget_is_so_many_slots(ledger: Ledger, study_id: int) -> None:
    assert ledger.counts(study_id) == Counts(0, 0, 0, 0)
    assert ledger.set_budget(study_id, 5) == 5
    assert ledger.set_budget(study_id, 5) == 5
    assert ledger.counts(study_id) == Counts(5, 0, 0, 5)
    assert [row.number for row in ledger.slots(study_id)] == [0, 1, 2, 3, 4]


def test_a_smaller_budget_takes_only_what_nobody_touched(ledger: Ledger, study_id: int) -> None:
    ledger.set_budget(study_id, 6)
    first, second, third = ledger.claim(study_id, ELSEWHERE, 3, LEASE)
    ledger.finish(first)
    ledger.assign(second, 7)
    ledger.release(ELSEWHERE, [second])
    assert ledger.set_budget(study_id, 1) == 3
    assert [row.number for row in ledger.slots(study_id)] == [0, 1, 2]
    ledger.finish(third)
    assert ledger.counts(study_id) == Counts(3, 2, 0, 1)
    # And it grows again, by new slots; an id is never used twice.
    known = {row.id for row in ledger.slots(study_id)}
    assert ledger.set_budget(study_id, 5) == 5
    added = {row.id for row in ledger.slots(study_id)} - known
    assert min(added) > max(known) + 2


def test_budgets_of_two_studies_are_apart(ledger: Ledger, study_id: int, storage: Storage) -> None:
    other = optuna.create_study(storage=storage.optuna, study_name="b")._study_id
    ledger.set_budget(study_id, 2)
    ledger.set_budget(other, 1)
    assert numbers(ledger.claim(study_id, "me:1:x", 9, LEASE)) == [0, 1]
    assert ledger.counts(other) == Counts(1, 0, 0, 1)
    assert ledger.next_expiry(other, "me:1:x") == 0


def test_a_deleted_study_leaves_no_slots_to_the_next(url: str) -> None:
    """SQLite gives the next study the same id; stock Optuna deletes without foreign keys."""
    with open_storage(url) as storage:
        study = optuna.create_study(storage=storage.optuna, study_name="a")
        storage.ledger.set_budget(study._study_id, 4)
        stock = optuna.storages.RDBStorage(url.replace("postgresql:", "postgresql+psycopg:"))
        optuna.delete_study(study_name="a", storage=stock)
        stock.engine.dispose()
        with storage.engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM hpo_slots")) == 0


# --- leases


def test_what_was_begun_is_claimed_before_what_is_new(ledger: Ledger, study_id: int) -> None:
    ledger.set_budget(study_id, 6)
    slots = ledger.claim(study_id, "a:1:x", 4, LEASE)
    for slot in slots[1:]:
        ledger.assign(slot, 100 + slot.number)
    assert ledger.release("a:1:x", slots[:1]) == 1
    assert ledger.release("a:1:x", slots[2:]) == 2
    claimed = ledger.claim(study_id, "b:1:x", 9, LEASE)
    assert [(slot.number, slot.trial_id) for slot in claimed] == [
        (2, 102),
        (3, 103),
        (0, None),
        (4, None),
        (5, None),
    ]
    assert {slot.holder for slot in claimed} == {"b:1:x"}
    assert ledger.counts(study_id) == Counts(6, 0, 6, 0)
    assert ledger.claim(study_id, "c:1:x", 9, LEASE) == []
    assert ledger.claim(study_id, "c:1:x", 0, LEASE) == []


def test_a_silent_holder_loses_its_slots_and_is_told(ledger: Ledger, study_id: int) -> None:
    ledger.set_budget(study_id, 2)
    slot = ledger.assign(ledger.claim(study_id, ELSEWHERE, 1, 0.3)[0], 5)
    assert ledger.claim(study_id, "me:1:x", 1, LEASE)[0].number == 1
    wait = ledger.next_expiry(study_id, "me:1:x")
    assert wait is not None
    assert 0 < wait <= 0.3
    time.sleep(wait + 0.05)
    assert ledger.next_expiry(study_id, "me:1:x") == 0
    assert ledger.counts(study_id) == Counts(2, 0, 1, 1)
    [taken] = ledger.claim(study_id, "me:1:x", 9, LEASE)
    assert (taken.number, taken.trial_id) == (0, 5)
    for late in (ledger.finish, lambda slot: ledger.assign(slot, 6)):
        with pytest.raises(LostLease, match="slot 0 was taken over"):
            late(slot)
    assert ledger.renew(ELSEWHERE, LEASE) == set()
    assert ledger.release(ELSEWHERE, [slot]) == 0
    ledger.finish(taken)
    with pytest.raises(LostLease):
        ledger.finish(taken)
    assert ledger.counts(study_id) == Counts(2, 1, 1, 0)


def test_an_expired_lease_that_nobody_took_goes_on(ledger: Ledger, study_id: int) -> None:
    ledger.set_budget(study_id, 1)
    [slot] = ledger.claim(study_id, ELSEWHERE, 1, 0.01)
    time.sleep(0.05)
    # Its own holder does not claim it as if it were new.
    assert ledger.claim(study_id, ELSEWHERE, 1, LEASE) == []
    assert ledger.renew(ELSEWHERE, LEASE) == {slot.id}
    assert ledger.claim(study_id, "me:1:x", 1, LEASE) == []
    ledger.finish(slot)


def test_a_row_says_how_a_slot_stands(ledger: Ledger, study_id: int) -> None:
    ledger.set_budget(study_id, 3)
    first, _ = ledger.claim(study_id, ELSEWHERE, 2, 100.0)
    ledger.finish(ledger.assign(first, 9))
    rows = ledger.slots(study_id)
    assert (rows[0].trial_id, rows[0].holder, rows[0].done) == (9, None, True)
    assert (rows[1].trial_id, rows[1].holder, rows[1].done) == (None, ELSEWHERE, False)
    assert rows[1].expires_in == pytest.approx(100.0, abs=5.0)
    assert (rows[2].holder, rows[2].expires_in) == (None, None)


def test_time_is_the_databases(ledger: Ledger, study_id: int, monkeypatch: Any) -> None:
    ledger.set_budget(study_id, 1)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    ledger.claim(study_id, ELSEWHERE, 1, 50.0)
    assert ledger.slots(study_id)[0].expires_in == pytest.approx(50.0, abs=5.0)


class Budget(RuleBasedStateMachine):
    """Whatever workers do in whatever order: no slot is held twice or finished twice."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.storage = open_storage(f"sqlite:///{self.folder.name}/hpo.db")
        self.study = optuna.create_study(storage=self.storage.optuna)._study_id
        self.ledger = self.storage.ledger
        self.held: dict[int, Slot] = {}
        self.trials: dict[int, int] = {}
        self.done: set[int] = set()

    @rule(slots=st.integers(0, 8))
    def set_budget(self, slots: int) -> None:
        touched = len(self.held) + len(self.done)
        free = {row.id for row in self.ledger.slots(self.study) if row.trial_id is not None}
        touched += len(free - self.held.keys() - self.done)
        assert self.ledger.set_budget(self.study, slots) == max(slots, touched)

    @rule(holder=st.sampled_from("abc"), most=st.integers(1, 3))
    def claim(self, holder: str, most: int) -> None:
        for slot in self.ledger.claim(self.study, f"{holder}:1:x", most, LEASE):
            assert slot.id not in self.held
            assert slot.id not in self.done
            assert slot.trial_id == self.trials.get(slot.id)
            self.held[slot.id] = slot

    @precondition(lambda self: self.held)
    @rule(data=st.data(), deed=st.sampled_from(["assign", "finish", "release"]))
    def end(self, data: st.DataObject, deed: str) -> None:
        slot = self.held[data.draw(st.sampled_from(sorted(self.held)))]
        if deed == "assign":
            self.held[slot.id] = self.ledger.assign(slot, 1000 + slot.id)
            self.trials[slot.id] = 1000 + slot.id
            return
        del self.held[slot.id]
        if deed == "finish":
            self.ledger.finish(slot)
            self.done.add(slot.id)
        else:
            assert self.ledger.release(slot.holder, [slot]) == 1

    @invariant()
    def counts_agree(self) -> None:
        counts = self.ledger.counts(self.study)
        assert (counts.done, counts.held) == (len(self.done), len(self.held))
        assert counts.budget == counts.done + counts.held + counts.free

    def teardown(self) -> None:
        self.storage.close()
        self.folder.cleanup()


Budget.TestCase.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
TestBudget = Budget.TestCase


# --- processes


def test_no_slot_is_claimed_twice_by_eight_processes(
    url: str, storage: Storage, study_id: int, processes: Any
) -> None:
    storage.ledger.set_budget(study_id, 160)
    shares = processes.run("claim", 8, url, str(study_id), str(LEASE))
    claimed = [slot for share in shares for slot in share]
    assert sorted(claimed) == sorted(row.id for row in storage.ledger.slots(study_id))
    assert storage.ledger.counts(study_id) == Counts(160, 160, 0, 0)


def test_a_budget_set_by_many_at_once_is_set_once(
    url: str, storage: Storage, study_id: int, processes: Any
) -> None:
    assert processes.run("budget", 8, url, str(study_id), "25") == [25] * 8
    assert storage.ledger.counts(study_id).budget == 25


def test_the_slot_of_a_killed_process_is_free_at_once(
    url: str, storage: Storage, study_id: int, processes: Any
) -> None:
    storage.ledger.set_budget(study_id, 1)
    process = processes.start("hold", 1, url, str(study_id), str(LEASE))
    assert process.stdout is not None
    held = json.loads(process.stdout.readline())
    assert storage.ledger.claim(study_id, "me:1:x", 1, LEASE) == []
    [row] = storage.ledger.slots(study_id)
    assert row.holder is not None
    assert storage.ledger.counts(study_id).held == 1
    os.kill(int(row.holder.split(":")[1]), 9)  # the forked child; its parent then ends as well
    process.wait(60)
    assert storage.ledger.counts(study_id).held == 0
    assert storage.ledger.next_expiry(study_id, "me:1:x") == 0
    [slot] = storage.ledger.claim(study_id, "me:1:x", 1, LEASE)
    assert (slot.id, slot.trial_id) == (held, 77)
    process.communicate()
