"""Putting a study in order after crashes: anybody may do it at any time, and every worker does.

Nothing of it can happen twice: a result is told, a slot done, and a trial retired, once.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import optuna
import sqlalchemy as sa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from hpo.search.spool import Result, Spool
from hpo.search.state_folder import state_folder
from hpo.search.storage import Storage
from hpo.search.study import SLOT, SURPLUS, load, retire, surplus_trials
from hpo.search.telling import tell
from hpo.training.checkpoints import Checkpoints

__all__ = ["Repaired", "repair"]

_trials = models.TrialModel


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
        replayed = sum(_replay(study, spool, result) for result in spool.abandoned())
        _clear(storage, Checkpoints(folder / "checkpoints"))
        finished = _settle(storage, study)
        retired = _retire(storage, study)
        freed = storage.ledger.free(study._study_id)
    return Repaired(replayed, finished, retired, freed)


def _replay(study: optuna.Study, spool: Spool, result: Result) -> bool:
    """Tell a result that its worker could not; returns whether it counted."""
    try:
        trial = study._storage.get_trial(result.trial_id)
    except KeyError:  # its study was deleted
        spool.discard(result.trial_id)
        return False
    if result.study != study.study_name:
        return False  # it waits for somebody who is at that study
    own = trial.user_attrs.get(SLOT) == result.slot_id and trial.number == result.number
    told = (
        own
        and not trial.state.is_finished()
        and tell(study, result, trial.intermediate_values.keys())
    )
    spool.discard(result.trial_id)
    return told


def _clear(storage: Storage, checkpoints: Checkpoints) -> None:
    """Remove what dead workers left of trials that need it no more."""
    checkpoints.sweep()
    keys = checkpoints.keys()
    running = sa.select(_trials.trial_id).where(
        _trials.trial_id.in_(keys), _trials.state == TrialState.RUNNING
    )
    wanted = {row.trial_id for row in storage.rows(running)} if keys else set()
    for key in keys:
        if key not in wanted:
            checkpoints.remove(key)


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
