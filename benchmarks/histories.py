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
from hpo.config import TrialConfig
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


def write_slots(engine: Engine, study_id: int, first: int, last: int) -> None:
    """The slots of trials that are done, of the numbers `first` to `last - 1`."""
    rows = [{"study_id": study_id, "number": n, "done": True} for n in range(first, last)]
    with engine.begin() as connection:
        connection.execute(sa.insert(tables.slots), rows)


def _write_some(
    connection: Connection, study_id: int, first: int, trials: list[PastTrial], of_hpo: bool
) -> None:
    numbers = range(first, first + len(trials))
    table = models.TrialModel.__table__
    rows: list[dict[str, Any]] = [
        {
            "number": number,
            "study_id": study_id,
            "state": TrialState.COMPLETE if trial.complete else TrialState.PRUNED,
            "datetime_start": _START + timedelta(seconds=number),
            "datetime_complete": _START + timedelta(seconds=number + 60),
        }
        for number, trial in zip(numbers, trials, strict=True)
    ]
    connection.execute(sa.insert(table), rows)
    found = connection.execute(
        sa.select(table.c.number, table.c.trial_id).where(
            table.c.study_id == study_id, table.c.number >= first
        )
    )
    ids = {number: trial_id for number, trial_id in found}
    _insert(
        connection,
        models.TrialParamModel,
        [
            {
                "trial_id": ids[number],
                "param_name": name,
                "param_value": value,
                "distribution_json": distribution_to_json(trial.distributions[name]),
            }
            for number, trial in zip(numbers, trials, strict=True)
            for name, value in trial.params.items()
        ],
    )
    _insert(
        connection,
        models.TrialIntermediateValueModel,
        [
            {
                "trial_id": ids[number],
                "step": step,
                "intermediate_value": value,
                "intermediate_value_type": (
                    models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
                ),
            }
            for number, trial in zip(numbers, trials, strict=True)
            for step, value in enumerate(trial.values, start=1)
        ],
    )
    _insert(
        connection,
        models.TrialValueModel,
        [
            {
                "trial_id": ids[number],
                "objective": 0,
                "value": trial.values[-1],
                "value_type": models.TrialValueModel.TrialValueType.FINITE,
            }
            for number, trial in zip(numbers, trials, strict=True)
        ],
    )
    if of_hpo:
        slots = dict(
            connection.execute(
                sa.select(tables.slots.c.number, tables.slots.c.id).where(
                    tables.slots.c.study_id == study_id,
                    tables.slots.c.number >= first,
                )
            )
            .tuples()
            .all()
        )
        connection.execute(
            sa.update(tables.slots)
            .where(tables.slots.c.id == sa.bindparam("slot"))
            .values(trial_id=sa.bindparam("trial")),
            [{"slot": slots[number], "trial": ids[number]} for number in numbers],
        )
        _insert(
            connection,
            models.TrialUserAttributeModel,
            [
                {"trial_id": ids[number], "key": key, "value_json": json.dumps(value)}
                for number, trial in zip(numbers, trials, strict=True)
                for key, value in _attributes(trial, slots[number]).items()
            ],
        )


def _insert(connection: Connection, model: Any, rows: list[dict[str, Any]]) -> None:
    connection.execute(sa.insert(model.__table__), rows)


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
