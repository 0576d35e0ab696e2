"""The history is what the database holds, and takes each finished trial in once."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.search import history as histories
from hpo.search.history import history_of, last_history_of
from hpo.search.storage import Storage, open_storage


class Numbers:
    """The numbers of finished trials, as often as they are told of."""

    def __init__(self, *_: object) -> None:
        self.found: list[int] = []

    def add(self, trial: FrozenTrial) -> None:
        assert trial.state.is_finished()
        self.found.append(trial.number)


@pytest.fixture
def study(storage: Storage) -> optuna.Study:
    return optuna.create_study(storage=storage.optuna, study_name="a")


def test_every_finished_trial_is_taken_in_once(study: optuna.Study) -> None:
    assert history_of(study).index(Numbers).found == []
    first, second, third = (study.ask() for _ in range(3))
    study.tell(second, 1.0)
    history = history_of(study)
    assert history.index(Numbers).found == [1]
    assert [trial.number for trial in history.unfinished] == [0, 2]
    study.tell(third, state=TrialState.FAIL)
    study.tell(first, state=TrialState.PRUNED)
    study.add_trial(create_trial(value=2.0))
    assert history_of(study) is history
    assert history.index(Numbers).found == [1, 0, 2, 3]
    assert history.index(Numbers, "asked for later").found == [1, 0, 2, 3]
    assert history.unfinished == []
    assert [trial.number for trial in history.trials] == [0, 1, 2, 3]
    history_of(study)
    assert history.index(Numbers).found == [1, 0, 2, 3]


def test_what_other_processes_do_is_seen(url: str) -> None:
    with open_storage(url) as mine, open_storage(url) as theirs:
        study = optuna.create_study(storage=mine.optuna, study_name="a")
        other = optuna.load_study(storage=theirs.optuna, study_name="a")
        running = other.ask()
        ours = study.ask()
        assert [trial.number for trial in history_of(study).unfinished] == [0, 1]
        running.report(0.5, 1)
        assert history_of(study).unfinished[0].intermediate_values == {1: 0.5}
        other.tell(running, 1.0)
        study.tell(ours, 1.0)
        for one in (study, other):
            assert sorted(history_of(one).index(Numbers).found) == [0, 1]


def test_the_last_history_is_not_read_again(study: optuna.Study, monkeypatch: Any) -> None:
    study.tell(study.ask(), 1.0)
    assert last_history_of(study).index(Numbers).found == [0]
    study.tell(study.ask(), 1.0)
    assert last_history_of(study).index(Numbers).found == [0]
    history_of(study)
    assert last_history_of(study).index(Numbers).found == [0, 1]


def test_studies_have_histories_of_their_own(storage: Storage, study: optuna.Study) -> None:
    other = optuna.create_study(storage=storage.optuna, study_name="b")
    study.tell(study.ask(), 1.0)
    assert history_of(study).index(Numbers).found == [0]
    assert history_of(other).index(Numbers).found == []


@pytest.mark.parametrize("count", [1, 3])
def test_a_deleted_study_is_forgotten(tmp_path: Path, count: int) -> None:
    """SQLite gives the id of a deleted study, and of its trials, to the next ones."""
    with open_storage(f"sqlite:///{tmp_path}/hpo.db") as storage:
        ids = set()
        for round_ in range(2):
            study = optuna.create_study(storage=storage.optuna, study_name="a")
            ids.add(study._study_id)
            for _ in range(2 if round_ == 0 else count):
                study.tell(study.ask(), float(round_))
            found = history_of(study).index(Numbers).found
            assert found == list(range(2 if round_ == 0 else count))
            assert {trial.value for trial in history_of(study).trials} == {float(round_)}
            optuna.delete_study(study_name="a", storage=storage.optuna)
        assert len(ids) == 1


def test_a_trial_before_the_newest_may_come_to_light_later(study: optuna.Study) -> None:
    for value in range(3):
        study.add_trial(create_trial(value=float(value)))
    trials = study.get_trials(deepcopy=False)
    history = histories.History()
    history.update([trials[0], trials[2]])
    assert history.index(Numbers).found == [0]
    history.update(trials)
    assert history.index(Numbers).found == [0, 1, 2]


def test_nothing_is_kept_of_a_storage_that_is_gone(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/hpo.db") as storage:
        study = optuna.create_study(storage=storage.optuna)
        study.tell(study.ask(), 1.0)
        history = weakref.ref(history_of(study))
    assert history() is not None
    del storage, study
    gc.collect()
    assert history() is None
