"""A search that was stopped for good, until somebody asks for it again: too much of it fails."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo.search.records import SURPLUS

__all__ = ["halt", "halted", "judged", "lift"]

# The second: the number of the first trial whose failure counts.
_HALTED, _FORGIVEN = "hpo:halted", "hpo:forgiven_before"


def halt(study: optuna.Study, reason: str) -> None:
    """Let no worker go on with the study."""
    study.set_user_attr(_HALTED, reason)


def halted(study: optuna.Study) -> str | None:
    """Why no worker is to go on; None if they may."""
    return study.user_attrs.get(_HALTED) or None


def lift(study: optuna.Study) -> None:
    """Let workers go on: whoever asks for the search again has mended what failed.

    Every trial that has begun is forgiven, also one whose failure still lies on a disk, untold.
    """
    if halted(study):
        study.set_user_attr(_FORGIVEN, len(study.get_trials(deepcopy=False)))
        study.set_user_attr(_HALTED, "")


def judged(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials whose failures count: those from before a halt was lifted do not."""
    forgiven = study.user_attrs.get(_FORGIVEN, 0)
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return [
        trial
        for trial in study.get_trials(deepcopy=False, states=states)
        if trial.number >= forgiven and SURPLUS not in trial.user_attrs
    ]
