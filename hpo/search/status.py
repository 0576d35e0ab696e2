"""What a database holds, for people and programs that only look: nothing is written.

A trial that is surplus (no slot of the budget knows it) is left out everywhere. A trial that
Optuna calls RUNNING but that nobody holds, because its worker handed it back or fell silent, is
`waiting` here: the next worker takes it over.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import DefinitionError, FileError, HpoError, UsageError
from hpo.search import records
from hpo.search.halt import halted
from hpo.search.ledger import SlotRow
from hpo.search.records import SURPLUS, TrialRecord
from hpo.search.storage import Storage, _check_path, _is_set_up, explain, open_storage
from hpo.search.study import SLOT, check_exists, load, names
from hpo.search.url import Address, parse

__all__ = [
    "Standing",
    "StudyStatus",
    "best_trial",
    "count_studies",
    "read_standing",
    "read_status",
    "read_statuses",
    "read_trials",
]

_log = logging.getLogger(__name__)
_trials = models.TrialModel
_attributes = models.TrialUserAttributeModel
_values = models.TrialValueModel


@dataclass(frozen=True)
class StudyStatus:
    """How a study stands.

    Attributes:
        budget: how many finished trials it is to have.
        running: trials that a worker holds now.
        waiting: trials that were begun and that nobody holds.
        best: the best complete trial; None as long as there is none.
    """

    study: str
    budget: int
    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int
    best: TrialRecord | None

    @property
    def finished(self) -> int:
        """Trials that count towards the budget."""
        return self.complete + self.pruned + self.failed


@dataclass(frozen=True)
class Standing:
    """How far a study is, in a few numbers that are cheap to read again and again.

    Attributes:
        running: trials that a worker holds now.
        best: the value of the best complete trial; None as long as there is none.
        halted: why no worker goes on with it; None if they do.
    """

    budget: int
    done: int
    running: int
    best: float | None
    halted: str | None = None

    @property
    def is_met(self) -> bool:
        """Whether the study has all its trials."""
        return self.done >= self.budget


def read_standing(storage: Storage, study: optuna.Study) -> Standing:
    """How far a study is now.

    Raises:
        UsageError: the study was deleted.
        StorageError, FileError: the database refuses.
    """
    with storage.guard():
        counts = storage.ledger.counts(study._study_id)
        try:
            reason = halted(study)
        except KeyError:
            check_exists(storage, study._study_id, study.study_name)
            raise
    best = storage.rows(_best(study))
    value = best[0].value if best else None
    return Standing(counts.budget, counts.done, counts.held, value, reason)


def read_statuses(storage: Storage) -> list[StudyStatus]:
    """The status of every study of hpo's in the database, oldest first.

    One whose definition another version of hpo wrote may be unreadable: it is left out with a
    warning.
    """
    statuses = []
    for name in names(storage):
        try:
            statuses.append(read_status(storage, name))
        except DefinitionError as error:
            _log.warning(
                "study `%s` is left out: this version of hpo cannot read its definition (%s); "
                "use the version that wrote it",
                *(name, error.problems[0]),
            )
        except UsageError:  # stock Optuna's, or deleted just now
            continue
    return statuses


def read_status(storage: Storage, name: str) -> StudyStatus:
    """The status of one study.

    Raises:
        UsageError: there is none of this name, or it is not hpo's.
    """
    study, _ = load(storage, name)
    with storage.guard():
        slots = storage.ledger.slots(study._study_id)
        states = Counter(_states(storage, study._study_id, slots))
        best = storage.rows(_best(study))
        record = _record(storage.optuna.get_trial(best[0].trial_id), study) if best else None
    return StudyStatus(
        study=name,
        budget=len(slots),
        best=record,
        **{state: states[state] for state in records.STATE_NAMES.values()},
    )


def read_trials(storage: Storage, name: str) -> tuple[list[TrialRecord], bool]:
    """Every trial of a study by number, and whether larger values are better.

    Raises:
        UsageError: there is none of this name, or it is not hpo's.
    """
    study, _ = load(storage, name)
    with storage.guard():
        slots = storage.ledger.slots(study._study_id)
        return _records(study, slots), _maximizes(study)


def best_trial(trials: list[TrialRecord], *, maximize: bool) -> TrialRecord | None:
    """The complete trial with the best value, the first of equals; None if there is none."""
    sign = -1.0 if maximize else 1.0
    done = [
        (sign * trial.value, trial.number, trial)
        for trial in trials
        if trial.state == "complete" and trial.value is not None
    ]
    return min(done, key=lambda entry: entry[:2])[2] if done else None


def count_studies(url: str) -> int | None:
    """How many studies a database holds; None where hpo has yet to set it up. Creates nothing.

    Raises:
        StorageError, FileError: it does not work, or could not be made.
    """
    if not _is_ready(parse(url)):
        return None
    with open_storage(url, must_exist=True) as storage:
        return len(names(storage))


def _is_ready(address: Address) -> bool:
    """Whether hpo has set it up; else it could be made."""
    try:
        if address.path is not None:
            _check_place(address, address.path)
        return _is_set_up(address)
    except HpoError:
        raise
    except Exception as error:  # noqa: BLE001 (a driver, and the disk, may raise anything)
        problem = explain(error, address)
    # Not from within `except`: the driver's error may carry the password.
    raise problem


def _check_place(address: Address, path: Path) -> None:
    _check_path(address, path, must_exist=False)
    if not path.exists() and not os.access(path.parent, os.W_OK):
        raise FileError(
            f"{address.shown}: the folder {path.parent} cannot be written; "
            "change its permissions or name another file"
        )


def _records(study: optuna.Study, slots: list[SlotRow]) -> list[TrialRecord]:
    rows = {row.id: row for row in slots}
    found = []
    for trial in study.get_trials(deepcopy=False):
        if SURPLUS in trial.user_attrs:
            continue
        record = _record(trial, study)
        if not trial.state.is_finished():
            state = _unfinished(trial._trial_id, rows.get(trial.user_attrs.get(SLOT, -1)))
            if state is None:
                continue
            record = replace(record, state=state, outcome={"epochs": trial.last_step or 0})
        found.append(record)
    return found


def _record(trial: FrozenTrial, study: optuna.Study) -> TrialRecord:
    return records.read(trial, maximize=_maximizes(study))


def _states(storage: Storage, study_id: int, slots: list[SlotRow]) -> Iterator[str]:
    """The state of every trial that counts.

    Read from Optuna's tables: of a large study that is a small part of what all of its trials
    hold, and status is what people look at again and again.
    """
    rows = {row.id: row for row in slots}
    query = (
        sa.select(_trials.trial_id, _trials.state, _attributes.key, _attributes.value_json)
        .outerjoin_from(
            _trials,
            _attributes,
            sa.and_(
                _attributes.trial_id == _trials.trial_id, _attributes.key.in_((SLOT, SURPLUS))
            ),
        )
        .where(_trials.study_id == study_id)
    )
    found: dict[int, tuple[TrialState, dict[str, str]]] = {}
    for trial_id, state, key, value in storage.rows(query):
        found.setdefault(trial_id, (state, {}))[1][key] = value
    for trial_id, (state, attributes) in found.items():
        if SURPLUS in attributes:
            continue
        if state.is_finished():
            yield records.STATE_NAMES[state]
        elif unfinished := _unfinished(trial_id, rows.get(int(attributes.get(SLOT, -1)))):
            yield unfinished


def _best(study: optuna.Study) -> sa.Select[Any]:
    """The id and the value of the trial that `best_trial` would choose."""
    better = _values.value.desc() if _maximizes(study) else _values.value.asc()
    return (
        sa.select(_trials.trial_id, _values.value)
        .join_from(_trials, _values, _values.trial_id == _trials.trial_id)
        .where(
            _trials.study_id == study._study_id,
            _trials.state == TrialState.COMPLETE,
            _values.value.is_not(None),
        )
        .order_by(better, _trials.number)
        .limit(1)
    )


def _unfinished(trial_id: int, row: SlotRow | None) -> str | None:
    """`running` or `waiting`; None for one that is surplus and not retired yet.

    Args:
        row: the slot that the trial names; it agrees, or does not know the trial yet.
    """
    if row is None or row.trial_id not in (None, trial_id):
        return None
    return "running" if row.live else "waiting"


def _maximizes(study: optuna.Study) -> bool:
    return study.direction == StudyDirection.MAXIMIZE
