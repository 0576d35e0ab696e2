"""Workers that meet at one trial: whoever is late lets go, and nothing is told twice."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Collection
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import hpo.search.berths
import hpo.search.worker
import hpo.space
from hpo.errors import StorageError, TrainingError
from hpo.holder import holder_name
from hpo.search.halt import halt, halted, judged, lift
from hpo.search.lease_keeper import LeaseKeeper
from hpo.search.ledger import Slot
from hpo.search.objective import SearchCrew
from hpo.search.repair import repair
from hpo.search.spool import Result, Spool
from hpo.search.status import read_status
from hpo.search.storage import Storage, open_storage
from hpo.search.study import retire, start_trial
from hpo.search.troubles import TROUBLES
from hpo.search.worker import WorkerOptions
from hpo.training.fit import Ending
from hpo.training.history import EpochRecord
from hpo.training.mishaps import DeviceLost
from hpo.training.population import Member, Population
from tests.searching import OTHER, Search, Watcher, begin


@pytest.fixture
def search(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    return begin(storage, tmp_path, monkeypatch)


def test_a_slot_that_was_lost_and_claimed_again_is_its_holders_own(search: Search) -> None:
    ledger, study_id = search.storage.ledger, search.study._study_id
    (slot,) = ledger.claim(study_id, OTHER, 1, 600.0)
    with LeaseKeeper(ledger, OTHER, 0.2) as keeper:
        search.change(holder="somebody:1:1-abc-1-y", expires=1e12)
        assert keeper.lost.wait(60)
        assert keeper.lost_slots() == {slot.id}
        ledger.release(OTHER, [slot])
        search.change(holder=None, expires=None)
        (again,) = ledger.claim(study_id, OTHER, 1, 600.0)
        assert again.id == slot.id
        assert keeper.lost_slots() == frozenset()


def test_who_loses_the_device_leaves_its_trials_to_be_taken_over(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handed back, a trial that always loses it would come again and again without a count."""

    def lose(*_: object) -> None:
        raise DeviceLost("the device is lost (illegal memory access); start the worker again")

    with monkeypatch.context() as patch:
        patch.setattr(Population, "run_epoch", lose)
        with pytest.raises(DeviceLost):
            search.run(Watcher())
    [held] = [row for row in search.storage.ledger.slots(search.study._study_id) if row.holder]
    assert held.trial_id is not None
    search.change(holder=OTHER, expires=0.0)  # its process is dead
    assert search.run(Watcher())
    assert search.study.trials[0].user_attrs[TROUBLES]["deaths"] == 1


def test_a_database_that_cannot_be_asked_is_no_trials_fault(search: Search) -> None:
    """Whoever serves a study looks now and then whether it is still there, between two batches."""
    watcher, away = Watcher(), [StorageError("the database is away")]

    def stopping() -> bool:
        if watcher.epochs == 1 and away:
            raise away.pop()
        return False

    with pytest.raises(StorageError, match="is away"):
        search.run(watcher, stopping=stopping)
    assert TROUBLES not in search.study.trials[0].user_attrs
    assert search.run(watcher)
    assert sorted(watcher.told) == [0, 1, 2]


def test_no_memory_to_save_trials_ends_nobody(
    search: Search, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Population, "snapshot", short)
    assert search.run(Watcher())
    assert "no memory to save" in caplog.text


def test_who_froze_in_the_midst_of_a_draw_does_not_train_anothers_trial(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, seconds = hpo.space.draw, iter([1.5])

    def slowly(*arguments: Any) -> Any:
        found = draw(*arguments)
        if pause := next(seconds, 0.0):
            search.change(holder=OTHER, expires=1e12)
            time.sleep(pause)
            threading.Timer(1.0, lambda: search.change(holder=None, expires=None)).start()
        return found

    monkeypatch.setattr(hpo.space, "draw", slowly)
    watcher = Watcher()
    assert search.run(watcher, WorkerOptions(population=1, lease=2.0))
    assert sorted(watcher.told) == [0, 1, 2]
    assert watcher.epochs == 3 * 3


def test_a_worker_that_lost_its_trial_and_got_it_back_finishes_it(search: Search) -> None:
    class Robbed(Watcher):
        def epoch(self, *_: float) -> None:
            super().epoch()
            if self.epochs == 1:
                search.change(holder=OTHER, expires=1e12)
                time.sleep(1.0)  # for the keeper to notice
                back = {"holder": None, "expires": None}
                threading.Timer(0.5, lambda: search.change(**back)).start()

    watcher = Robbed()
    start = time.monotonic()
    options = WorkerOptions(population=1, lease=1.0)
    assert search.run(watcher, options, lambda: time.monotonic() - start > 60)
    assert sorted(watcher.told) == [0, 1, 2]
    assert watcher.epochs <= 3 * 3 + 3  # what was lost is trained once more, not for ever


def test_a_trial_is_not_retired_that_another_worker_has_found(
    search: Search, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker freezes between creating a trial and binding it; another goes on with the trial."""
    ledger = search.storage.ledger
    assign = ledger.assign
    found: list[int] = []

    def late(slot: Slot, trial_id: int) -> Slot:
        if not found:
            search.change(expires=0.0)
            with open_storage(url) as other:
                crew = search.crew(other, holder_name())
                ((_, (member,)),) = crew.admit([])
                found.append(member.key)
        return assign(slot, trial_id)

    monkeypatch.setattr(ledger, "assign", late)
    crew = search.crew(search.storage, holder_name())
    assert [member.key for _, members in crew.admit([]) for member in members] != found
    monkeypatch.undo()
    search.change(holder=None, expires=None)
    assert search.run(Watcher())
    repair(search.storage, "s")
    status = read_status(search.storage, "s")
    assert (status.complete, status.failed, status.budget) == (3, 0, 3)


def test_two_who_put_in_order_at_once_do_not_meet(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_trial(search.study, 999, lambda number: optuna.samplers.RandomSampler(number))

    def twice(study: optuna.Study, trial_id: int, reason: str) -> None:
        retire(study, trial_id, reason)
        retire(study, trial_id, reason)

    monkeypatch.setattr("hpo.search.repair.retire", twice)
    assert repair(search.storage, "s").retired == 1
    assert repair(search.storage, "s").retired == 0


def test_who_takes_over_a_trial_that_was_trained_to_its_end_only_tells_it(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = SearchCrew.report
    broken: list[int] = []

    def away(self: SearchCrew, member: Member, record: EpochRecord) -> None:
        if record.epoch == 3 and not broken:
            broken.append(member.key)
            self._teller.put_by(self._entries[member.key], Ending.FINISHED)
            raise TrainingError("the database is away, and stays away")
        report(self, member, record)

    monkeypatch.setattr(SearchCrew, "report", away)
    with pytest.raises(TrainingError):
        search.run(Watcher())
    (result,) = Spool(search.folder / "spool").abandoned()
    # Another worker of this machine that has put the study in order already.
    monkeypatch.setattr(hpo.search.worker, "repair", lambda *_: None)
    assert search.run(Watcher())
    told = search.study.get_trials()[result.number]
    assert told.value == result.value
    assert sorted(told.intermediate_values) == [1, 2, 3]


def test_what_a_worker_could_not_tell_is_told_by_the_next_in_its_process(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = hpo.search.telling.Teller._tell
    told: list[int] = []

    def once(self: hpo.search.telling.Teller, entry: hpo.search.entry.Entry) -> None:
        tell(self, entry)
        if not told:
            told.append(entry.trial.number)
            raise TrainingError("too many fail")

    monkeypatch.setattr(hpo.search.telling.Teller, "_tell", once)
    three = WorkerOptions(population=3)
    with pytest.raises(TrainingError, match="too many"):
        search.run(Watcher(), three)
    spooled = {
        result.number: result.value for result in Spool(search.folder / "spool").abandoned()
    }
    assert search.run(Watcher(), three)
    for trial in search.study.get_trials():
        assert sorted(trial.intermediate_values) == [1, 2, 3]
        assert trial.value == spooled.get(trial.number, trial.value)


def test_a_late_worker_does_not_remove_what_its_successor_put_by(tmp_path: Path) -> None:
    result = Result("s", 0, 7, 1, "h", "COMPLETE", 0.5, {1: 0.5}, {})
    late, successor = Spool(tmp_path), Spool(tmp_path)
    successor.put(result)
    late.drop(7)
    successor.close()
    assert [found.trial_id for found in late.abandoned()] == [7]


def test_memory_is_short_of_all_populations_together(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[Population] = weakref.WeakSet()

    class Greedy(Population):
        """Two populations at a time are too much."""

        def add(self, members: Collection[Member]) -> None:
            alive.add(self)
            super().add(members)

        def run_epoch(self, *arguments: object) -> list[EpochRecord]:
            if sum(len(population) > 0 for population in alive) > 1:
                raise MemoryError
            return super().run_epoch(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hpo.search.berths, "Population", Greedy)
    assert search.run(Watcher(), WorkerOptions(population=3))
    assert read_status(search.storage, "s").complete == 3


def test_a_halt_is_heard_before_the_next_trial_begins(search: Search) -> None:
    class Halting(Watcher):
        def finished(self, number: int, *_: object) -> None:
            super().finished(number)
            halt(search.study, "enough")

    watcher = Halting()
    with pytest.raises(TrainingError, match="enough"):
        search.run(watcher)
    assert watcher.told == [0]
    lift(search.study)
    assert search.run(Watcher())


def test_what_failed_before_a_halt_was_lifted_never_counts_again(search: Search) -> None:
    def fail(count: int) -> None:
        for _ in range(count):
            search.study.tell(search.study.ask(), state=TrialState.FAIL)

    fail(2)
    late = search.study.ask()  # its failure is told after the lift
    for _ in range(2):
        halt(search.study, "enough")
        lift(search.study)
        assert halted(search.study) is None
        assert judged(search.study) == []
        fail(1)
        assert len(judged(search.study)) == 1
    search.study.tell(late, state=TrialState.FAIL)
    assert len(judged(search.study)) == 1


@pytest.mark.parametrize("taker", [None, "somebody:1:1-abc-1-y"])
@pytest.mark.parametrize("drawn", [True, False])
def test_a_slot_that_is_still_trained_is_not_claimed_when_it_was_freed(
    search: Search, drawn: bool, taker: str | None
) -> None:
    """As by `hpo status --repair`, or by who died of it, while its worker's machine slept."""
    ledger, study_id = search.storage.ledger, search.study._study_id
    (slot,) = ledger.claim(study_id, OTHER, 1, 600.0)
    if drawn:
        search.change(trial_id=search.study.ask()._trial_id)
    search.change(holder=taker, expires=None if taker is None else 0.0)
    others = ledger.claim(study_id, OTHER, 3, 600.0)
    assert len(others) == 2
    assert slot.id not in {other.id for other in others}
    ledger.release(OTHER, [slot])  # it is let go of
    (again,) = ledger.claim(study_id, OTHER, 3, 600.0)
    assert again.id == slot.id
