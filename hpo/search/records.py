"""What is written down with every trial, and how it is read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpo.config import TrialConfig

__all__ = [
    "STATE_NAMES",
    "SURPLUS",
    "TrialRecord",
    "is_twin",
    "place_of",
    "read",
    "write_origin",
    "write_outcome",
]

STATE_NAMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}

SURPLUS = "hpo:surplus"
"""The user attribute of a trial that no slot knows, with the reason; no result counts it."""

# Few attributes with several fields each: every attribute is a transaction of its own.
_CONFIG, _ORIGIN, _OUTCOME, _CURVE = "hpo:config", "hpo:origin", "hpo:outcome", "hpo:curve"


@dataclass(frozen=True)
class TrialRecord:
    """A trial as people and other programs see it.

    Attributes:
        state: `complete`, `pruned`, `failed`, `running` or `waiting`.
        value: the metric at the trial's best epoch; None if it reported none.
        config: None until it was drawn.
        origin: `seed, worker, device, precision`, and `stream, joined`: the place in the stream;
            of a study with variations also `variation`, in words.
        outcome: `epochs, best_epoch, train_seconds, total_seconds, reason`; empty while running.
            Of a study with variations also every metric on the test rows, such as
            `test_accuracy`, unless it leaves them out.
        curve: one mapping an epoch: `epoch, train_loss, loss, accuracy, seconds`, or instead of
            accuracy `mse, rmse, mae, r2`; and `gradient_norms` where they were asked for.
    """

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    config: TrialConfig | None
    origin: dict[str, Any]
    outcome: dict[str, Any]
    curve: list[dict[str, Any]]


def write_origin(trial: optuna.Trial, config: TrialConfig, origin: dict[str, Any]) -> None:
    """Note what a trial is, before it trains."""
    trial.set_user_attr(_CONFIG, config.to_dict())
    trial.set_user_attr(_ORIGIN, origin)


def write_outcome(
    storage: BaseStorage,
    trial_id: int,
    outcome: dict[str, Any],
    curve: list[dict[str, Any]],
) -> None:
    """Note what became of a trial, before it is told."""
    storage.set_trial_user_attr(trial_id, _CURVE, curve)
    storage.set_trial_user_attr(trial_id, _OUTCOME, outcome)


def read(trial: FrozenTrial, *, maximize: bool) -> TrialRecord:
    """A trial with all that was written down with it."""
    attributes = trial.user_attrs
    config = attributes.get(_CONFIG)
    reported = trial.intermediate_values.values()
    best = (max if maximize else min)(reported, default=None)
    return TrialRecord(
        number=trial.number,
        state=STATE_NAMES[trial.state],
        value=trial.value if trial.state == TrialState.COMPLETE else best,
        params=dict(trial.params),
        config=None if config is None else TrialConfig.from_dict(config),
        origin=attributes.get(_ORIGIN, {}),
        outcome=attributes.get(_OUTCOME, {}),
        curve=attributes.get(_CURVE, []),
    )


def place_of(trial: FrozenTrial) -> tuple[int, int] | None:
    """The stream that a trial joined and the epoch at which it did; None before it joined."""
    origin = trial.user_attrs.get(_ORIGIN, {})
    if "stream" not in origin:
        return None
    return int(origin["stream"]), int(origin["joined"])


def is_twin(trial: FrozenTrial) -> bool:
    """Whether the trial took its outcome from an earlier one with the same parameters."""
    return "twin" in trial.user_attrs.get(_OUTCOME, {})
