"""Optuna's storage in a database, made fit for many workers and for a database that goes away.

Every call goes through a `Patience`, so every call must be one that can be made twice: the answer
to the first may have been lost after its commit. Reading is, and so is setting what is set
already. A second trial is not created where the first was, and a trial that stands as it was to be
told counts as told.

What a worker does at every epoch is one statement here. Optuna reads the trial's state, then the
row, then writes, in objects of its own, which takes three times as long; and between the reading
and the writing another process may tell the trial. (Optuna guards only the telling, by
`SELECT ... FOR UPDATE`, which SQLite lacks.)
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from hpo.search.outages import Patience
from hpo.search.trial_rows import load_trials

__all__ = ["Backend"]

# What Optuna's cache calls and is not below: as Optuna has it, with patience.
_AS_THEY_ARE = (
    "create_new_study",
    "delete_study",
    "get_all_studies",
    "get_all_trials",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_param",
    "get_trial_system_attrs",
    "get_trial_user_attrs",
    "record_heartbeat",
    "set_study_system_attr",
    "set_study_user_attr",
    "_get_best_trial_id",
    "_get_stale_trial_ids",
)

_trials: sa.Table = models.TrialModel.__table__
_params: sa.Table = models.TrialParamModel.__table__
_values: sa.Table = models.TrialValueModel.__table__
_reports: sa.Table = models.TrialIntermediateValueModel.__table__
_user_attrs: sa.Table = models.TrialUserAttributeModel.__table__
_system_attrs: sa.Table = models.TrialSystemAttributeModel.__table__
_READ_ONLY = "25006"
_OPEN = (TrialState.RUNNING, TrialState.WAITING)


class Backend(RDBStorage):
    """`RDBStorage` for the workers of hpo; `Storage.optuna` is Optuna's cache around it."""

    def __init__(self, url: str, patience: Patience, **options: Any) -> None:
        self._patience = patience
        super().__init__(url, **options)
        self._sqlite = self.engine.dialect.name == "sqlite"
        self._single = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        sa.event.listen(self.engine, "handle_error", _leave_standby)

    # Trials begin and end

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        """Create a trial, once; Optuna's own tries again by itself, and does not stop for that."""
        # Its start, to the microsecond, tells a trial from the others, also on a second try.
        template = template_trial or create_trial(state=TrialState.RUNNING)
        again = False

        def create() -> FrozenTrial:
            nonlocal again
            found = self._created(study_id, template) if again else None
            again = True
            return found or self._create(study_id, template)

        return self._patience(create)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Tell a trial, or pop a waiting one; False if it was popped already.

        Raises:
            UpdateFinishedTrialError: it was told before, and not by an earlier try of this call.
        """
        again = False

        def tell() -> bool:
            nonlocal again
            first, again = not again, True
            try:
                return self._tell(trial_id, state, values)
            except UpdateFinishedTrialError:
                told = None if first else RDBStorage.get_trial(self, trial_id)
                if told is None or (told.state, told.values) != (state, values and [*values]):
                    raise
                return True

        return self._patience(tell)

    # What a worker reads again and again

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """The trials that are named, and those that came after one; Optuna's cache asks for it."""

        def read() -> list[FrozenTrial]:
            with self._single.connect() as connection:
                which = (included_trial_ids, trial_id_greater_than)
                return load_trials(connection, study_id, states, *which)

        return self._patience(read)

    # What is written while they run

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Report a value, or replace it."""
        kind = models.TrialIntermediateValueModel
        stored, stored_type = kind.intermediate_value_to_stored_repr(intermediate_value)
        self._put(
            _reports,
            trial_id,
            {"step": step},
            {"intermediate_value": stored, "intermediate_value_type": stored_type},
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute, or replace it."""
        self._put(_user_attrs, trial_id, {"key": key}, {"value_json": json.dumps(value)})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of Optuna's own, or replace it."""
        self._put(_system_attrs, trial_id, {"key": key}, {"value_json": json.dumps(value)})

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Set a parameter; one that is set stays as it is."""
        self._set_trial_param(trial_id, param_name, param_value_internal, distribution, None)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        previous = previous_distribution or self._patience(
            lambda: self._distribution(trial_id, param_name)
        )
        if previous is not None:
            check_distribution_compatibility(previous, distribution)
        values = {
            "param_value": param_value_internal,
            "distribution_json": distribution_to_json(distribution),
        }
        self._put(_params, trial_id, {"param_name": param_name}, values, replace=False)

    # One try each

    def _create(self, study_id: int, template: FrozenTrial) -> FrozenTrial:
        if template.params or template.values or template.intermediate_values:
            return super()._create_new_trial(study_id, template)  # a whole trial, from elsewhere
        with self._write() as connection:
            number = self._next_number(connection, study_id)
            row = {"number": number, "study_id": study_id, "state": template.state}
            start = _in_utc(template.datetime_start)
            query = sa.insert(_trials).values(datetime_start=start, **row)
            query = query.returning(_trials.c.trial_id)
            trial_id = connection.execute(query).scalar_one()
            for table, attrs in (
                (_user_attrs, template.user_attrs),
                (_system_attrs, template.system_attrs),
            ):
                rows = [
                    {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
                    for key, value in attrs.items()
                ]
                if rows:
                    connection.execute(sa.insert(table), rows)
        created = copy.deepcopy(template)
        created.number, created._trial_id = number, trial_id
        return created

    def _next_number(self, connection: Connection, study_id: int) -> int:
        """The number of a study's next trial, which is this transaction's to give."""
        studies = models.StudyModel.__table__
        # Optuna locks the same row for the same purpose; SQLite is locked as a whole.
        lock = sa.select(studies.c.study_id).where(studies.c.study_id == study_id)
        if connection.scalar(lock.with_for_update()) is None:
            raise KeyError(models.NOT_FOUND_MSG)
        last = connection.scalar(
            sa.select(_trials.c.number)
            .where(_trials.c.study_id == study_id)
            .order_by(_trials.c.trial_id.desc())
            .limit(1)
        )
        return 0 if last is None else last + 1

    def _created(self, study_id: int, template: FrozenTrial) -> FrozenTrial | None:
        """The trial that an earlier try created, if its commit went through."""
        if template.datetime_start is None:
            return None
        query = sa.select(_trials.c.trial_id).where(
            _trials.c.study_id == study_id,
            _trials.c.datetime_start == _in_utc(template.datetime_start),
        )
        with self._single.connect() as connection:
            found = connection.scalars(query).all()
        for trial in (RDBStorage.get_trial(self, trial_id) for trial_id in found):
            if template.user_attrs.items() <= trial.user_attrs.items():
                return trial
        return None

    def _tell(self, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
        pops = state == TrialState.RUNNING
        now = _in_utc(datetime.now(UTC))
        when = {"datetime_start": now} if pops else {"datetime_complete": now}
        with self._write(durable=True) as connection:
            query = sa.update(_trials).where(
                _trials.c.trial_id == trial_id,
                _trials.c.state.in_((TrialState.WAITING,) if pops else _OPEN),
            )
            if not connection.execute(query.values(state=state, **when)).rowcount:
                self._check_open(connection, trial_id)
                return False
            for objective, value in enumerate(values or ()):
                stored, stored_type = models.TrialValueModel.value_to_stored_repr(value)
                row = {"objective": objective, "value": stored, "value_type": stored_type}
                connection.execute(sa.insert(_values).values(trial_id=trial_id, **row))
        return True

    def _put(
        self,
        table: sa.Table,
        trial_id: int,
        key: dict[str, Any],
        values: dict[str, Any],
        *,
        replace: bool = True,
    ) -> None:
        """Write a row of a trial that is not finished, in one statement."""
        query = _put_query(table, (*key, *values), len(key), self._sqlite, replace)
        row = {"trial": trial_id, **key, **values}

        def put() -> None:
            with self._single.connect() as connection:
                if not connection.execute(query, row).rowcount:
                    self._check_open(connection, trial_id)

        self._patience(put)

    def _check_open(self, connection: Connection, trial_id: int) -> None:
        state = connection.scalar(sa.select(_trials.c.state).where(_trials.c.trial_id == trial_id))
        if state is None:
            raise KeyError(models.NOT_FOUND_MSG)
        self.check_trial_is_updatable(trial_id, state)

    def _distribution(self, trial_id: int, name: str) -> BaseDistribution | None:
        """What a parameter was drawn from before, in any trial of the study."""
        study = sa.select(_trials.c.study_id).where(_trials.c.trial_id == trial_id)
        query = (
            sa.select(_params.c.distribution_json)
            .join(_trials, _trials.c.trial_id == _params.c.trial_id)
            .where(_trials.c.study_id == study.scalar_subquery(), _params.c.param_name == name)
            .limit(1)
        )
        with self._single.connect() as connection:
            found = connection.scalar(query)
        return None if found is None else json_to_distribution(found)

    @contextmanager
    def _write(self, *, durable: bool = False) -> Iterator[Connection]:
        """One transaction that will write; on SQLite it takes the lock at once.

        A durable one is on the disk when it returns, and with it all that was written before.
        """
        with self.engine.connect() as connection:
            if durable and self._sqlite:
                connection.connection.execute("PRAGMA synchronous=FULL")
            try:
                with connection.begin():
                    if self._sqlite:
                        connection.exec_driver_sql("BEGIN IMMEDIATE")
                    yield connection
            finally:
                if durable and self._sqlite:
                    connection.connection.execute("PRAGMA synchronous=NORMAL")


@cache
def _put_query(
    table: sa.Table, names: tuple[str, ...], keys: int, on_sqlite: bool, replace: bool
) -> Any:
    """Built once: that takes longer than to run it.

    On PostgreSQL the trial's row is locked against being told meanwhile.
    """
    source = (
        sa.select(_trials.c.trial_id, *(sa.bindparam(n, type_=table.c[n].type) for n in names))
        .where(_trials.c.trial_id == sa.bindparam("trial"), _trials.c.state.in_(_OPEN))
        .with_for_update(read=True)
    )
    insert = (sqlite.insert if on_sqlite else postgresql.insert)(table)
    query: Any = insert.from_select(["trial_id", *names], source)
    index = ["trial_id", *names[:keys]]
    if replace:
        new = {name: query.excluded[name] for name in names[keys:]}
        query = query.on_conflict_do_update(index_elements=index, set_=new)
    else:
        query = query.on_conflict_do_nothing(index_elements=index)
    return query.execution_options(preserve_rowcount=True)  # it is not kept on an INSERT


def _leave_standby(context: sa.engine.ExceptionContext) -> None:
    """After a failover the address may be another server's; a standby answers, and refuses."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def _in_utc(moment: datetime | None) -> datetime | None:
    """A moment as Optuna's tables have it: in UTC, without saying so."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


def _patiently(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @functools.wraps(method)
    def call(self: Backend, *arguments: Any, **options: Any) -> Any:
        return self._patience(lambda: method(self, *arguments, **options))

    return call


for _name in _AS_THEY_ARE:
    setattr(Backend, _name, _patiently(_name))
