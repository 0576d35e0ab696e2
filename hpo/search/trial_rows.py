"""Trials out of the rows that hold them: what Optuna's own reading gives, in a fifth of the time.

A worker reads the trials in progress whenever it draws one or asks whether one should stop. Optuna
makes objects of its mapped classes out of every row, and parses every parameter's distribution
twice, before it makes the trial. Here each table is one plain statement, and a distribution that
was parsed once is known.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

__all__ = ["load_trials"]

_MOST_AT_ONCE = 500  # ids in one statement; some databases take no more than 999

_value_of = models.TrialValueModel.stored_repr_to_value
_report_of = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value

_trials: sa.Table = models.TrialModel.__table__
_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)


def _belonging_to(model: Any, *columns: str) -> sa.Select[Any]:
    """Rows of a table about the trials `ids`, in the order in which they were written."""
    table: sa.Table = model.__table__
    chosen = (table.c.trial_id, *(table.c[name] for name in columns))
    [key] = table.primary_key
    return sa.select(*chosen).where(table.c.trial_id.in_(_IDS)).order_by(key)


_of_study = sa.select(_trials).where(_trials.c.study_id == sa.bindparam("study"))
_NEWER = _of_study.where(_trials.c.trial_id > sa.bindparam("after")).order_by(_trials.c.trial_id)
_LISTED = _of_study.where(_trials.c.trial_id.in_(_IDS)).order_by(_trials.c.trial_id)
_STUDY = sa.select(models.StudyModel.study_id).where(
    models.StudyModel.study_id == sa.bindparam("study")
)
_PARAMS = _belonging_to(models.TrialParamModel, "param_name", "param_value", "distribution_json")
_VALUES = _belonging_to(models.TrialValueModel, "objective", "value", "value_type")
_REPORTS = _belonging_to(
    models.TrialIntermediateValueModel, "step", "intermediate_value", "intermediate_value_type"
)
_USER_ATTRS = _belonging_to(models.TrialUserAttributeModel, "key", "value_json")
_SYSTEM_ATTRS = _belonging_to(models.TrialSystemAttributeModel, "key", "value_json")


def load_trials(
    connection: Connection,
    study_id: int,
    states: Container[TrialState] | None,
    listed: Iterable[int],
    after: int,
) -> list[FrozenTrial]:
    """Trials of a study by id: those that are listed, and all with an id above `after`.

    Args:
        states: others are left out; None for all.
        listed: ids; those above `after` are not read twice.

    Raises:
        KeyError: there is no such study.
    """
    of_study = {"study": study_id}
    rows: list[Any] = []
    for ids in _chunks(sorted(trial_id for trial_id in listed if trial_id <= after)):
        rows += connection.execute(_LISTED, {**of_study, "ids": ids})
    rows += connection.execute(_NEWER, {**of_study, "after": after})
    if not rows and connection.scalar(_STUDY, of_study) is None:
        raise KeyError(models.NOT_FOUND_MSG)
    if states is not None:
        rows = [row for row in rows if row.state in states]
    return [trial for some in _chunks(rows) for trial in _build(connection, some)]


def _build(connection: Connection, rows: list[Any]) -> Iterator[FrozenTrial]:
    """Make trials of their own rows and of those that belong to them."""
    of_trials = {"ids": [row.trial_id for row in rows]}
    distributions: defaultdict[int, dict[str, BaseDistribution]] = defaultdict(dict)
    params: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, name, value, text in connection.execute(_PARAMS, of_trials):
        distribution = distributions[trial_id][name] = _distribution(text)
        params[trial_id][name] = distribution.to_external_repr(value)
    reports: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for trial_id, step, value, kind in connection.execute(_REPORTS, of_trials):
        reports[trial_id][step] = _report_of(value, kind)
    values: defaultdict[int, dict[int, float]] = defaultdict(dict)
    if any(row.state.is_finished() for row in rows):
        for trial_id, objective, value, kind in connection.execute(_VALUES, of_trials):
            values[trial_id][objective] = _value_of(value, kind)
    user_attrs = _attrs(connection, _USER_ATTRS, of_trials)
    system_attrs = _attrs(connection, _SYSTEM_ATTRS, of_trials)
    for row in rows:
        key = row.trial_id
        yield FrozenTrial(
            number=row.number,
            state=row.state,
            value=None,
            values=[value for _, value in sorted(values[key].items())] or None,
            datetime_start=_here(row.datetime_start),
            datetime_complete=_here(row.datetime_complete),
            params=params[key],
            distributions=distributions[key],
            user_attrs=user_attrs[key],
            system_attrs=system_attrs[key],
            intermediate_values=reports[key],
            trial_id=key,
        )


def _attrs(
    connection: Connection, query: sa.Select[Any], of_trials: dict[str, list[int]]
) -> defaultdict[int, dict[str, Any]]:
    attrs: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, key, text in connection.execute(query, of_trials):
        attrs[trial_id][key] = json.loads(text)
    return attrs


@lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    """A distribution, shared by all trials that drew from it; nobody changes one."""
    return json_to_distribution(text)


def _here(moment: datetime | None) -> datetime | None:
    """A moment as Optuna's trials have it: local, without saying so; its tables are in UTC."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _chunks(of: list[Any]) -> Iterator[list[Any]]:
    return (of[first : first + _MOST_AT_ONCE] for first in range(0, len(of), _MOST_AT_ONCE))
