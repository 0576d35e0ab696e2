"""Putting a study in order after crashes: anybody may do it at any time, and every worker does.

Nothing of it can happen twice: a result is told, a slot done, and a trial retired, once.

A copy of a database carries the id of the original, so both have one state folder, where trials of
both lie under the same numbers. So a result is told only if it is of a worker that this database
knows the trial from, and what no trial here answers to is left there for a week. A checkpoint may
still be removed by the other database, once that has finished its own trial of the number; then it
is missed, and costs epochs.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
import sqlalchemy as sa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial

from hpo.search import records
from hpo.search.records import SURPLUS
from hpo.search.spool import Result, Spool
from hpo.search.state_folder import state_folder
from hpo.search.storage import Storage
from hpo.search.study import SLOT, load, retire, surplus_trials
from hpo.search.telling import tell
from hpo.training.checkpoints import Checkpoints

__all__ = ["Repaired", "repair"]

_trials = models.TrialModel
_OLD_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Repaired:
    """What was put in order.

    Attributes:
        replayed: results that lay on this machine's disk and are in the database now.
        finished: slots whose trial had been told, and that count now.
        retired: trials that no slot knew.
        freed: slots whose holder had died or fallen silent; the next worker takes their trials.
    """

    replayed: int
    finished: int
    retired: int
    freed: int


def repair(storage: Storage, study_name: str) -> Repaired:
    """Put one study in order.

    Raises:
        UsageError: there is none of this name, or it is not hpo's.
    """
    study, _ = load(storage, study_name)
    folder = state_folder(storage.ledger.database_id)
    spool = Spool(folder / "spool")
    with storage.guard():
        replayed = sum(_replay(storage, study, spool, result) for result in spool.abandoned())
        _clear(storage, Checkpoints(folder / "checkpoints"))
        finished = _settle(storage, study)
        retired = _retire(storage, study)
        freed = storage.ledger.free(study._study_id)
    return Repaired(replayed, finished, retired, freed)


def _replay(storage: Storage, study: optuna.Study, spool: Spool, result: Result) -> bool:
    """Tell a result that its worker could not; returns whether it counted."""
    try:
        trial = study._storage.get_trial(result.trial_id)
    except KeyError:  # its study was deleted, or it is a trial of another copy of the database
        spool.discard(result.trial_id, older_than=_OLD_SECONDS)
        return False
    if result.study != study.study_name:
        return False  # it waits for somebody who is at that study
    if not _is_of(storage, study, result, trial):
        spool.discard(result.trial_id, older_than=_OLD_SECONDS)
        return False
    told = not trial.state.is_finished() and tell(study, result, trial.intermediate_values.keys())
    spool.discard(result.trial_id)
    return told


def _is_of(storage: Storage, study: optuna.Study, result: Result, trial: FrozenTrial) -> bool:
    """Whether a result came out of a trial: out of the hands that trained, or hold, it last."""
    if (trial.number, trial.user_attrs.get(SLOT)) != (result.number, result.slot_id):
        return False
    if records.read(trial, maximize=True).origin.get("worker") == result.holder:
        return True
    # Who takes over what has trained to its end tells it, and trains nothing.
    rows = storage.ledger.slots(study._study_id)
    return any(row.id == result.slot_id and row.holder == result.holder for row in rows)


def _clear(storage: Storage, checkpoints: Checkpoints) -> None:
    """Remove what dead workers left of trials that need it no more."""
    checkpoints.sweep()
    keys = checkpoints.keys()
    if not keys:
        return
    known = sa.select(_trials.trial_id, _trials.state).where(_trials.trial_id.in_(keys))
    finished = {row.trial_id: row.state.is_finished() for row in storage.rows(known)}
    for key in keys:
        if finished.get(key, _is_old(checkpoints.folder / str(key))):
            checkpoints.remove(key)


def _is_old(folder: Path) -> bool:
    """Whether nothing was put into a folder for a long time."""
    try:
        return time.time() - folder.stat().st_mtime > _OLD_SECONDS
    except OSError:  # it was removed meanwhile
        return False


def _settle(storage: Storage, study: optuna.Study) -> int:
    """Mark slots as done whose trial was told by a worker that died before it could."""
    finished = [
        row.id
        for row in storage.ledger.slots(study._study_id)
        if row.trial_id is not None
        and not (row.done or row.live)
        and _is_told(study._storage.get_trial(row.trial_id))
    ]
    return storage.ledger.settle(finished)


def _retire(storage: Storage, study: optuna.Study) -> int:
    def surplus() -> set[int]:
        slots = storage.ledger.slots(study._study_id)
        return {trial._trial_id for trial in surplus_trials(study, slots)}

    # Twice, because slots and trials are not read at one moment, and both may be new.
    ids = surplus()
    ids &= surplus() if ids else set()
    for trial_id in sorted(ids):
        with contextlib.suppress(UpdateFinishedTrialError):  # somebody else has just done it
            retire(study, trial_id, "no slot of the budget knows it")
    return len(ids)


def _is_told(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and SURPLUS not in trial.user_attrs
