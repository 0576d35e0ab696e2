"""What a database holds, for people and programs that only look: nothing is written.

A trial that is surplus (no slot of the budget knows it) is left out everywhere. A trial that
Optuna calls RUNNING but that nobody holds, because its worker handed it back or fell silent, is
`waiting` here: the next worker takes it over.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import FileError, UsageError
from hpo.search import records
from hpo.search.holder import is_gone
from hpo.search.ledger import SlotRow
from hpo.search.records import TrialRecord
from hpo.search.storage import Storage, _check_path, _is_set_up, explain, open_storage
from hpo.search.study import SLOT, SURPLUS, load, names
from hpo.search.url import Address, parse

__all__ = [
    "StudyStatus",
    "best_trial",
    "count_studies",
    "read_status",
    "read_statuses",
    "read_trials",
]


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


def read_statuses(storage: Storage) -> list[StudyStatus]:
    """The status of every study of hpo's in the database, oldest first."""
    statuses = []
    for name in names(storage):
        try:
            statuses.append(read_status(storage, name))
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
        counted = _records(study, slots)
    states = Counter(record.state for record in counted)
    return StudyStatus(
        study=name,
        budget=len(slots),
        best=best_trial(counted, maximize=_maximizes(study)),
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
    address = parse(url)
    if address.path is not None:
        _check_path(address, address.path, must_exist=False)
        if not address.path.exists() and not os.access(address.path.parent, os.W_OK):
            raise FileError(
                f"{address.shown}: the folder {address.path.parent} cannot be written; "
                "change its permissions or name another file"
            )
    if not _is_ready(address):
        return None
    with open_storage(url, must_exist=True) as storage:
        return len(names(storage))


def _is_ready(address: Address) -> bool:
    try:
        return _is_set_up(address)
    except Exception as error:  # noqa: BLE001 (a driver may raise anything)
        problem = explain(error, address)
    # Not from within `except`: the driver's error may carry the password.
    raise problem


def _records(study: optuna.Study, slots: list[SlotRow]) -> list[TrialRecord]:
    rows = {row.id: row for row in slots}
    found = []
    for trial in study.get_trials(deepcopy=False):
        if SURPLUS in trial.user_attrs:
            continue
        record = records.read(trial, maximize=_maximizes(study))
        if not trial.state.is_finished():
            row = _slot_of(trial, rows)
            if row is None:  # surplus, and not retired yet
                continue
            running = trial.state == TrialState.RUNNING and _is_held(row)
            record = replace(
                record,
                state="running" if running else "waiting",
                outcome={"epochs": trial.last_step or 0},
            )
        found.append(record)
    return found


def _slot_of(trial: FrozenTrial, rows: dict[int, SlotRow]) -> SlotRow | None:
    """The slot of a trial; the trial says which, and the slot agrees or does not know yet."""
    row = rows.get(trial.user_attrs.get(SLOT, -1))
    return row if row and row.trial_id in (None, trial._trial_id) else None


def _is_held(row: SlotRow) -> bool:
    return row.holder is not None and (row.expires_in or 0.0) > 0.0 and not is_gone(row.holder)


def _maximizes(study: optuna.Study) -> bool:
    return study.direction == StudyDirection.MAXIMIZE
