"""Studies with thousands of finished trials, written to a database in bulk.

The rows are those that Optuna's storage writes, trial by trial; a test compares the two.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy.engine import Connection, Engine

from hpo import space
from hpo.config import MlpConfig, TrialConfig
from hpo.definition import StudyDefinition
from hpo.search import study as studies
from hpo.search import tables

__all__ = ["REPORTS", "PastTrial", "curve_of", "past_trials", "write", "write_slots"]

REPORTS = 10
_COMPLETE_EVERY = 10  # a search with ASHA completes about one in ten
_AT_ONCE = 500
_START = datetime(2026, 11, 1, tzinfo=UTC).replace(tzinfo=None)


@dataclass
class PastTrial:
    """A finished trial; it stands in for an `optuna.Trial` while it is drawn at random."""

    rng: np.random.Generator
    params: dict[str, float] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    config: TrialConfig | None = None
    values: list[float] = field(default_factory=list)
    complete: bool = False

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        drawn = self._number(low - 0.5, high + 0.5, log)
        value = min(high, max(low, low + step * round((drawn - low) / step)))
        return int(self._keep(name, value, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        distribution = FloatDistribution(low, high, log=log, step=step)
        return float(self._keep(name, self._number(low, high, log), distribution))

    def suggest_categorical(self, name: str, choices: Sequence[bool | int | float | str]) -> Any:
        value = choices[int(self.rng.integers(len(choices)))]
        return self._keep(name, value, CategoricalDistribution(choices))

    def _number(self, low: float, high: float, log: bool) -> float:
        if log:
            return math.exp(self.rng.uniform(math.log(max(low, 0.5e-9)), math.log(high)))
        return float(self.rng.uniform(low, high))

    def _keep(self, name: str, value: Any, distribution: BaseDistribution) -> Any:
        self.params[name] = distribution.to_internal_repr(value)
        self.distributions[name] = distribution
        return value


def past_trials(definition: StudyDefinition, first: int, last: int) -> list[PastTrial]:
    """Trials of the numbers `first` to `last - 1`, the same for the same definition."""
    trials = []
    for number in range(first, last):
        trial = PastTrial(np.random.default_rng((definition.search.seed, number)))
        trial.config = space.draw(definition, trial)
        trial.values = curve_of(trial.config)
        trial.complete = number % _COMPLETE_EVERY == 0
        trials.append(trial)
    return trials


def curve_of(config: TrialConfig) -> list[float]:
    """A learning curve of `REPORTS` epochs that depends on the config alone."""
    assert isinstance(config.model, MlpConfig)
    distance = abs(math.log10(config.optimizer.lr) + 2.5) + config.model.dropout / 2
    final = 0.9 - 0.03 * distance - 1e-5 * abs(config.model.widths[0] - 500)
    return [final * (1 - 0.3 / epoch) for epoch in range(1, REPORTS + 1)]


def write(
    engine: Engine, study_id: int, first: int, trials: list[PastTrial], of_hpo: bool
) -> None:
    """Add finished trials to a study whose next trial has the number `first`.

    Args:
        of_hpo: with the attributes that hpo writes; the slots of their numbers are in the ledger.
    """
    for start in range(0, len(trials), _AT_ONCE):
        some = trials[start : start + _AT_ONCE]
        with engine.begin() as connection:
            _write_some(connection, study_id, first + start, some, of_hpo)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            # As the server does by itself within a minute of so many new rows.
            connection.execute(sa.text("ANALYZE"))


def write_slots(engine: Engine, study_id: int, first: int, last: int) -> None:
    """The slots of trials that are done, of the numbers `first` to `last - 1`."""
    rows = [{"study_id": study_id, "number": n, "done": True} for n in range(first, last)]
    with engine.begin() as connection:
        connection.execute(sa.insert(tables.slots), rows)


def _write_some(
    connection: Connection, study_id: int, first: int, trials: list[PastTrial], of_hpo: bool
) -> None:
    connection.execute(
        sa.insert(models.TrialModel.__table__),
        [_trial_row(study_id, number, trial) for number, trial in enumerate(trials, first)],
    )
    table = models.TrialModel.__table__.c
    ids = _ids(connection, table.number, table.trial_id, table.study_id == study_id, first)
    by_id = {ids[number]: trial for number, trial in enumerate(trials, first)}
    for model, rows_of in (
        (models.TrialParamModel, _param_rows),
        (models.TrialIntermediateValueModel, _report_rows),
        (models.TrialValueModel, _value_rows),
    ):
        rows = [{"trial_id": key, **row} for key, trial in by_id.items() for row in rows_of(trial)]
        connection.execute(sa.insert(model.__table__), rows)
    if of_hpo:
        _bind(connection, study_id, first, ids, by_id)


def _bind(
    connection: Connection,
    study_id: int,
    first: int,
    ids: dict[int, int],
    by_id: dict[int, PastTrial],
) -> None:
    """Write trials into their slots, and hpo's attributes into the trials."""
    table = tables.slots.c
    slots = _ids(connection, table.number, table.id, table.study_id == study_id, first)
    connection.execute(
        sa.update(tables.slots)
        .where(table.id == sa.bindparam("slot"))
        .values(trial_id=sa.bindparam("trial")),
        [{"slot": slots[number], "trial": ids[number]} for number in ids],
    )
    rows = [
        {"trial_id": ids[number], "key": key, "value_json": json.dumps(value)}
        for number in ids
        for key, value in _attributes(by_id[ids[number]], slots[number]).items()
    ]
    connection.execute(sa.insert(models.TrialUserAttributeModel.__table__), rows)


def _ids(connection: Connection, number: Any, key: Any, where: Any, first: int) -> dict[int, int]:
    found = connection.execute(sa.select(number, key).where(where, number >= first))
    return {row[0]: row[1] for row in found}


def _trial_row(study_id: int, number: int, trial: PastTrial) -> dict[str, Any]:
    return {
        "number": number,
        "study_id": study_id,
        "state": TrialState.COMPLETE if trial.complete else TrialState.PRUNED,
        "datetime_start": _START + timedelta(seconds=number),
        "datetime_complete": _START + timedelta(seconds=number + 60),
    }


def _param_rows(trial: PastTrial) -> list[dict[str, Any]]:
    return [
        {
            "param_name": name,
            "param_value": value,
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for name, value in trial.params.items()
    ]


def _report_rows(trial: PastTrial) -> list[dict[str, Any]]:
    kind = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    return [
        {"step": step, "intermediate_value": value, "intermediate_value_type": kind}
        for step, value in enumerate(trial.values, start=1)
    ]


def _value_rows(trial: PastTrial) -> list[dict[str, Any]]:
    kind = models.TrialValueModel.TrialValueType.FINITE
    return [{"objective": 0, "value": trial.values[-1], "value_type": kind}]


def _attributes(trial: PastTrial, slot: int) -> dict[str, Any]:
    """As much as hpo notes of a trial: what, where, the outcome, and ten epochs."""
    assert trial.config is not None
    epochs = [
        {"epoch": step, "train_loss": 0.5, "loss": 0.5, "accuracy": value, "seconds": 1.0}
        for step, value in enumerate(trial.values, start=1)
    ]
    return {
        studies.SLOT: slot,
        "hpo:config": trial.config.to_dict(),
        "hpo:origin": {"seed": 1, "worker": "benchmark", "stream": 0, "joined": 0},
        "hpo:curve": epochs,
        "hpo:outcome": {"epochs": REPORTS, "best_epoch": REPORTS, "reason": "all epochs trained"},
    }
