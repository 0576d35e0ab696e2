"""What is read of a database, on SQLite and on PostgreSQL; tests/cli has the details."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo import space
from hpo.definition import load_definition
from hpo.errors import UsageError
from hpo.search.ledger import holder_name
from hpo.search.status import (
    best_trial,
    count_studies,
    read_status,
    read_statuses,
    read_trials,
)
from hpo.search.storage import Storage
from hpo.search.study import build_sampler, create_or_resume, start_trial

DIGITS = Path(__file__).parents[2] / "studies" / "digits.yaml"


@pytest.fixture
def filled(storage: Storage) -> Storage:
    """A study with a budget of 9: three complete, one failed, one running, two handed back."""
    definition = load_definition(DIGITS, ["search.sampler=random"])
    study = create_or_resume(storage, definition, "digits")
    ledger, study_id, holder = storage.ledger, study._study_id, holder_name()
    ledger.set_budget(study_id, 9)
    slots = ledger.claim(study_id, holder, 7, 3600)
    for number, value in enumerate((0.5, 0.75, 0.75, None, None, None, None)):
        trial = start_trial(study, slots[number].id, lambda n: build_sampler(definition, n))
        slot = ledger.assign(slots[number], trial._trial_id)
        space.draw(definition, trial)
        if value is not None:
            study.tell(trial, value)
            ledger.finish(slot)
        elif number == 3:
            study.tell(trial, state=TrialState.FAIL)
            ledger.finish(slot)
    ledger.release(holder, slots[5:])
    return storage


def test_the_counts_and_the_best(filled: Storage) -> None:
    status = read_status(filled, "digits")
    counts = (status.complete, status.pruned, status.failed, status.running, status.waiting)
    assert counts == (3, 0, 1, 1, 2)
    assert (status.budget, status.finished) == (9, 4)
    assert status.best is not None
    assert (status.best.number, status.best.value) == (1, 0.75)
    assert read_statuses(filled) == [status]


def test_the_trials_tell_the_same(filled: Storage) -> None:
    trials, maximize = read_trials(filled, "digits")
    assert maximize
    assert [trial.state for trial in trials] == [
        *["complete"] * 3,
        "failed",
        "running",
        *["waiting"] * 2,
    ]
    assert best_trial(trials, maximize=True) == read_status(filled, "digits").best


def test_an_unknown_study(filled: Storage) -> None:
    with pytest.raises(UsageError, match="did you mean `digits`"):
        read_status(filled, "digit")


def test_how_many_studies_a_database_holds(url: str) -> None:
    assert count_studies(url) is None
    assert count_studies(url) is None  # nothing was created


def test_a_database_that_is_set_up_is_counted(filled: Storage, url: str) -> None:
    assert count_studies(url) == 1
