"""What a trial that several workers had is told with, and by which epochs it is judged."""

from __future__ import annotations

import shutil
import time
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import TrainingError
from hpo.search.asha import AshaPruner
from hpo.search.objective import SearchCrew
from hpo.search.storage import Storage
from tests.searching import Search, Watcher, begin

# Rungs are at the epochs 1 and 2.
STUDY = """
dataset: {name: digits}
model: {mlp: {widths: [16]}}
optimizer: {adam: {lr: {float: [1.0e-4, 1.0e-2], log: true}}}
training: {batch_size: 32, epochs: 4}
search: {trials: 1, sampler: random, pruner: {asha: {min_epochs: 1, reduction: 2}}}
"""


@pytest.fixture
def search(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    return begin(storage, tmp_path, monkeypatch, STUDY)


class Judge:
    """In the place of ASHA: notes after which epochs it is asked, and stops after some."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []
        self.stops: set[int] = set()

    def prune(self, _: optuna.Study, trial: FrozenTrial) -> bool:
        self.asked.append(trial.last_step)
        return trial.last_step in self.stops


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    judge = Judge()
    monkeypatch.setattr(AshaPruner, "prune", judge.prune)
    return judge


def outcome(search: Search) -> dict[str, Any]:
    found: dict[str, Any] = search.study.trials[0].user_attrs["hpo:outcome"]
    return found


def set_back(search: Search, age: timedelta) -> None:
    """Let the trial have been drawn so much earlier; later, if that is negative."""
    start = sa.column("datetime_start", sa.DateTime)
    trials = sa.table("trials", start)
    with search.storage.engine.begin() as connection:
        drawn = connection.scalar(sa.select(start).select_from(trials))
        assert drawn is not None
        connection.execute(sa.update(trials).values(datetime_start=drawn - age))


def test_a_resumed_trial_counts_all_seconds_since_it_was_drawn(search: Search) -> None:
    search.stopped_after(1)
    set_back(search, timedelta(hours=1))
    assert search.run()
    assert 3600 < outcome(search)["total_seconds"] < 3600 + 600


def test_a_trial_takes_no_less_time_than_its_training(search: Search) -> None:
    """Also where it was drawn on a machine whose clock is ahead."""
    watcher, pause = Watcher(), iter([*[0.0] * 5, 3.0])

    def stopping() -> bool:
        time.sleep(next(pause, 0.0))  # so the first epoch takes longer than all that comes later
        return watcher.epochs == 1

    assert not search.run(watcher, stopping=stopping)
    set_back(search, timedelta(hours=-1))
    assert search.run()
    assert outcome(search)["train_seconds"] > 3
    assert outcome(search)["total_seconds"] >= outcome(search)["train_seconds"]


@pytest.mark.parametrize("killed", [True, False])
def test_an_epoch_that_nobody_judged_is_judged_by_the_next_worker(
    search: Search, judge: Judge, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """A worker ends between the report of an epoch and the verdict on it."""

    def end(*_: object) -> None:
        raise TrainingError("it ends here")

    judge.stops = {1}
    with monkeypatch.context() as patch:
        patch.setattr(SearchCrew, "prunes", end)
        if killed:
            patch.setattr(SearchCrew, "left", lambda *_: None)
        with pytest.raises(TrainingError, match="ends here"):
            search.run()
    [trial] = search.study.trials
    assert (trial.state, list(trial.intermediate_values)) == (TrialState.RUNNING, [1])
    assert judge.asked == []
    assert search.run()
    [trial] = search.study.trials
    assert (trial.state, list(trial.intermediate_values)) == (TrialState.PRUNED, [1])


@pytest.mark.parametrize(("epochs", "elsewhere"), [(1, False), (3, False), (3, True)])
def test_who_went_on_is_not_judged_by_the_same_epoch_again(
    search: Search, judge: Judge, epochs: int, elsewhere: bool
) -> None:
    """A checkpoint says that it did, and so does a later report, where there is no checkpoint."""
    search.stopped_after(epochs)
    passed = [epoch for epoch in judge.asked if epoch is not None]
    assert passed == [1, 2][:epochs]
    if elsewhere:
        shutil.rmtree(search.folder)
    judge.stops = set(passed)
    assert search.run()
    [trial] = search.study.trials
    assert trial.state == TrialState.COMPLETE
    assert judge.asked == [1, 2]


def test_who_went_on_is_put_by_in_the_midst_of_its_next_epoch(
    search: Search, judge: Judge
) -> None:
    search.stopped_after(1)
    asked = count()
    assert not search.run(stopping=lambda: next(asked) >= 20)
    assert judge.asked == [1]
    places = [path.name.split("-")[:2] for path in search.folder.rglob("checkpoints/*/*.json")]
    epoch, batch = map(int, max(places))
    assert epoch == 1
    assert batch > 0
