from __future__ import annotations

import logging
import threading
import time
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from hpo.search import tables
from hpo.search.lease_keeper import LeaseKeeper
from hpo.search.ledger import Ledger, LostLease
from hpo.search.storage import Storage

ELSEWHERE = "elsewhere:1:1-abc-1-x"
LEASE = 600.0


@pytest.fixture
def study_id(storage: Storage) -> int:
    return optuna.create_study(storage=storage.optuna, study_name="a")._study_id


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def expires_in(ledger: Ledger, study_id: int, number: int) -> float:
    seconds = ledger.slots(study_id)[number].expires_in
    assert seconds is not None
    return seconds


class Shaky(Ledger):
    """A ledger whose renewals fail while `broken` is set."""

    broken: BaseException | None = None
    tries = 0

    def renew(self, holder: str, lease: float) -> set[int]:
        self.tries += 1
        if self.broken is not None:
            raise self.broken
        return super().renew(holder, lease)


@pytest.fixture
def shaky(storage: Storage, study_id: int) -> Shaky:
    ledger = Shaky(storage.engine)
    ledger.set_budget(study_id, 3)
    return ledger


def test_a_keeper_keeps_a_lease_for_as_long_as_it_takes(shaky: Shaky, study_id: int) -> None:
    slots = shaky.claim(study_id, ELSEWHERE, 3, 1.5)
    with LeaseKeeper(shaky, ELSEWHERE, 1.5) as keeper:
        deadline = time.monotonic() + 3.5
        while time.monotonic() < deadline:
            assert shaky.claim(study_id, "me:1:x", 3, LEASE) == []
            time.sleep(0.05)
        for slot in slots:
            shaky.finish(slot)
        time.sleep(0.2)
    assert not keeper.lost.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "hpo-leases"]


@pytest.mark.parametrize(
    "error",
    [
        sa.exc.OperationalError("x", {}, Exception("away")),
        OSError("network"),
        RuntimeError("anything"),
    ],
)
def test_no_error_ends_a_keeper(
    shaky: Shaky, study_id: int, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    [slot] = shaky.claim(study_id, ELSEWHERE, 1, 0.4)
    with caplog.at_level(logging.INFO), LeaseKeeper(shaky, ELSEWHERE, 0.4) as keeper:
        for _ in range(2):
            shaky.broken = error
            tries = shaky.tries
            wait_for(lambda tries=tries: shaky.tries >= tries + 4)
            shaky.broken = None
            wait_for(lambda: expires_in(shaky, study_id, 0) > 0.3)
            wait_for(lambda: "again" in caplog.messages[-1])
        assert not keeper.lost.is_set()
    # Once an outage, not once a try.
    assert len(caplog.messages) == 4
    assert type(error).__name__ in caplog.messages[0]
    shaky.finish(slot)


def test_a_lock_that_others_hold_for_a_moment_is_nothing_to_speak_of(
    shaky: Shaky, study_id: int, caplog: pytest.LogCaptureFixture
) -> None:
    shaky.claim(study_id, ELSEWHERE, 1, 8.0)
    with LeaseKeeper(shaky, ELSEWHERE, 8.0):
        shaky.broken = sa.exc.TimeoutError("every connection is in use")
        wait_for(lambda: shaky.tries >= 2)
        shaky.broken = None
        wait_for(lambda: expires_in(shaky, study_id, 0) > 7.0)
    assert caplog.messages == []
    with LeaseKeeper(shaky, ELSEWHERE, 0.4):
        shaky.broken = sa.exc.TimeoutError("every connection is in use")
        wait_for(lambda: caplog.messages != [])
        shaky.broken = None
        wait_for(lambda: "again" in caplog.messages[-1])
    assert len(caplog.messages) == 2


def test_a_keeper_says_what_was_lost(
    shaky: Shaky, study_id: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The holder froze, another took its slot and finished it; it wakes up."""
    first, second = shaky.claim(study_id, ELSEWHERE, 2, 0.2)
    shaky.broken = OSError("frozen")
    with LeaseKeeper(shaky, ELSEWHERE, 0.2) as keeper:
        time.sleep(0.3)
        other = Ledger(shaky._engine)
        [taken] = other.claim(study_id, "me:1:x", 1, LEASE)
        assert taken.id == first.id
        other.finish(taken)
        shaky.broken = None
        assert keeper.lost.wait(60)
        assert keeper.lost_slots() == {first.id}
        wait_for(lambda: expires_in(shaky, study_id, 1) > 0.1)
    with pytest.raises(LostLease):
        shaky.finish(first)
    shaky.finish(second)
    assert sum("taken over" in message for message in caplog.messages) == 1


def test_leases_are_fresh_soon_after_the_clock_has_leapt(
    shaky: Shaky, study_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine wakes up: by the database's clock every lease has run out."""
    shaky.claim(study_id, ELSEWHERE, 1, LEASE)
    clock = time.time
    with LeaseKeeper(shaky, ELSEWHERE, LEASE):
        with shaky._engine.begin() as connection:
            connection.execute(sa.update(tables.slots).values(expires=0.0))
        time.sleep(1.5)
        assert shaky.tries == 0
        monkeypatch.setattr(time, "time", lambda: clock() + LEASE)
        wait_for(lambda: expires_in(shaky, study_id, 0) > LEASE / 2, seconds=20)
        time.sleep(1.5)
        assert shaky.tries == 1  # once a leap


def test_a_result_that_could_not_be_told_keeps_its_slot(shaky: Shaky, study_id: int) -> None:
    """The database goes away just as a slot is finished: it stays held, and is not `lost`."""
    [slot] = shaky.claim(study_id, ELSEWHERE, 1, LEASE)
    with LeaseKeeper(shaky, ELSEWHERE, 0.2) as keeper:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shaky, "_execute", _away)
            with pytest.raises(OSError, match="away"):
                shaky.finish(slot)
        assert shaky.believed(ELSEWHERE) == {slot.id}
        shaky.finish(slot)
        time.sleep(0.2)
        assert not keeper.lost.is_set()
    assert shaky.believed(ELSEWHERE) == frozenset()


def _away(*_: object, **__: object) -> None:
    raise OSError("away")
