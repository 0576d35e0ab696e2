"""Telling a study from another one that took its place.

SQLite gives the id of a deleted study to the next one. Whoever keeps trials in memory by their
study's id, as Optuna's cache does, would go on with those of the dead study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from optuna.storages._rdb import models

from hpo.search.storage import Storage

__all__ = ["Identity", "have_gone", "identities"]

_studies = models.StudyModel.__table__.c
_trials = models.TrialModel.__table__.c


@dataclass(frozen=True)
class Identity:
    """What stays the same as long as a study lives.

    Attributes:
        born: when its first trial began; None before it has one.
    """

    name: str
    born: datetime | None


def identities(storage: Storage) -> dict[int, Identity]:
    """The studies of a database by their id; one query, and one row a study.

    Raises:
        StorageError: the database does not answer.
    """
    born = (
        sa.select(_trials.datetime_start)
        .where(_trials.study_id == _studies.study_id)
        .order_by(_trials.trial_id)
        .limit(1)
        .scalar_subquery()
    )
    query = sa.select(_studies.study_id, _studies.study_name, born)
    return {key: Identity(name, start) for key, name, start in storage.rows(query)}


def have_gone(before: Mapping[int, Identity], now: Mapping[int, Identity]) -> bool:
    """Whether any study of `before` was deleted, whatever has its id now."""
    return any(
        key not in now or now[key].name != old.name or old.born not in (None, now[key].born)
        for key, old in before.items()
    )
