"""Putting a study in order, beside a copy of its database that has the same state folder."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.errors import TrainingError
from hpo.search.repair import repair
from hpo.search.spool import Result, Spool
from hpo.search.storage import Storage, open_storage
from hpo.search.telling import Teller
from hpo.training.checkpoints import Checkpoints
from tests.searching import Search, begin


@pytest.fixture
def original(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Search]:
    with open_storage(sqlite_url) as storage:
        yield begin(storage, tmp_path, monkeypatch)


@pytest.fixture
def copied(original: Search, tmp_path: Path) -> Iterator[Search]:
    """The study in a copy of the file, taken before the first trial."""
    assert original.storage.address.path is not None
    file = sqlite3.connect(original.storage.address.path)
    file.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    file.close()
    with open_storage(f"sqlite:///{tmp_path / 'copy.db'}") as storage:
        found = Search(storage, original.definition, original.data)
        assert found.folder == original.folder
        yield found


def checkpoints(search: Search) -> list[int]:
    return Checkpoints(search.folder / "checkpoints").keys()


def results(search: Search) -> list[Result]:
    return list(Spool(search.folder / "spool").abandoned())


def test_a_copy_leaves_the_checkpoints_of_the_original(
    original: Search, copied: Search, caplog: pytest.LogCaptureFixture
) -> None:
    original.stopped_after(2)
    [trial] = original.study.trials
    repair(copied.storage, "s")
    assert checkpoints(original) == [trial._trial_id]
    with caplog.at_level("INFO"):
        assert original.run()
    assert "trial 0 goes on after epoch 2" in caplog.text
    assert checkpoints(original) == []


def test_checkpoints_go_once_nobody_needs_them(original: Search) -> None:
    assert original.run()
    finished = original.study.trials[0]._trial_id
    foreign, old = finished + 1000, finished + 1001
    for key in (finished, foreign, old):
        (original.folder / "checkpoints" / str(key)).mkdir(parents=True)
    os.utime(original.folder / "checkpoints" / str(old), (0, 0))
    repair(original.storage, "s")
    assert checkpoints(original) == [foreign]


def test_a_result_of_the_original_is_not_told_in_a_copy(
    original: Search, copied: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have trained a trial since that has the same number and slot."""

    def away(*_: object) -> None:
        raise TrainingError("the database is away, and stays away")

    with monkeypatch.context() as patch:
        patch.setattr(Teller, "_tell", away)
        with pytest.raises(TrainingError):
            original.run()
    [result] = results(original)
    assert repair(copied.storage, "s").replayed == 0  # there is no such trial yet
    copied.stopped_after(1)
    assert repair(copied.storage, "s").replayed == 0
    [other] = copied.study.trials
    assert (other._trial_id, other.state) == (result.trial_id, TrialState.RUNNING)
    assert results(copied) == [result]
    assert repair(original.storage, "s").replayed == 1
    told = original.study.trials[result.number]
    assert (told.state, told.value) == (TrialState.COMPLETE, result.value)
    assert results(original) == []


@pytest.mark.parametrize(("holder", "told"), [("b", 1), ("c", 0)])
def test_a_result_of_who_holds_the_trial_is_told(original: Search, holder: str, told: int) -> None:
    """Who takes over a trial that was trained to its end has a result, and trained nothing."""
    original.stopped_after(1)
    [trial] = original.study.trials
    [slot] = original.storage.ledger.claim(original.study._study_id, "b", 1, 60)
    spool = Spool(original.folder / "spool")
    spool.put(
        Result("s", trial.number, trial._trial_id, slot.id, holder, "COMPLETE", 0.5, {1: 0.5}, {})
    )
    spool.close()
    assert repair(original.storage, "s").replayed == told


def test_a_result_that_nobody_knows_is_kept_for_a_while(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = begin(storage, tmp_path, monkeypatch)
    result = Result("s", 0, 4711, 1, "h", "COMPLETE", 0.5, {1: 0.5}, {})
    spool = Spool(search.folder / "spool")
    for trial_id in (4711, 4712):
        spool.put(replace(result, trial_id=trial_id))
    spool.close()
    os.utime(search.folder / "spool" / "4712.json", (0, 0))
    assert repair(storage, "s").replayed == 0
    assert results(search) == [result]
